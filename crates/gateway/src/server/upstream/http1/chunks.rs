//! A body in chunks, as an endpoint sends it (RFC 9112 section 7.1). Pure; lines end with CR LF here and nowhere else.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::guard::{self, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data(u64),
    /// The end of a chunk's data.
    DataEnd,
    Trailers,
    End,
}

/// What bytes have brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Nothing before more bytes come.
    Nothing,
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// How far a body is.
#[derive(Debug)]
pub(super) struct Chunks(State);

impl Default for Chunks {
    fn default() -> Self {
        Chunks(State::Size)
    }
}

impl Chunks {
    /// Takes the next piece off these bytes.
    pub(super) fn take(&mut self, bytes: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            self.0 = match self.0 {
                State::End => return Ok(Piece::End),
                State::Data(_) if bytes.is_empty() => return Ok(Piece::Nothing),
                State::Data(left) => {
                    let all = bytes.len();
                    let count = usize::try_from(left).map_or(all, |left| left.min(all));
                    self.0 = match left - count as u64 {
                        0 => State::DataEnd,
                        left => State::Data(left),
                    };
                    return Ok(Piece::Data(bytes.split_to(count).freeze()));
                }
                State::Size => match line(bytes, CHUNK_LINE_BYTES_MAX)? {
                    None => return Ok(Piece::Nothing),
                    Some(line) => match guard::chunk_size(&line)? {
                        0 => State::Trailers,
                        size => State::Data(size),
                    },
                },
                State::DataEnd => match line(bytes, 0)? {
                    None => return Ok(Piece::Nothing),
                    Some(_) => State::Size,
                },
                State::Trailers => match trailers(bytes)? {
                    None => return Ok(Piece::Nothing),
                    Some(trailers) => {
                        self.0 = State::End;
                        match trailers.is_empty() {
                            true => return Ok(Piece::End),
                            false => return Ok(Piece::Trailers(trailers)),
                        }
                    }
                },
            };
        }
    }

    /// Whether there is nothing more to come.
    pub(super) fn is_over(&self) -> bool {
        self.0 == State::End
    }
}

/// Takes a line off, if it is whole, without its end.
fn line(bytes: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, &'static str> {
    let Some(end) = bytes.iter().take(max + 2).position(|byte| *byte == b'\n') else {
        return match bytes.len() < max + 2 {
            true => Ok(None),
            false => Err("a line among chunks is too long"),
        };
    };
    let mut line = bytes.split_to(end + 1);
    line.truncate(end);
    match line.last() {
        Some(b'\r') => line.truncate(end - 1),
        _ => return Err("a line among chunks ends with a line feed alone"),
    }
    Ok(Some(line))
}

/// Takes all trailers off, if they are whole. Those that would frame or route are left out.
fn trailers(bytes: &mut BytesMut) -> Result<Option<HeaderMap>, &'static str> {
    let mut all = HeaderMap::new();
    let mut at = 0;
    loop {
        let rest = &bytes[at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return match bytes.len() < TRAILER_BYTES_MAX {
                true => Ok(None),
                false => Err("trailers are too long"),
            };
        };
        let line = rest[..end].strip_suffix(b"\r");
        let line = line.ok_or("a trailer ends with a line feed alone")?;
        at += end + 1;
        if at > TRAILER_BYTES_MAX {
            return Err("trailers are too long");
        }
        if line.is_empty() {
            bytes.advance(at);
            return Ok(Some(all));
        }
        let (name, value) = guard::field(line)?;
        if guard::may_be_trailer(name) {
            let name = HeaderName::from_bytes(name).map_err(|_| "a trailer's name is no token")?;
            let value = HeaderValue::from_bytes(value).map_err(|_| "a trailer has no value")?;
            all.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Data and trailers, when the bytes come in parts of this size; and what is left behind the end.
    fn read(all: &[u8], size: usize) -> Result<(Vec<u8>, HeaderMap, usize), &'static str> {
        let (mut chunks, mut buffer) = (Chunks::default(), BytesMut::new());
        let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
        for part in all.chunks(size) {
            buffer.extend_from_slice(part);
            loop {
                match chunks.take(&mut buffer)? {
                    Piece::Nothing | Piece::End => break,
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::Trailers(all) => trailers = all,
                }
            }
        }
        match chunks.is_over() {
            true => Ok((data, trailers, buffer.len())),
            false => Err("it is not over"),
        }
    }

    #[test]
    fn bodies_are_read_however_they_come() {
        let plain = b"5\r\nhello\r\n6;x=1\r\n world\r\n0\r\n\r\n";
        let told = b"5\r\nhello\r\n6\r\n world\r\n0\r\nGrpc-Status: 0\r\nHost: x\r\n\r\n";
        for size in 1..=told.len() {
            let (data, trailers, left) = read(plain, size).unwrap();
            assert_eq!((&*data, trailers.len(), left), (&b"hello world"[..], 0, 0));
            let (data, trailers, left) = read(told, size).unwrap();
            assert_eq!((&*data, trailers.len(), left), (&b"hello world"[..], 1, 0));
            assert_eq!(trailers["grpc-status"], "0");
        }
        let (_, _, left) = read(b"0\r\n\r\nHTTP/1.1 200 OK", 64).unwrap();
        assert_eq!(left, 15, "what comes behind the end is not a part of it");
    }

    #[test]
    fn what_is_not_plainly_framed_is_refused() {
        let long = format!("1{}\r\nx\r\n0\r\n\r\n", ";x".repeat(CHUNK_LINE_BYTES_MAX));
        let many = "x: y\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1);
        let many = format!("0\r\n{many}\r\n");
        for bad in [
            "5\nhello\n0\n\n",
            "5\r\nhelloo\r\n0\r\n\r\n",
            "-5\r\nhello\r\n0\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "\r\nhello\r\n0\r\n\r\n",
            "1000000000000000\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\nx: y\n\r\n",
            "5\r\nhello\r\n0\r\n x: y\r\n\r\n",
            &long,
            &many,
        ] {
            for size in [1, 7, bad.len()] {
                assert!(read(bad.as_bytes(), size).is_err(), "{bad:?}");
            }
        }
    }
}
