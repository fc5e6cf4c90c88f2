//! Reads along with what clients send by HTTP/1, and refuses whatever two readers could take for different things (request
//! smuggling): it is stricter than the parser behind it. Pure, and it changes nothing of what it lets through.
//!
//! ```text
//!   bytes ─▶ request line ─▶ headers ─▶ (length: so many bytes │ chunks ─▶ trailers) ─▶ request line …
//!                                    └▶ an upgrade is asked for: nothing behind it is HTTP
//! ```
//!
//! RFC 9112 leaves much to the mercy of receivers (a line feed alone, folded lines, a length beside chunks). Here every
//! line ends with CR LF, and a request is framed in exactly one way.

mod frames;

pub(crate) use frames::Frames;

/// Longest line that is put together from several reads. A head of 32 KiB is refused by the parser before.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Longest line with the size of a chunk; extensions are hardly ever used, and mean nothing to us.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Digits of the size of a chunk: more could not be counted in 64 bits.
const CHUNK_DIGITS_MAX: usize = 15;

/// Digits of a length, for the same reason.
const LENGTH_DIGITS_MAX: usize = 18;

/// Bytes of all trailers of a request, with the ends of their lines.
pub(crate) const TRAILER_BYTES_MAX: usize = 8 * 1024;

/// Headers that no trailer may be: they frame or route the request (RFC 9110 section 6.5.1).
const NO_TRAILERS: [&[u8]; 8] = [
    b"content-length",
    b"transfer-encoding",
    b"host",
    b"connection",
    b"upgrade",
    b"te",
    b"trailer",
    b"authorization",
];

/// Where something that is refused begins, and why it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// So many of the bytes may go on.
    pub(crate) at: usize,
    /// Why the next one may not.
    pub(crate) why: &'static str,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A request line; whether an empty line has come already instead.
    Request {
        blank: bool,
    },
    Header,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    /// The end of a chunk's data.
    ChunkEnd,
    /// So many bytes of trailers have come.
    Trailer(usize),
    Opaque,
}

/// What a head says about framing.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    is_http10: bool,
    length: Option<u64>,
    is_chunked: bool,
    hosts: usize,
    asks_upgrade: bool,
    upgrade: Option<Upgrade>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    /// To HTTP/2 without TLS, which is never done (and would hide requests).
    H2c,
    Other,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Guard {
    state: State,
    head: Head,
    /// The beginning of a line that is not at its end yet.
    line: Vec<u8>,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            state: State::Request { blank: false },
            head: Head::default(),
            line: Vec::new(),
        }
    }
}

impl Guard {
    /// Looks at the next bytes. After something was refused, nothing more may be asked.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.state {
                State::Opaque => return Ok(()),
                State::Body(left) => {
                    let passed = skip(rest, left);
                    self.state = match left - passed as u64 {
                        0 => State::Request { blank: false },
                        left => State::Body(left),
                    };
                    passed
                }
                State::Chunk(left) => {
                    let passed = skip(rest, left);
                    self.state = match left - passed as u64 {
                        0 => State::ChunkEnd,
                        left => State::Chunk(left),
                    };
                    passed
                }
                _ => self.line(rest).map_err(|refused| Refused {
                    at: at + refused.at,
                    ..refused
                })?,
            };
        }
        Ok(())
    }

    /// One line, or its beginning: how many bytes it is.
    fn line(&mut self, rest: &[u8]) -> Result<usize, Refused> {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            if self.line.len() + rest.len() > LINE_BYTES_MAX {
                return Err(Refused {
                    at: 0,
                    why: "a line is too long",
                });
            }
            self.line.extend_from_slice(rest);
            return Ok(rest.len());
        };
        let result = match self.line.is_empty() {
            true => self.whole_line(&rest[..end]),
            false => {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[..end]);
                self.whole_line(&line)
            }
        };
        result.map_err(|why| Refused { at: end, why })?;
        Ok(end + 1)
    }

    /// A line, whose line feed comes next.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err("a line ends with a line feed alone");
        };
        if line.contains(&b'\r') {
            return Err("a carriage return is in a line");
        }
        self.state = match self.state {
            State::Request { blank: false } if line.is_empty() => State::Request { blank: true },
            State::Request { .. } => {
                self.head = Head::default();
                self.head.is_http10 = request_line(line)?;
                State::Header
            }
            State::Header if line.is_empty() => self.head.end()?,
            State::Header => {
                self.head.header(line)?;
                State::Header
            }
            State::ChunkSize => match chunk_size(line)? {
                0 => State::Trailer(0),
                size => State::Chunk(size),
            },
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::ChunkEnd => return Err("a chunk is longer than it says"),
            State::Trailer(_) if line.is_empty() => State::Request { blank: false },
            State::Trailer(bytes) => {
                let bytes = bytes + line.len() + 2;
                if bytes > TRAILER_BYTES_MAX {
                    return Err("trailers are too long");
                }
                let (name, _) = field(line)?;
                if !may_be_trailer(name) {
                    return Err("a trailer would frame or route the request");
                }
                State::Trailer(bytes)
            }
            State::Body(_) | State::Chunk(_) | State::Opaque => self.state,
        };
        Ok(())
    }
}

