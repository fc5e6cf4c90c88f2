//! What operators see: lines, counts, and who is connected.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portolan_gateway::server::{AccessLog, Format, Settings};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::malformed::status;
use crate::{all_of, curl, live, serve_with};

/// Keeps what is written.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Kept {
    /// The lines, once there are so many.
    fn lines(&self, count: usize) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            if text.ends_with('\n') && text.lines().count() >= count {
                return text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::yield_now();
        }
    }
}

#[test]
fn every_request_has_a_line_and_a_count() {
    let backend = Backend::start(1);
    let kept = Kept::default();
    let settings = Settings {
        access_log: Some(AccessLog::start(Format::json(), kept.clone()).unwrap()),
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let server = serve_with(1, settings);
    server.swap(live(json!([all_of("a.com")]), &[backend.address]));
    let address = server.http()[0];
    curl(&[
        "--header",
        "Host: a.com",
        "--header",
        "X-Forwarded-For: 203.0.113.2",
        "--user-agent",
        "test \"1\"",
        "--data",
        "ab",
        &format!("http://{address}/x?y=z"),
    ]);
    let none = b"GET / HTTP/1.1\r\nhost: b.com\r\nconnection: close\r\n\r\n";
    assert_eq!(status(address, none), "404");
    let lines = kept.lines(2);
    let first = &lines[0];
    for (name, expected) in [
        ("method", json!("POST")),
        ("target", json!("/x?y=z")),
        ("host", json!("a.com")),
        ("protocol", json!("HTTP/1.1")),
        ("status", json!(200)),
        ("whole", json!(true)),
        ("client", json!("203.0.113.2")),
        ("endpoint", json!(backend.address.to_string())),
        ("route", json!("Ingress shop/i spec.rules[0].http.paths[0]")),
        ("user_agent", json!("test \"1\"")),
    ] {
        assert_eq!(first[name], expected, "{name}");
    }
    assert!(first["bytes"].as_u64().unwrap() > 0 && first["took_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (&lines[1]["status"], &lines[1]["route"]),
        (&json!(404), &Value::Null)
    );
    let observer = server.observer();
    let tally = observer.tally();
    let hits: Vec<(String, u64)> = tally
        .routes
        .iter()
        .map(|(origin, hits)| (origin.field.clone(), hits.total()))
        .collect();
    assert_eq!(hits, [("spec.rules[0].http.paths[0]".to_owned(), 1)]);
    assert_eq!(tally.others.statuses, [(404, 1)]);
    assert_eq!(tally.connections, 2);
    assert_eq!(observer.lost_lines(), 0);
}

/// An answer that its client does not wait for is written down as that.
#[test]
fn answers_that_are_given_up_are_told() {
    let backend = Backend::start(1);
    let kept = Kept::default();
    let settings = Settings {
        access_log: Some(AccessLog::start(Format::json(), kept.clone()).unwrap()),
        ..Settings::default()
    };
    let server = serve_with(1, settings);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let mut stream = std::net::TcpStream::connect(server.http()[0]).unwrap();
    let head =
        b"POST /stream HTTP/1.1\r\nhost: a.com\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n";
    stream.write_all(head).unwrap();
    let mut some = [0; 12];
    std::io::Read::read_exact(&mut stream, &mut some).unwrap();
    assert_eq!(&some, b"HTTP/1.1 200");
    drop(stream);
    let lines = kept.lines(1);
    assert_eq!(
        (&lines[0]["status"], &lines[0]["whole"]),
        (&json!(200), &json!(false))
    );
}
