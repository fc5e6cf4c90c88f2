//! What is spoken with endpoints and clients besides HTTP/1.1: HTTP/2, TLS, gRPC, the PROXY protocol; retries and times.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan_gateway::server::{Limits, Live, Settings};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::malformed::{sent, status};
use crate::{all_of, annotated, curl, live, serve, serve_with};

/// Everything goes to these endpoints, by an Ingress with annotations of ingress-nginx.
fn all_to(annotations: &[(&str, &str)], endpoints: &[SocketAddr]) -> Live {
    annotated(annotations, json!([all_of("")]), endpoints)
}

fn asked(address: SocketAddr, path: &str) -> Value {
    let told = curl(&[
        "--header",
        "Host: a.com",
        &format!("http://{address}{path}"),
    ]);
    serde_json::from_str(&told).unwrap()
}

#[test]
fn endpoints_are_spoken_to_as_they_wish() {
    let (plain, tls) = (Backend::start(1), Backend::start_tls(2));
    let server = serve(1);
    for (protocol, backend, proto, authority) in [
        ("HTTP", &plain, "HTTP/1.1", Value::Null),
        ("GRPC", &plain, "HTTP/2.0", json!("a.com")),
        ("HTTPS", &tls, "HTTP/1.1", Value::Null),
        ("GRPCS", &tls, "HTTP/2.0", json!("a.com")),
    ] {
        server.swap(all_to(
            &[("backend-protocol", protocol)],
            &[backend.address],
        ));
        let before = backend
            .connections
            .load(std::sync::atomic::Ordering::Relaxed);
        for _ in 0..3 {
            let said = asked(server.http()[0], "/x?y=z");
            assert_eq!(said["proto"], proto, "{protocol}");
            assert_eq!(said["authority"], authority, "{protocol}");
            assert_eq!(said["path"], "/x?y=z", "{protocol}");
            assert_eq!(said["headers"]["x-forwarded-host"], "a.com", "{protocol}");
        }
        let after = backend
            .connections
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(
            after - before,
            1,
            "{protocol}: one connection serves them all"
        );
    }
    server.swap(all_to(&[("backend-protocol", "GRPCS")], &[plain.address]));
    let refused = status(
        server.http()[0],
        b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(refused, "502", "an endpoint that speaks something else");
}

/// A call of gRPC: bytes go to and fro while it lasts, and the status comes behind them.
#[test]
fn grpc_streams_and_ends_with_its_status() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(all_to(&[("backend-protocol", "GRPC")], &[backend.address]));
    let address = server.http()[0];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let connecting = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = connecting.await.unwrap();
        tokio::spawn(connection);
        let (more, parts) = tokio::sync::mpsc::channel::<Bytes>(1);
        let parts = stream::unfold(parts, |mut parts| async move {
            let part = parts.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(part)), parts))
        });
        let request = Request::post("http://a.com/stream")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(StreamBody::new(parts.boxed()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let mut body = answer.into_body();
        for text in ["one", "two"] {
            more.send(Bytes::from(text)).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(
                frame.into_data().unwrap(),
                text,
                "before the request is at its end"
            );
        }
        drop(more);
        let trailers = body
            .frame()
            .await
            .unwrap()
            .unwrap()
            .into_trailers()
            .unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
}

/// Errors of our own are told as gRPC has it.
#[test]
fn grpc_is_told_in_its_own_way() {
    let server = serve(1);
    server.swap(all_to(&[], &[]));
    let address = server.http()[0];
    let of = |path: &str| {
        let url = format!("http://{address}{path}");
        let host = if path == "/none" {
            "Host: x"
        } else {
            "Host: a.com"
        };
        curl(&[
            "--http2-prior-knowledge",
            "--include",
            "--header",
            host,
            "--header",
            "Content-Type: application/grpc",
            &url,
        ])
    };
    let told = of("/");
    assert!(
        told.starts_with("HTTP/2 200") && told.contains("grpc-status: 14"),
        "{told}"
    );
    server.swap(live(json!([all_of("a.com")]), &[]));
    let told = of("/none");
    assert!(
        told.starts_with("HTTP/2 200") && told.contains("grpc-status: 12"),
        "{told}"
    );
}

#[test]
fn clients_may_begin_with_http2() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(all_to(&[], &[backend.address]));
    let url = format!("http://{}/", server.http()[0]);
    let shown = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_version} %{http_code}",
        &url,
    ];
    assert_eq!(
        curl(&[&["--http2-prior-knowledge"], &shown[..]].concat()),
        "2 200"
    );
    // An upgrade to it is not agreed to, and the request is served nevertheless.
    assert_eq!(curl(&[&["--http2"], &shown[..]].concat()), "1.1 200");
}

fn announced(from: &str) -> Settings {
    Settings {
        announcers: vec![from.parse().unwrap()],
        ..Settings::default()
    }
}