/// Whether a header of this name may come behind a body.
pub(crate) fn may_be_trailer(name: &[u8]) -> bool {
    !NO_TRAILERS.iter().any(|no| name.eq_ignore_ascii_case(no))
}

fn skip(rest: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()))
}

/// Whether it is of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next())
    else {
        return Err("a request line is not three words");
    };
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err("a method is no token");
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err("a target has bytes that none may have");
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err("the version is neither HTTP/1.0 nor HTTP/1.1"),
    }
}

/// Name and value of a header or trailer.
pub(crate) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a header goes on in a second line");
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or("a header has no colon")?);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err("the name of a header is no token");
    }
    let value = trimmed(&value[1..]);
    let is_fine = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    match value.iter().all(is_fine) {
        true => Ok((name, value)),
        false => Err("the value of a header has bytes that none may have"),
    }
}

/// Without the blanks and tabs around it, and nothing else: other white space is no part of HTTP.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Head {
    fn header(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let (name, value) = field(line)?;
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
        let frames = is("content-length") || is("transfer-encoding");
        if frames && line.contains(&b'\t') {
            return Err("a tab stands where a request is framed");
        }
        if is("content-length") {
            let length = digits(value).ok_or("a length is no number")?;
            if self.length.replace(length).is_some() {
                return Err("there are two lengths");
            }
        } else if is("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err("a transfer coding is not chunked");
            }
            if std::mem::replace(&mut self.is_chunked, true) {
                return Err("there are two transfer codings");
            }
        } else if is("host") {
            self.hosts += 1;
        } else if is("connection") {
            self.asks_upgrade |= words(value).any(|word| word.eq_ignore_ascii_case(b"upgrade"));
        } else if is("upgrade") {
            let is_h2c = words(value).any(|word| word.eq_ignore_ascii_case(b"h2c"));
            self.upgrade = Some(match is_h2c || self.upgrade == Some(Upgrade::H2c) {
                true => Upgrade::H2c,
                false => Upgrade::Other,
            });
        }
        Ok(())
    }

    /// What comes behind the head.
    fn end(&self) -> Result<State, &'static str> {
        if self.hosts > 1 {
            return Err("there are two hosts");
        }
        match (self.is_chunked, self.length) {
            (true, Some(_)) => Err("there are a length and chunks"),
            (true, None) if self.is_http10 => Err("HTTP/1.0 has no chunks"),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length @ 1..)) => Ok(State::Body(length)),
            _ if self.asks_upgrade && !self.is_http10 && self.upgrade == Some(Upgrade::Other) => {
                Ok(State::Opaque)
            }
            _ => Ok(State::Request { blank: false }),
        }
    }
}

/// The words between commas.
pub(crate) fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trimmed)
}

/// A number of decimal digits alone.
pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    let plain = !value.is_empty()
        && value.len() <= LENGTH_DIGITS_MAX
        && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| plain)?;
    text.parse().ok()
}

/// What the line before a chunk says.
pub(crate) fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    if line.len() > CHUNK_LINE_BYTES_MAX {
        return Err("the line of a chunk's size is too long");
    }
    let (size, extension) = match line.iter().position(|byte| *byte == b';') {
        Some(semicolon) => line.split_at(semicolon),
        None => (line, &b""[..]),
    };
    if size.is_empty() || size.len() > CHUNK_DIGITS_MAX || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err("the size of a chunk is no number, or too large");
    }
    if !extension
        .iter()
        .all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
    {
        return Err("the extension of a chunk has bytes that none may have");
    }
    let text = std::str::from_utf8(size).map_err(|_| "the size of a chunk is no number")?;
    u64::from_str_radix(text, 16).map_err(|_| "the size of a chunk is no number")
}

#[cfg(test)]
mod tests;
