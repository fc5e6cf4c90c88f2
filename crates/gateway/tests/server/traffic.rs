//! Requests that are as they should be.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::backend::Backend;
use crate::{all_of, annotated, certificate, certificates, curl, live, serve};

fn url(address: SocketAddr, rest: &str) -> String {
    format!("http://{address}{rest}")
}

fn status(address: SocketAddr, arguments: &[&str], path: &str) -> String {
    let url = url(address, path);
    let fixed = [
        "--path-as-is",
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        &url,
    ];
    curl(&[&fixed[..], arguments].concat())
}

/// The conformance case of load balancing: 100 requests, 10 endpoints, each of which answers.
#[test]
fn every_endpoint_answers() {
    let counts = counts(&[]);
    assert_eq!(counts.len(), 10, "{counts:?}");
}

#[test]
fn endpoints_get_their_turns() {
    let counts = counts(&[("load-balance", "round_robin")]);
    assert_eq!(counts.values().copied().collect::<Vec<_>>(), [10; 10]);
}

/// How often each of ten endpoints has answered one of 100 requests.
fn counts(annotations: &[(&str, &str)]) -> BTreeMap<String, usize> {
    let backends: Vec<Backend> = (1..=10).map(Backend::start).collect();
    let endpoints: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let server = serve(2);
    server.swap(annotated(annotations, json!([all_of("")]), &endpoints));
    let said = curl(&["--write-out", "\n", &url(server.http()[0], "/?[1-100]")]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in said.lines() {
        let said: Value = serde_json::from_str(line).unwrap();
        *counts
            .entry(said["who"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    let connections = backends
        .iter()
        .map(|backend| backend.connections.load(Ordering::Relaxed));
    assert_eq!(connections.max(), Some(1), "connections are used again");
    counts
}

#[test]
fn what_cannot_be_served_has_its_status() {
    let server = serve(1);
    let address = server.http()[0];
    assert_eq!(status(address, &[], "/"), "404", "nothing is live yet");
    let closed = std::net::TcpListener::bind("127.0.0.3:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let broken = json!({"host": "broken.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "gone", "port": {"number": 80}}}}]}});
    server.swap(live(json!([all_of("a.com"), broken]), &[]));
    let with_host = |host: &str| status(address, &["--header", &format!("Host: {host}")], "/");
    assert_eq!(with_host("b.com"), "404");
    assert_eq!(with_host("a.com"), "503", "no endpoints");
    assert_eq!(with_host("broken.com"), "503");
    server.swap(live(json!([all_of("a.com")]), &[closed]));
    assert_eq!(with_host("a.com"), "502", "no endpoint takes a connection");
    let told = curl(&["--include", &url(address, "/x")]);
    for part in [
        "HTTP/1.1 404 Not Found",
        "content-length:",
        "content-type: text/plain",
        "date:",
        "server: portolan",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn endpoints_that_refuse_cost_no_request() {
    let backend = Backend::start(4);
    let closed = |number: u8| {
        let listener = std::net::TcpListener::bind(format!("127.0.0.{number}:0")).unwrap();
        listener.local_addr().unwrap()
    };
    let server = serve(1);
    server.swap(live(
        json!([all_of("")]),
        &[closed(5), backend.address, closed(6)],
    ));
    let codes = curl(&[
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code} ",
        "--data",
        "hello",
        &url(server.http()[0], "/?[1-30]"),
    ]);
    assert_eq!(codes, "200 ".repeat(30));
}

/// Three endpoints are tried: of six turns, three reach the only one that takes connections.
#[test]
fn not_more_than_three_endpoints_are_tried() {
    let backend = Backend::start(4);
    let closed = std::net::TcpListener::bind("127.0.0.5:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closed_ones = (11..=15_u8).map(|last| SocketAddr::from(([127, 0, 0, last], closed.port())));
    let mut endpoints: Vec<SocketAddr> = closed_ones.collect();
    endpoints.push(backend.address);
    let server = serve(1);
    let turns = ("load-balance", "round_robin");
    server.swap(annotated(&[turns], json!([all_of("")]), &endpoints));
    let url = url(server.http()[0], "/?[1-6]");
    let codes = curl(&[
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}\n",
        &url,
    ]);
    let count = |code: &str| codes.lines().filter(|given| *given == code).count();
    assert_eq!((count("200"), count("502")), (3, 3), "{codes}");
}