#[test]
fn who_stands_in_front_says_who_the_client_is() {
    let backend = Backend::start(1);
    let server = serve_with(1, announced("127.0.0.0/8"));
    server.swap(all_to(&[], &[backend.address]));
    let request = "GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n";
    let v1 = "PROXY TCP4 203.0.113.2 198.51.100.1 4000 8080\r\n".to_owned();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([203, 0, 113, 2, 198, 51, 100, 1, 0x0f, 0xa0, 0x1f, 0x90]);
    for header in [v1.into_bytes(), v2] {
        let mut answer = String::new();
        let bytes = [&header[..], request.as_bytes()].concat();
        sent(server.http()[0], &bytes)
            .read_to_string(&mut answer)
            .unwrap();
        assert!(
            answer.contains("\"x-forwarded-for\":\"203.0.113.2\""),
            "{answer}"
        );
        assert!(answer.contains("\"x-forwarded-port\":\"8080\""), "{answer}");
    }
    // Whoever should say it and does not is refused.
    assert_eq!(status(server.http()[0], request.as_bytes()), "closed");
    // From anybody else it is no request.
    let server = serve_with(1, announced("203.0.113.0/24"));
    server.swap(all_to(&[], &[backend.address]));
    let lie = format!("PROXY TCP4 203.0.113.2 198.51.100.1 4000 8080\r\n{request}");
    assert_eq!(status(server.http()[0], lie.as_bytes()), "400");
}

/// The head of a request, at an endpoint.
fn head(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    seen
}

/// An endpoint that hears who the client is: what comes before the request.
#[test]
fn endpoints_are_told_who_the_client_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let server = serve(1);
    let told = ("portolan.dev/backend-proxy-protocol", "v1");
    server.swap(all_to(&[told], &[endpoint]));
    let address = server.http()[0];
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let own = stream.local_addr().unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (own, answer)
    });
    let (mut stream, _) = listener.accept().unwrap();
    let seen = head(&mut stream);
    stream
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    let (own, answer) = client.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let first = format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        own.ip(),
        address.ip(),
        own.port(),
        address.port()
    );
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with(&first), "{seen}");
}

#[test]
fn another_endpoint_is_asked_for_statuses_that_are_not_wanted() {
    let (one, two) = (Backend::start(1), Backend::start(2));
    let server = serve(1);
    let next = ("proxy-next-upstream", "http_503");
    let code = |more: &[&str], path: &str| {
        let url = format!("http://{}{path}", server.http()[0]);
        let shown = ["--output", "/dev/null", "--write-out", "%{http_code}", &url];
        curl(&[&shown[..], more].concat())
    };
    server.swap(all_to(&[next], &[one.address, two.address]));
    assert_eq!(
        code(&[], "/status/503"),
        "503",
        "the last answer is passed on"
    );
    assert_eq!(
        (one.requests(), two.requests()),
        (1, 1),
        "both have been asked"
    );
    assert_eq!(code(&["--data", "x"], "/status/503"), "503");
    assert_eq!(
        one.requests() + two.requests(),
        3,
        "what may do something twice is asked once"
    );
    server.swap(all_to(&[], &[one.address, two.address]));
    assert_eq!(code(&[], "/status/503"), "503");
    assert_eq!(
        one.requests() + two.requests(),
        4,
        "nobody has asked for it"
    );
}

#[test]
fn an_endpoint_that_is_silent_for_too_long_is_given_up() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(all_to(&[("proxy-read-timeout", "1")], &[backend.address]));
    let request = b"GET /wait HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n";
    assert_eq!(status(server.http()[0], request), "504");
}

#[test]
fn the_same_text_finds_the_same_endpoint() {
    let backends: Vec<Backend> = (1..=4).map(Backend::start).collect();
    let endpoints: Vec<SocketAddr> = backends.iter().map(|b| b.address).collect();
    let server = serve(2);
    server.swap(all_to(&[("upstream-hash-by", "$request_uri")], &endpoints));
    let who = |path: &str| asked(server.http()[0], path)["who"].to_string();
    let paths: Vec<String> = (0..16).map(|n| format!("/{n}")).collect();
    let first: Vec<String> = paths.iter().map(|path| who(path)).collect();
    let second: Vec<String> = paths.iter().map(|path| who(path)).collect();
    assert_eq!(first, second);
    assert!(
        first.iter().any(|who| *who != first[0]),
        "and not all the same one"
    );
}

/// Times of clients, short enough for a test.
fn impatient() -> Settings {
    let short = Duration::from_millis(300);
    Settings {
        limits: Limits {
            handshake_timeout: short,
            head_timeout: short,
            client_timeout: short,
            ..Limits::default()
        },
        ..Settings::default()
    }
}

