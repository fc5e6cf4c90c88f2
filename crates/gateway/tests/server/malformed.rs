//! Requests that are not plainly one thing are refused, and what is passed on is framed anew.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::backend::Backend;
use crate::{all_of, live, serve};

/// Sends bytes as they are.
fn sent(address: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    // A server that refuses early may close before all is written.
    let _ = stream.write_all(bytes.as_bytes());
    stream
}

/// The status of the first answer.
fn status(address: SocketAddr, bytes: &str) -> String {
    let mut line = String::new();
    let _ = BufReader::new(sent(address, bytes)).read_line(&mut line);
    line.split(' ').nth(1).unwrap_or("closed").to_owned()
}

#[test]
fn malformed_requests_are_refused() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(serde_json::json!([all_of("")]), &[backend.address]));
    let address = server.http()[0];
    let many = format!(
        "GET / HTTP/1.1\r\nhost: a.com\r\n{}\r\n",
        "x: y\r\n".repeat(101)
    );
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a.com\r\nx: {}\r\n\r\n",
        "y".repeat(33 * 1024)
    );
    let cases = [
        ("400", "GET / HTTP/1.1\r\n\r\n"),
        (
            "400",
            "GET / HTTP/1.1\r\nhost: a.com\r\nhost: a.com\r\n\r\n",
        ),
        ("400", "GET / HTTP/1.1\r\nhost: a.com, b.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com/x\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: user@a.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com:x\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a..com\r\n\r\n"),
        ("400", "GET http://b.com/ HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET * HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /../x HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /a/%2e%2e/x HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /a/..%2fx HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /a%00 HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /%zz HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /a\\b HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET  / HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1 \r\nhost: a.com\r\n\r\n"),
        ("400", "GET / HTTP/2.0\r\nhost: a.com\r\n\r\n"),
        ("400", "GET /\r\nhost: a.com\r\n\r\n"),
        ("400", "G\u{1}T / HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost : a.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\n host: a.com\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com\r\nx: a\r\n b\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com\r\nx: a\0b\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com\r\nx: a\rb\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com\r\nx\r\n\r\n"),
        ("400", "GET / HTTP/1.1\r\nhost: a.com\r\n: x\r\n\r\n"),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: -1\r\n\r\n",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: +1\r\n\r\na",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 1, 2\r\n\r\na",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 0x1\r\n\r\na",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: identity\r\n\r\n",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "400",
            "POST / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "400",
            "POST / HTTP/1.0\r\nhost: a.com\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "405",
            "CONNECT a.com:443 HTTP/1.1\r\nhost: a.com:443\r\n\r\n",
        ),
        ("405", "TRACE / HTTP/1.1\r\nhost: a.com\r\n\r\n"),
        ("431", &many),
        ("431", &long),
    ];
    for (expected, bytes) in cases {
        let shown: String = bytes.chars().take(120).collect();
        assert_eq!(status(address, bytes), expected, "{shown:?}");
    }
    assert_eq!(
        backend
            .connections
            .load(std::sync::atomic::Ordering::Relaxed),
        0,
        "no endpoint has seen any of them"
    );
    for fine in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n",
        "GET http://a.com/ HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n",
    ] {
        assert_eq!(status(address, fine), "200", "{fine:?}");
    }
}

/// Both framings at once: the chunks count, the endpoint gets one request in chunks, and the connection ends, so that
/// nothing behind it is a request (RFC 9112 section 6.3).
#[test]
fn two_framings_are_one_request() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(serde_json::json!([all_of("")]), &[backend.address]));
    let bytes = "POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
                 2\r\nab\r\n0\r\n\r\nGET /second HTTP/1.1\r\nhost: a.com\r\n\r\n";
    let mut answer = String::new();
    sent(server.http()[0], bytes)
        .read_to_string(&mut answer)
        .unwrap();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("\"body\":\"ab\""), "{answer}");
    assert!(!answer.contains("content-length\":\"4\""), "{answer}");
}
