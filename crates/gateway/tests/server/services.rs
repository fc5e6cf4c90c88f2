//! Services that answers and requests go to besides the backend: one that judges, one that stands in, one that gets
//! copies; and answers that are made smaller.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use portolan_gateway::ObjectName;
use serde_json::json;

use crate::all_of;
use crate::backend::Backend;
use crate::site::{Served, Site, path, rules};

/// Answers every request in the same words, and tells what it was asked.
struct Fixed {
    address: SocketAddr,
    asked: Receiver<String>,
}

impl Fixed {
    /// `answer` has no length: it ends with its connection.
    fn start(answer: &'static [u8]) -> Fixed {
        let listener = TcpListener::bind("127.0.0.9:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, asked) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut bytes) = (stream.unwrap(), Vec::new());
                stream
                    .set_read_timeout(Some(Duration::from_secs(30)))
                    .unwrap();
                while !is_whole(&bytes) {
                    let mut piece = [0; 4096];
                    match stream.read(&mut piece) {
                        Ok(0) | Err(_) => break,
                        Ok(count) => bytes.extend_from_slice(&piece[..count]),
                    }
                }
                let _ = stream.write_all(answer);
                if send
                    .send(String::from_utf8_lossy(&bytes).into_owned())
                    .is_err()
                {
                    return;
                }
            }
        });
        Fixed { address, asked }
    }

    fn next(&self) -> String {
        self.asked.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }
}

/// Whether a request has come to its end.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.map_or(0, |length| length.parse().unwrap())
}

#[test]
fn a_service_is_asked_who_may_go_on() {
    let backend = Backend::start(1);
    let yes = Fixed::start(
        b"HTTP/1.1 204 No Content\r\nX-User: ann\r\nX-Other: 1\r\nConnection: close\r\n\r\n",
    );
    let no = Fixed::start(
        b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a=1\r\nConnection: close\r\n\r\n",
    );
    let sign_in = json!({"auth-url": no.url("/"), "auth-signin": "https://login.com/start?x=1"});
    let passed = json!({"auth-url": yes.url("/check?of=$host"), "auth-response-headers": "X-User, X-Gone", "rewrite-target": "/inner"});
    let served = Site::new(&[backend.address], &[])
        .ingress("a", passed, json!([all_of("a.com")]))
        .ingress(
            "b",
            json!({"auth-url": no.url("/")}),
            json!([all_of("b.com")]),
        )
        .ingress("c", sign_in, json!([all_of("c.com")]))
        .ingress(
            "d",
            json!({"auth-url": "http://127.0.0.9:1/"}),
            json!([all_of("d.com")]),
        )
        .ingress(
            "e",
            json!({"auth-url": "https://auth.com/"}),
            json!([all_of("e.com")]),
        )
        .serve();
    assert_eq!(served.reasons, ["AccessClosed"]);
    let answer = served.ask(
        "a.com",
        "/x?q=1",
        &[
            "--header",
            "X-User: eve",
            "--header",
            "X-Gone: eve",
            "--data",
            "body",
        ],
    );
    let headers = &answer.said()["headers"];
    assert_eq!((answer.status, &*answer.path()), (200, "/inner?q=1"));
    assert_eq!(
        (&headers["x-user"], &headers["x-gone"], &headers["x-other"]),
        (&json!("ann"), &json!(null), &json!(null)),
        "what clients say in those headers is not believed"
    );
    let asked = yes.next().to_ascii_lowercase();
    for line in [
        "get /check?of=a.com http/1.1\r\n",
        "\r\nx-original-url: http://a.com/x?q=1\r\n",
        "\r\nx-original-method: post\r\n",
        "\r\nx-auth-request-redirect: /x?q=1\r\n",
        "\r\nx-real-ip: 127.0.0.1\r\n",
        &format!("\r\nhost: {}\r\n", yes.address),
    ] {
        assert!(asked.contains(line), "{line:?} in {asked}");
    }
    assert!(
        !asked.contains("content-length") && !asked.ends_with("body"),
        "{asked}"
    );
    let refused = served.ask("b.com", "/", &[]);
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    let sent = served.ask("c.com", "/x?q=1", &[]);
    let to = "https://login.com/start?x=1&rd=http%3A%2F%2Fc.com%2Fx%3Fq%3D1";
    assert_eq!((sent.status, sent.header("location")), (302, Some(to)));
    assert_eq!(sent.header("set-cookie"), Some("a=1"));
    assert_eq!(served.status("d.com", "/", &[]), 500, "nobody answers");
    assert_eq!(served.status("e.com", "/", &[]), 503, "closed");
}