#[test]
fn clients_that_do_not_go_on_are_given_up() {
    let backend = Backend::start(1);
    let server = serve_with(1, impatient());
    server.swap(all_to(&[], &[backend.address]));
    let (http, https) = (server.http()[0], server.https()[0]);
    for (address, bytes, expected) in [
        (http, &b""[..], ""),
        (http, b"PRI * HTT", ""),
        (http, b"GET / HTTP/1.1\r\nhost: a.c", ""),
        (https, b"", ""),
        (https, b"\x16\x03\x01", ""),
        (
            http,
            b"POST / HTTP/1.1\r\nhost: a.com\r\ncontent-length: 5\r\n\r\nab",
            "HTTP/1.1 408",
        ),
        (
            http,
            b"POST / HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab",
            "HTTP/1.1 408",
        ),
    ] {
        let mut answer = Vec::new();
        // It ends by itself, or this fails.
        let read = sent(address, bytes).read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            read.is_ok() && text.starts_with(expected),
            "{bytes:?}: {read:?} {text}"
        );
    }
}

/// The third connection waits until one of the two before it ends.
#[test]
fn there_is_room_for_so_many_connections() {
    let backend = Backend::start(1);
    let settings = Settings {
        limits: Limits {
            // Each of the two sockets that wait counts as one.
            connections_max: 3,
            ..Limits::default()
        },
        ..Settings::default()
    };
    let server = serve_with(1, settings);
    server.swap(all_to(&[], &[backend.address]));
    let address = server.http()[0];
    let request = b"GET / HTTP/1.1\r\nhost: a.com\r\n\r\n";
    let mut first: Vec<TcpStream> = (0..2).map(|_| sent(address, request)).collect();
    for stream in &mut first {
        let mut some = [0; 12];
        stream.read_exact(&mut some).unwrap();
        assert_eq!(&some, b"HTTP/1.1 200");
    }
    let mut third = sent(address, request);
    third.set_nonblocking(true).unwrap();
    let mut some = [0; 12];
    assert!(third.read(&mut some).is_err(), "nobody has looked at it");
    drop(first.pop());
    third.set_nonblocking(false).unwrap();
    third.read_exact(&mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
}

/// A client that reads nothing does not keep its connection for ever.
#[test]
fn clients_that_take_nothing_are_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let server = serve_with(1, impatient());
    server.swap(all_to(&[], &[endpoint]));
    let request = b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n";
    let _client = sent(server.http()[0], request);
    let (mut stream, _) = listener.accept().unwrap();
    head(&mut stream);
    stream
        .set_write_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    // An answer without end is taken for as long as the client takes it, and then nobody takes it.
    let part = vec![0; 64 * 1024];
    let ended = loop {
        if let Err(error) = stream.write_all(&part) {
            break error;
        }
    };
    let kinds = [
        std::io::ErrorKind::BrokenPipe,
        std::io::ErrorKind::ConnectionReset,
    ];
    assert!(kinds.contains(&ended.kind()), "{ended}");
}

#[test]
fn requests_for_another_certificate_are_sent_away() {
    let backend = Backend::start(1);
    let server = serve(1);
    let mut now = live(
        json!([all_of("one.com"), all_of("two.com"), all_of("three.com")]),
        &[backend.address],
    );
    let identity = |name: &str| {
        (
            portolan_gateway::Host::parse(name).unwrap(),
            crate::certificate(name).1,
        )
    };
    let other = portolan_gateway::server::Identity::self_signed().unwrap();
    let all = [identity("one.com"), identity("two.com")];
    now.certificates = Arc::new(portolan_gateway::server::Certificates::new(all, other));
    server.swap(now);
    let port = server.https()[0].port();
    let code = |host: &str| {
        let (host, resolve) = (format!("Host: {host}"), format!("one.com:{port}:127.0.0.1"));
        let url = format!("https://one.com:{port}/");
        curl(&[
            "--insecure",
            "--resolve",
            &resolve,
            "--header",
            &host,
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            &url,
        ])
    };
    assert_eq!(code("one.com"), "200");
    assert_eq!(code("two.com"), "421", "it has a certificate of its own");
    assert_eq!(code("three.com"), "200", "it has none");
}

/// Events come to the client as they come from the endpoint.
#[test]
fn events_are_not_kept_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve(1);
    server.swap(all_to(&[], &[listener.local_addr().unwrap()]));
    let mut client = sent(server.http()[0], b"GET / HTTP/1.1\r\nhost: a.com\r\n\r\n");
    let (mut endpoint, _) = listener.accept().unwrap();
    head(&mut endpoint);
    endpoint
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        .unwrap();
    let mut seen = Vec::new();
    for event in ["data: one\n\n", "data: two\n\n"] {
        endpoint.write_all(event.as_bytes()).unwrap();
        while !String::from_utf8_lossy(&seen).contains(event) {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }
}
