//! HTTP/2 of clients, frame by frame: `tests/cases/http2.tsv`, and the limits against floods.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::json;

use crate::backend::Backend;
use crate::{all_of, live, serve};

const TYPES: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A frame as it came.
#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A client, and whether nothing came for too long.
struct Connection(TcpStream, bool);

impl Connection {
    fn to(address: SocketAddr) -> Connection {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        let mut connection = Connection(stream, false);
        connection.send(&frame(SETTINGS, 0, 0, &[]));
        connection
    }

    /// Whoever ends the connection meanwhile is seen when it is read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// The next frame; `None` at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                self.1 = true;
                return None;
            }
            Err(_) => return None,
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        })
    }

    /// The first frame for which `wanted` holds; `None` when the connection ends before.
    fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        while let Some(frame) = self.next() {
            if wanted(&frame) {
                return Some(frame);
            }
        }
        None
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![high, middle, low, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The bytes that a word of a case stands for.
fn read(word: &str) -> Vec<u8> {
    let [kind, flags, stream, payload] = word.splitn(4, '/').collect::<Vec<_>>()[..] else {
        panic!("four parts: {word}");
    };
    let known = TYPES.iter().position(|name| *name == kind);
    let kind = known.map_or_else(
        || kind.parse().unwrap(),
        |index| u8::try_from(index).unwrap(),
    );
    let flags = u8::from_str_radix(flags, 16).unwrap();
    let payload: Vec<u8> = payload.split(',').flat_map(part).collect();
    frame(kind, flags, stream.parse().unwrap(), &payload)
}

fn part(text: &str) -> Vec<u8> {
    if let Some(count) = text.strip_prefix("z*") {
        return vec![0; count.parse().unwrap()];
    }
    match text
        .strip_prefix("h(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(list) => block(&list.replace("\\n", "\n")),
        None => {
            let digit = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digit).collect()
        }
    }
}

/// A header block of literals (RFC 7541 section 6.2.2).
fn block(list: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for pair in list.split(';') {
        let at = pair[1..].find('=').unwrap() + 1;
        let (name, value) = (&pair[..at], &pair[at + 1..]);
        bytes.push(0);
        for text in [name, value] {
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// Whether what comes is what must come.
fn comes(connection: &mut Connection, expected: &str) -> bool {
    let ends = |frame: &Frame| frame.kind == GOAWAY && frame.payload[4..8] != [0; 4];
    match expected {
        "goaway" => {
            let found = connection.find(|frame| ends(frame) || frame.kind == HEADERS);
            found.is_none_or(|frame| frame.kind == GOAWAY)
        }
        "reset" => {
            let found = connection.find(|frame| ends(frame) || frame.kind == RST_STREAM);
            found.is_none_or(|frame| frame.kind != HEADERS)
        }
        "pong" => connection
            .find(|f| f.kind == PING && f.flags == 1)
            .is_some(),
        "ack" => connection
            .find(|f| f.kind == SETTINGS && f.flags == 1)
            .is_some(),
        "one" => connection
            .find(|frame| frame.kind == DATA && !frame.payload.is_empty())
            .is_some_and(|frame| frame.payload.len() == 1),
        status => {
            // The first field of an answer is its status, as an index or with its text.
            let index: &[u8] = match status {
                "200" => &[0x88],
                "400" => &[0x8c],
                _ => panic!("{status} has no index"),
            };
            let found = connection.find(|frame| frame.kind == HEADERS && frame.stream == 1);
            found.is_some_and(|frame| frame.payload.starts_with(index))
        }
    }
}

#[test]
fn every_frame_is_answered_as_it_must_be() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let lines = include_str!("../cases/http2.tsv").lines();
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let [expected, about, words] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
            panic!("three columns: {line}");
        };
        count += 1;
        let mut connection = Connection::to(server.http()[0]);
        let bytes: Vec<u8> = words.split(' ').flat_map(read).collect();
        connection.send(&bytes);
        let comes = comes(&mut connection, expected);
        if !comes || connection.1 {
            wrong.push(format!("{about}: no {expected}"));
        }
    }
    assert!(
        wrong.is_empty() && count >= 84,
        "{count} cases\n{}",
        wrong.join("\n")
    );
}

fn request() -> Vec<u8> {
    block(":method=GET;:scheme=http;:path=/wait;:authority=a.com")
}

/// Requests that are taken back as fast as they are made end the connection (CVE-2023-44487).
#[test]
fn a_flood_of_resets_ends_the_connection() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let mut connection = Connection::to(server.http()[0]);
    let both = |stream| {
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        [frame(HEADERS, 5, stream, &request()), reset].concat()
    };
    let bytes: Vec<u8> = (0..1000).flat_map(|index| both(2 * index + 1)).collect();
    connection.send(&bytes);
    let end = connection.find(|frame| frame.kind == GOAWAY);
    let code = end.map(|frame| frame.payload[4..8].to_vec());
    assert_eq!(
        code,
        Some(11_u32.to_be_bytes().to_vec()),
        "ENHANCE_YOUR_CALM"
    );
}

/// One stream more than is allowed is refused, and the others go on.
#[test]
fn one_stream_too_many_is_refused() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let mut connection = Connection::to(server.http()[0]);
    // The client knows the limit from here on.
    connection.send(&frame(SETTINGS, 1, 0, &[]));
    let bytes: Vec<u8> = (0..=128)
        .flat_map(|index| frame(HEADERS, 5, 2 * index + 1, &request()))
        .collect();
    connection.send(&bytes);
    let refused = connection.find(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!(
        (refused.stream, refused.payload),
        (257, 7_u32.to_be_bytes().to_vec())
    );
}

/// A head that is too long is refused, whether in one frame or in many.
#[test]
fn a_head_that_is_too_long_is_refused() {
    let backend = Backend::start(1);
    let server = serve(1);
    server.swap(live(json!([all_of("")]), &[backend.address]));
    let mut connection = Connection::to(server.http()[0]);
    let many = format!("x={}", "y".repeat(120));
    let block = [request(), block(&many).repeat(400)].concat();
    let mut parts = block.chunks(16_384);
    connection.send(&frame(HEADERS, 1, 1, parts.next().unwrap()));
    let rest: Vec<&[u8]> = parts.collect();
    for (index, part) in rest.iter().enumerate() {
        let flags = if index + 1 == rest.len() { 4 } else { 0 };
        connection.send(&frame(9, flags, 1, part));
    }
    let answer = connection.find(|frame| [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind));
    // 431 has no index: its text is there, as it is compressed.
    let is_431 = |frame: &Frame| frame.payload.starts_with(&[0x48, 0x83, 0x69, 0x90, 0xff]);
    assert!(
        answer
            .as_ref()
            .is_none_or(|frame| frame.kind != HEADERS || is_431(frame)),
        "{answer:?}"
    );
    assert_eq!(backend.requests(), 0);
}