#[test]
fn somebody_stands_in_for_a_backend() {
    let other = Backend::start(2);
    let broken = Fixed::start(
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnope",
    );
    let annotations = json!({"custom-http-errors": "404,503", "default-backend": "other"});
    let served = Site::new(&[broken.address], &[other.address])
        .ingress(
            "i",
            annotations,
            rules("a.com", &[path("/", "Prefix", "web")]),
        )
        .serve();
    let answer = served.ask("a.com", "/x?q=1", &["--header", "Accept: text/html"]);
    assert_eq!(answer.status, 200);
    let said = answer.said();
    assert_eq!(said["who"], other.address.to_string());
    for (name, value) in [
        ("x-code", "404"),
        ("x-format", "text/html"),
        ("x-original-uri", "/x?q=1"),
        ("x-namespace", "shop"),
        ("x-ingress-name", "i"),
        ("x-service-name", "web"),
        ("x-service-port", "80"),
    ] {
        assert_eq!(said["headers"][name], value, "{name}");
    }
    let served = Site::new(&[], &[other.address])
        .ingress(
            "i",
            json!({"default-backend": "other"}),
            json!([all_of("a.com")]),
        )
        .ingress(
            "j",
            json!({"custom-http-errors": "500"}),
            json!([all_of("b.com")]),
        )
        .serve();
    assert_eq!(served.reasons, ["DefaultBackendMissing"]);
    let answer = served.ask("a.com", "/x", &[]);
    assert_eq!(
        (answer.status, answer.said()["headers"]["x-code"].as_str()),
        (200, Some("503"))
    );
    assert_eq!(served.status("b.com", "/", &[]), 503);
}

#[test]
fn requests_are_copied() {
    let backend = Backend::start(1);
    let copies = Fixed::start(b"HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\n");
    let target = copies.url("/copy$request_uri");
    let served = Site::new(&[backend.address], &[])
        .ingress(
            "a",
            json!({"mirror-target": target, "mirror-host": "m.com", "rewrite-target": "/inner"}),
            json!([all_of("a.com")]),
        )
        .ingress(
            "b",
            json!({"mirror-target": target, "mirror-request-body": "off"}),
            json!([all_of("b.com")]),
        )
        .ingress(
            "c",
            json!({"mirror-target": "http://127.0.0.9:1/"}),
            json!([all_of("c.com")]),
        )
        .serve();
    let answer = served.ask("a.com", "/x?q=1", &["--data", "hello"]);
    assert_eq!(
        (answer.status, answer.said()["body"].as_str()),
        (200, Some("hello"))
    );
    let copy = copies.next();
    assert!(copy.starts_with("POST /copy/x?q=1 HTTP/1.1\r\n"), "{copy}");
    assert!(
        copy.contains("\r\nhost: m.com\r\n") && copy.ends_with("\r\n\r\nhello"),
        "{copy}"
    );
    assert_eq!(served.status("b.com", "/", &["--data", "hello"]), 200);
    let copy = copies.next();
    assert!(
        copy.ends_with("\r\n\r\n") && !copy.contains("content-length"),
        "{copy}"
    );
    assert_eq!(served.status("c.com", "/", &[]), 200, "nobody takes copies");
}

#[test]
fn answers_are_made_smaller() {
    let backend = Backend::start(1);
    let plain = |config| {
        let mut site = Site::new(&[backend.address], &[])
            .config("config", config)
            .ingress("i", json!({}), json!([all_of("a.com")]));
        site.options.config = Some(ObjectName::new("shop", "config"));
        site.serve()
    };
    let types = "application/json";
    let gzip = plain(json!({"use-gzip": "true", "gzip-types": types, "gzip-level": "5"}));
    let both = plain(json!({"enable-brotli": "true", "brotli-types": types}));
    let long = format!("X-Long: {}", "long ".repeat(200));
    let ask = |served: &Served, coding: &str| {
        let header = format!("Accept-Encoding: {coding}");
        served.ask("a.com", "/", &["--header", &long, "--header", &header])
    };
    let answer = ask(&gzip, "gzip, br");
    assert_eq!(
        (answer.header("content-encoding"), answer.header("vary")),
        (Some("gzip"), Some("Accept-Encoding"))
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains("long long") && answer.body.len() < text.len() / 2);
    let answer = ask(&both, "gzip, br");
    assert_eq!(answer.header("content-encoding"), Some("br"));
    let mut text = Vec::new();
    brotli::Decompressor::new(&answer.body[..], 4096)
        .read_to_end(&mut text)
        .unwrap();
    assert!(String::from_utf8(text).unwrap().contains("long long"));
    assert_eq!(ask(&gzip, "identity").header("content-encoding"), None);
    assert_eq!(
        ask(&gzip, "identity").said()["who"],
        backend.address.to_string()
    );
}
