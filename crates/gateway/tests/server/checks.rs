//! Endpoints that are checked before anybody asks them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::{all_of, annotated, curl, serve};

/// Answers everything in its own name, but checks only as long as it is well.
struct Moody {
    address: SocketAddr,
    is_well: Arc<AtomicBool>,
    checked: Arc<AtomicUsize>,
}

impl Moody {
    fn start(number: u8) -> Moody {
        let listener = TcpListener::bind((format!("127.0.0.{number}"), 0)).unwrap();
        let moody = Moody {
            address: listener.local_addr().unwrap(),
            is_well: Arc::new(AtomicBool::new(true)),
            checked: Arc::default(),
        };
        let (is_well, checked) = (Arc::clone(&moody.is_well), Arc::clone(&moody.checked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(&stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                let is_check = head.starts_with("GET /healthz ");
                checked.fetch_add(is_check.into(), Ordering::Relaxed);
                if is_check {
                    assert!(head.contains("host: check.a.com\r\n"), "{head}");
                }
                let status = match is_check && !is_well.load(Ordering::Relaxed) {
                    true => "500 Not Well",
                    false => "200 OK",
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: 1\r\nconnection: close\r\n\r\n{number}"
                );
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        moody
    }
}

#[test]
fn who_does_not_pass_gets_no_requests_until_it_does() {
    let moody: Vec<Moody> = (1..=2).map(Moody::start).collect();
    let addresses: Vec<SocketAddr> = moody.iter().map(|moody| moody.address).collect();
    let annotations = [
        ("portolan.dev/health-check-path", "/healthz"),
        ("portolan.dev/health-check-host", "check.a.com"),
        ("portolan.dev/health-check-interval", "100ms"),
        ("portolan.dev/health-check-fall", "2"),
    ];
    let server = serve(2);
    server.swap(annotated(
        &annotations,
        json!([all_of("a.com")]),
        &addresses,
    ));
    let url = format!("http://{}/", server.http()[0]);
    let reached = || -> BTreeSet<String> {
        let ask = |_| curl(&["--header", "Host: a.com", &url]);
        (0..8).map(ask).collect()
    };
    let until = |wanted: &[&str]| {
        let wanted: BTreeSet<String> = wanted.iter().map(|who| (*who).to_owned()).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = reached();
            if found == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?} and not {wanted:?}");
        }
    };
    let well = |index: usize, is_well| moody[index].is_well.store(is_well, Ordering::Relaxed);
    let sick = |wanted: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.observer().sick() != wanted {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    };
    until(&["1", "2"]);
    well(0, false);
    // Before that, few requests may meet only one of both by chance.
    sick(1);
    until(&["2"]);
    // When nobody is well, everybody is asked: checks may be wrong.
    well(1, false);
    sick(2);
    assert!(!reached().is_empty());
    well(0, true);
    until(&["1"]);
    well(1, true);
    until(&["1", "2"]);
    assert!(
        moody
            .iter()
            .all(|moody| moody.checked.load(Ordering::Relaxed) > 3)
    );
}
