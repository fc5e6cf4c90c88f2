//! Single requests over sockets of our own: whether a route is served, and connections that stay open after one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// No answer takes longer, unless something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const PORT: u16 = 80;

/// Opens so many connections, makes one request over each, and keeps them.
pub fn connect(server: Ipv4Addr, host: &str, count: usize) -> Result<Vec<TcpStream>, String> {
    let one = || -> std::io::Result<TcpStream> {
        let mut stream = open(server)?;
        match ask(&mut stream, host, "/p0/small")?.starts_with("HTTP/1.1 200 ") {
            true => Ok(stream),
            false => Err(std::io::Error::other("it does not answer with 200")),
        }
    };
    (0..count)
        .map(|number| one().map_err(|e| format!("idle connection {number}: {e}")))
        .collect()
}

/// Whether a route is served, over a new connection: a server that reloads serves old ones as it did.
pub fn is_served(server: Ipv4Addr, host: &str, path: &str) -> bool {
    let asked = open(server).and_then(|mut stream| ask(&mut stream, host, path));
    asked.is_ok_and(|head| head.starts_with("HTTP/1.1 200 "))
}

/// Asks again and again, without a pause, so that no time is lost.
pub fn until_served(server: Ipv4Addr, host: &str, path: &str, patience: Duration) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        if is_served(server, host, path) {
            return true;
        }
    }
    false
}

fn open(server: Ipv4Addr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((server, PORT)), ANSWER_LIMIT)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(stream)
}

/// Sends a request and reads what comes first, which holds the head.
fn ask(stream: &mut TcpStream, host: &str, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    // At once: the second of several pieces would wait for the other side's word about the first (40 ms).
    stream.write_all(request.as_bytes())?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
