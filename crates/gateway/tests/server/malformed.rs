//! Requests that are not plainly one thing are refused, whatever the case of `tests/cases/requests.tsv` is, and no less
//! than by nginx and haproxy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::{all_of, live, serve};

/// One case: the status that is expected, what it is, and the bytes.
pub struct Case {
    status: &'static str,
    about: &'static str,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let lines = include_str!("../cases/requests.tsv").lines();
    let read = |line: &'static str| {
        let [status, about, text] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}");
        };
        let bytes = unescaped(text);
        Case {
            status,
            about,
            bytes,
        }
    };
    lines
        .filter(|line| !line.starts_with('#'))
        .map(read)
        .collect()
}

/// The bytes that a column stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '\\' => {
                let (byte, taken) = match &rest[1..2] {
                    "r" => (b'\r', 2),
                    "n" => (b'\n', 2),
                    "t" => (b'\t', 2),
                    "0" => (0, 2),
                    "x" => (u8::from_str_radix(&rest[2..4], 16).unwrap(), 4),
                    other => (other.as_bytes()[0], 2),
                };
                bytes.push(byte);
                taken
            }
            '{' => {
                let end = rest.find('}').unwrap();
                let (part, times) = rest[1..end].split_once('*').unwrap();
                bytes.extend(unescaped(part).repeat(times.parse().unwrap()));
                end + 1
            }
            _ => {
                bytes.push(rest.as_bytes()[0]);
                1
            }
        };
        rest = &rest[taken..];
    }
    bytes
}

/// Sends bytes as they are.
pub fn sent(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).unwrap();
    // A server that refuses early may close before all is written.
    let _ = stream.write_all(bytes);
    stream
}

/// The status of the first answer.
pub fn status(address: SocketAddr, bytes: &[u8]) -> String {
    let mut line = String::new();
    let _ = BufReader::new(sent(address, bytes)).read_line(&mut line);
    line.split(' ').nth(1).unwrap_or("closed").to_owned()
}

#[test]
fn every_case_is_answered_as_it_says() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(serde_json::json!([all_of("")]), &[backend.address]));
    let cases = cases();
    let refused = cases.iter().filter(|case| case.status != "200").count();
    assert!(refused >= 90, "{refused} cases are refused");
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let found = status(server.http()[0], &case.bytes);
            let text = String::from_utf8_lossy(&case.bytes);
            let shown: String = text.chars().take(120).collect();
            let about = format!("{}: {found} and not {}: {shown:?}", case.about, case.status);
            (found != case.status).then_some(about)
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cut into bytes, every case is the same.
#[test]
fn single_bytes_are_no_way_round() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(serde_json::json!([all_of("")]), &[backend.address]));
    for case in cases()
        .iter()
        .filter(|case| case.bytes.len() < 200)
        .step_by(5)
    {
        let mut stream = TcpStream::connect(server.http()[0]).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        for byte in &case.bytes {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
        }
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        let found = line.split(' ').nth(1).unwrap_or("closed");
        // Bytes that come after the answer may take it away (RFC 9112 section 9.6).
        assert!(
            found == case.status || found == "closed",
            "{}: {found}",
            case.about
        );
    }
}

/// A request that is refused takes what stands behind it along: nothing of a connection is believed after that.
#[test]
fn nothing_behind_a_refused_request_is_one() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(serde_json::json!([all_of("")]), &[backend.address]));
    let second = b"GET /second HTTP/1.1\r\nHost: a.com\r\n\r\n";
    for case in cases().iter().filter(|case| case.status == "400") {
        let mut answer = String::new();
        let bytes = [&case.bytes[..], second].concat();
        let _ = sent(server.http()[0], &bytes).read_to_string(&mut answer);
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{}: {answer}",
            case.about
        );
        assert!(!answer.contains("second"), "{}: {answer}", case.about);
        assert_eq!(backend.seconds(), 0, "{}", case.about);
    }
    assert_eq!(backend.seconds(), 0);
}

/// An upgrade that is not agreed to ends the connection: nobody has read along behind it.
#[test]
fn nothing_behind_a_refused_upgrade_is_a_request() {
    let server = serve(1);
    server.swap(live(serde_json::json!([]), &[]));
    let bytes = b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nGET / HTTP/1.1\nhost: a.com\n\n";
    let mut answer = String::new();
    sent(server.http()[0], bytes)
        .read_to_string(&mut answer)
        .unwrap();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"),
        "{answer}"
    );
}

/// A program of another that stands in front of the same endpoint; it ends with the test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it and waits until it takes connections; `None`, said aloud, when it is not here.
fn peer(name: &str, arguments: &[&str], address: SocketAddr) -> Option<Peer> {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        println!("SKIPPED: {name} is not here, and nothing is compared with it");
        return None;
    };
    let peer = Peer(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "{name} takes no connections");
        std::thread::yield_now();
    }
    Some(peer)
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// What a peer refuses, we do not let through.
#[test]
fn nothing_is_let_through_that_nginx_or_haproxy_refuse() {
    let backend = Backend::start(1);
    let home = tempfile::tempdir().unwrap();
    let (at, to) = (free(), backend.address);
    let haproxy = format!(
        "defaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n\
         frontend f\n  bind {at}\n  default_backend b\nbackend b\n  server s {to}\n"
    );
    let file = home.path().join("haproxy.cfg");
    std::fs::write(&file, haproxy).unwrap();
    if let Some(_peer) = peer("haproxy", &["-db", "-f", file.to_str().unwrap()], at) {
        compare("haproxy", at);
    }
    let at = free();
    let shown = home.path().display();
    let nginx = format!(
        "daemon off; master_process off; pid {shown}/pid; error_log {shown}/error; events {{}}\n\
         http {{ access_log off; client_body_temp_path {shown}/body; proxy_temp_path {shown}/proxy;\n\
         fastcgi_temp_path {shown}/f; uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;\n\
         server {{ listen {at}; location / {{ proxy_pass http://{to}; proxy_http_version 1.1; }} }} }}\n"
    );
    let file = home.path().join("nginx.conf");
    std::fs::write(&file, nginx).unwrap();
    let arguments = [
        "-p",
        home.path().to_str().unwrap(),
        "-c",
        file.to_str().unwrap(),
    ];
    if let Some(_peer) = peer("nginx", &arguments, at) {
        compare("nginx", at);
    }
}

fn compare(name: &str, at: SocketAddr) {
    let cases = cases();
    let all: Vec<(&Case, String)> = cases
        .iter()
        .map(|case| (case, status(at, &case.bytes)))
        .collect();
    let refuses = |found: &str| !found.starts_with('2');
    let fewer: Vec<&str> = all
        .iter()
        .filter(|(case, found)| refuses(found) && !refuses(case.status))
        .map(|(case, _)| case.about)
        .collect();
    let more = all
        .iter()
        .filter(|(case, found)| refuses(case.status) && !refuses(found));
    println!(
        "{name} lets through what we refuse, in {} of {} cases",
        more.count(),
        all.len()
    );
    assert!(
        fewer.is_empty(),
        "{name} refuses what we let through: {fewer:?}"
    );
}