#[test]
fn endpoints_are_told_of_the_client() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let address = server.http()[0];
    let told = curl(&[
        "--include",
        "--header",
        "Host: Shop.com:8080",
        "--header",
        "X-Forwarded-For: 10.1.0.9",
        "--header",
        "Connection: x-drop",
        "--header",
        "X-Drop: 1",
        "--data",
        "ab",
        &url(address, "/a%2Fb?q=1&r=%20"),
    ]);
    let (head, body) = told.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("server: portolan") && !head.contains("keep-alive"),
        "{head}"
    );
    let said: Value = serde_json::from_str(body).unwrap();
    let headers = &said["headers"];
    assert_eq!(said["method"], "POST");
    assert_eq!(said["path"], "/a%2Fb?q=1&r=%20", "as it was sent");
    assert_eq!(said["body"], "ab");
    assert_eq!(headers["host"], "Shop.com:8080");
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-real-ip"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-host"], "Shop.com:8080");
    assert_eq!(headers["x-forwarded-port"], address.port().to_string());
    assert!(
        headers["x-drop"].is_null() && headers["user-agent"].as_str().unwrap().starts_with("curl/")
    );
}

#[test]
fn tls_shows_the_certificate_of_the_name() {
    let backend = Backend::start(1);
    let server = serve(1);
    let (chain, identity) = certificate("secure.com");
    let mut now = live(
        json!([all_of("secure.com"), all_of("other.com")]),
        &[backend.address],
    );
    now.certificates = certificates("secure.com", identity);
    server.swap(now);
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("ca.pem");
    std::fs::write(&file, chain).unwrap();
    let port = server.https()[0].port();
    let resolve = |host: &str| format!("{host}:{port}:127.0.0.1");
    let ask = |host: &str, version: &str, more: &[&str]| {
        let (resolve, url) = (resolve(host), format!("https://{host}:{port}/"));
        curl(
            &[
                &[
                    version,
                    "--resolve",
                    &resolve,
                    "--write-out",
                    " %{http_version} %{http_code}",
                    &url,
                ],
                more,
            ]
            .concat(),
        )
    };
    let trusted = ["--cacert", file.to_str().unwrap()];
    for (version, name) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let told = ask("secure.com", version, &trusted);
        assert!(told.ends_with(&format!(" {name} 200")), "{told}");
        assert!(
            told.contains("\"x-forwarded-proto\":\"https\"")
                && told.contains("\"proto\":\"HTTP/1.1\""),
            "{told}"
        );
        assert!(
            told.contains(&format!("\"host\":\"secure.com:{port}\"")),
            "{told}"
        );
    }
    let told = ask("other.com", "--http2", &["--insecure", "--verbose"]);
    assert!(told.ends_with(" 2 200"), "{told}");
    let upload = ask(
        "secure.com",
        "--http2",
        &[&trusted[..], &["--data", "ab", "--header", "Cookie: a=1"]].concat(),
    );
    assert!(
        upload.contains("\"body\":\"ab\"") && upload.contains("\"cookie\":\"a=1\""),
        "{upload}"
    );
}

#[test]
fn hosts_with_tls_send_clients_there() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("secure.com")]), &[backend.address]));
    let address = server.http()[0];
    let ask = |path: &str| {
        let url = url(address, path);
        curl(&[
            "--header",
            "Host: SECURE.com:80",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{redirect_url}",
            &url,
        ])
    };
    assert_eq!(ask("/a?b=c"), "308 https://secure.com/a?b=c");
    assert_eq!(ask("/.well-known/acme-challenge/x"), "200 ");
}

#[test]
fn upgraded_connections_carry_bytes() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let mut stream = TcpStream::connect(server.http()[0]).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: a.com\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"),
        "{head}"
    );
    // What is live changes, and the connection stays.
    server.swap(live(json!([]), &[]));
    for text in ["hello", "again"] {
        stream.write_all(text.as_bytes()).unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(echo, text.as_bytes());
    }
    // It counts as a connection until its end.
    assert_eq!(server.observer().tally().open, 1);
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.observer().tally().open > 0 {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

/// Routes and endpoints change all the time, and no request notices.
#[test]
fn changes_lose_no_request() {
    let (one, two) = (Backend::start(1), Backend::start(2));
    let server = serve(2);
    let states = [
        vec![one.address],
        vec![two.address],
        vec![one.address, two.address],
    ];
    server.swap(live(json!([all_of("")]), &states[0]));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut index = 0;
            while !done.load(Ordering::Relaxed) {
                index += 1;
                server.swap(live(
                    json!([all_of(""), all_of("x.com")]),
                    &states[index % states.len()],
                ));
            }
        });
        let url = url(server.http()[0], "/?[1-1000]");
        let codes = curl(&[
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}\n",
            &url,
        ]);
        done.store(true, Ordering::Relaxed);
        assert_eq!(codes.lines().filter(|code| *code == "200").count(), 1000);
    });
}

#[test]
fn a_server_that_stops_finishes_requests() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let address = server.http()[0];
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(b"GET /wait HTTP/1.1\r\nhost: a.com\r\n\r\n")
        .unwrap();
    // The endpoint has the request, since it has taken a connection and its answer waits for us.
    while backend.connections.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    let stopping = std::thread::spawn(move || server.stop());
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    backend.go.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"),
        "{answer}"
    );
    stopping.join().unwrap();
}
