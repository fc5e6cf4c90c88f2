//! What endpoints answer by HTTP/1.1, as bytes: how bodies are framed, and connections that end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use portolan_gateway::server::Server;
use serde_json::json;

use crate::{all_of, curl, live, serve};

/// An endpoint that gives each request the next of its answers, and starts anew behind the last one; it ends the
/// connection where an answer says so, without telling anybody.
fn endpoint(answers: &'static [(&'static str, bool)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.8:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut next = answers.iter().cycle();
        for stream in listener.incoming() {
            let _ = converse(stream.unwrap(), &mut next);
        }
    });
    address
}

fn converse<'a>(
    mut stream: TcpStream,
    answers: &mut impl Iterator<Item = &'a (&'a str, bool)>,
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let mut part = [0; 4096];
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => read.extend_from_slice(&part[..count]),
        }
        while let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            read.drain(..end + 4);
            let (answer, ends) = answers.next().unwrap();
            stream.write_all(answer.as_bytes())?;
            if *ends {
                return Ok(());
            }
        }
    }
}

fn served(answers: &'static [(&'static str, bool)]) -> Server {
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[endpoint(answers)]));
    server
}

/// Status and body.
fn asked(server: &Server, arguments: &[&str]) -> String {
    let url = format!("http://{}/", server.http()[0]);
    curl(&[&["--write-out", " %{http_code}", &url], arguments].concat())
}

#[test]
fn bodies_of_answers_are_framed_in_every_way() {
    let server = served(&[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nhello", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", true),
    ]);
    for _ in 0..10 {
        assert_eq!(asked(&server, &[]), "hello 200");
    }
}

#[test]
fn answers_without_a_body_keep_their_connection() {
    let server = served(&[
        ("HTTP/1.1 204 No Content\r\n\r\n", false),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
    ]);
    for _ in 0..3 {
        assert_eq!(asked(&server, &[]), " 204");
        assert_eq!(asked(&server, &[]), " 304");
        assert_eq!(asked(&server, &[]), "ok 200");
    }
    let server = served(&[("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false)]);
    let said = asked(&server, &["--head"]).to_ascii_lowercase();
    assert!(
        said.contains("content-length: 5") && said.ends_with("200"),
        "{said}"
    );
}

#[test]
fn answers_that_can_be_read_in_two_ways_are_refused() {
    const BAD: &[(&str, bool)] = &[
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello", false),
        (
            "HTTP/1.1 200 OK\r\nx: y\r\n z\r\nContent-Length: 5\r\n\r\nhello",
            false,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            false,
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", false),
    ];
    let server = served(BAD);
    for (bad, _) in BAD {
        let said = asked(&server, &["--output", "/dev/null", "--request", "POST"]);
        // The endpoint is out of rotation for a while by then, and asked all the same: there is no other one.
        assert_eq!(said, " 502", "{bad:?}");
    }
}

#[test]
fn what_stands_behind_an_answer_is_no_answer() {
    let server = served(&[(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        false,
    )]);
    for _ in 0..5 {
        assert_eq!(asked(&server, &[]), "ok 200");
    }
}

#[test]
fn connections_that_end_while_they_are_idle_cost_no_request() {
    let server = served(&[("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true)]);
    for _ in 0..30 {
        assert_eq!(asked(&server, &[]), "ok 200");
    }
}
