//! Heads of HTTP/1.1 on the way to an endpoint and back. Pure.

use std::mem::MaybeUninit;

use bytes::BytesMut;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};

use crate::guard::{digits, words};
use crate::server::limits::{HEAD_BYTES_MAX, HEADERS_MAX};

/// How the body behind a head is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunks,
    /// Until the connection ends.
    Close,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) answer: Response<()>,
    pub(super) framing: Framing,
    /// Whether the connection is good for another request when this one is done.
    pub(super) keeps: bool,
}

/// Writes the head of a request. `framing` is that of its body; `None` is no body.
pub(super) fn write(out: &mut Vec<u8>, head: &Parts, framing: Option<Framing>) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head.uri.path_and_query();
    out.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        // The body says by itself how long it is.
        let frames = *name == TRANSFER_ENCODING || (framing.is_some() && *name == CONTENT_LENGTH);
        if frames {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    match framing {
        Some(Framing::Length(length)) => {
            out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        Some(_) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes the head of an answer to a request of this method off these bytes; `None` where it is not whole yet. Answers
/// that only tell of progress (RFC 9110 section 15.2) are passed over.
pub(super) fn read(bytes: &mut BytesMut, method: &Method) -> Result<Option<Head>, &'static str> {
    loop {
        let Some(head) = read_one(bytes, method)? else {
            return Ok(None);
        };
        let status = head.answer.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Some(head));
        }
    }
}

fn read_one(bytes: &mut BytesMut, method: &Method) -> Result<Option<Head>, &'static str> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let result = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut lines);
    let length = match result {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(_) => return Err("its head is too long"),
        Err(httparse::Error::TooManyHeaders) => return Err("its head has too many headers"),
        Err(_) => return Err("it does not speak HTTP/1"),
    };
    let is_http10 = parsed.version == Some(0);
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default());
    let status = status.map_err(|_| "its status is none")?;
    let begin = bytes.as_ptr() as usize;
    let place = |part: &[u8]| match part.is_empty() {
        true => [0, 0],
        false => {
            let at = part.as_ptr() as usize - begin;
            [at as u16, (at + part.len()) as u16]
        }
    };
    // The head is cut off without a copy, and its lines with it: until then only their places are known.
    let mut places = [[[0, 0]; 2]; HEADERS_MAX];
    let count = parsed.headers.len();
    for (to, line) in places.iter_mut().zip(parsed.headers.iter()) {
        *to = [place(line.name.as_bytes()), place(line.value)];
    }
    let text = bytes.split_to(length).freeze();
    let mut headers = HeaderMap::with_capacity(count);
    for [[name, name_end], value] in &places[..count] {
        let name = HeaderName::from_bytes(&text[usize::from(*name)..usize::from(*name_end)]);
        let name = name.map_err(|_| "the name of a header is none")?;
        let [from, to] = value.map(usize::from);
        let value = HeaderValue::from_maybe_shared(text.slice(from..to));
        headers.append(name, value.map_err(|_| "the value of a header is none")?);
    }
    let framing = framing(&headers, status, method, is_http10)?;
    let keeps = keeps(&headers, is_http10) && framing != Framing::Close;
    let mut answer = Response::new(());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    *answer.version_mut() = if is_http10 {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    Ok(Some(Head {
        answer,
        framing,
        keeps,
    }))
}

/// RFC 9112 section 6.3, but that nothing which can be read in two ways is read at all: there is one length or one coding.
fn framing(
    headers: &HeaderMap,
    status: StatusCode,
    method: &Method,
    is_http10: bool,
) -> Result<Framing, &'static str> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some() || codings.next().is_some() {
        return Err("it says twice how long its answer is");
    }
    let length = match length.map(|length| digits(length.as_bytes())) {
        Some(None) => return Err("its length is no number"),
        Some(length) => length,
        None => None,
    };
    let has_none = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD;
    match (coding, length) {
        (Some(_), Some(_)) => Err("it gives a length and a coding"),
        _ if has_none => Ok(Framing::Length(0)),
        (Some(_), None) if is_http10 => Err("HTTP/1.0 has no chunks"),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Framing::Chunks)
        }
        (Some(_), None) => Err("its transfer coding is not chunked"),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (None, None) => Ok(Framing::Close),
    }
}

/// RFC 9112 section 9.3.
fn keeps(headers: &HeaderMap, is_http10: bool) -> bool {
    let mut said = headers.get_all(CONNECTION).iter().peekable();
    if said.peek().is_none() {
        return !is_http10;
    }
    let mut all = said.flat_map(|value| words(value.as_bytes()));
    match is_http10 {
        true => all.any(|word| word.eq_ignore_ascii_case(b"keep-alive")),
        false => !all.any(|word| word.eq_ignore_ascii_case(b"close")),
    }
}

/// A place in a head is told in 16 bits.
const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, method: &Method) -> Result<Option<Head>, &'static str> {
        read(&mut BytesMut::from(text), method)
    }

    fn get(text: &str) -> Head {
        answer(text, &Method::GET).unwrap().unwrap()
    }

    #[test]
    fn bodies_are_framed_in_one_way() {
        for (text, framing, keeps) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n",
                Framing::Chunks,
                true,
            ),
            ("HTTP/1.1 200 OK\r\nx:\r\n\r\n", Framing::Close, false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Length(0), true),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(0),
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                Framing::Length(5),
                true,
            ),
        ] {
            let head = get(text);
            assert_eq!((head.framing, head.keeps), (framing, keeps), "{text}");
        }
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let head = answer(length, &Method::HEAD).unwrap().unwrap();
        assert_eq!(head.framing, Framing::Length(0));
        assert_eq!(head.answer.headers()[CONTENT_LENGTH], "5");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "x: y\r\n folded\r\n",
            "x y: z\r\n",
            "x : y\r\n",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            assert!(answer(&text, &Method::GET).is_err(), "{text:?}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(answer(old, &Method::GET).is_err());
        assert!(answer("SSH-2.0-OpenSSH_9.2\r\n", &Method::GET).is_err());
    }

    #[test]
    fn heads_have_limits() {
        let lines = |count: usize| format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert_eq!(get(&lines(HEADERS_MAX)).answer.headers().len(), HEADERS_MAX);
        assert!(answer(&lines(HEADERS_MAX + 1), &Method::GET).is_err());
        let long =
            |bytes: usize| format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(bytes - 24));
        assert_eq!(get(&long(HEAD_BYTES_MAX)).answer.headers().len(), 1);
        assert!(answer(&long(HEAD_BYTES_MAX + 1), &Method::GET).is_err());
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert!(answer(&endless, &Method::GET).is_err());
        assert!(
            answer(&endless[..HEAD_BYTES_MAX - 1], &Method::GET)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_request_is_framed_by_its_body_alone() {
        let request = http::Request::builder()
            .method("POST")
            .uri("/a?b")
            .header("host", "a.com")
            .header("content-length", "7")
            .header("transfer-encoding", "gzip");
        let (head, ()) = request.body(()).unwrap().into_parts();
        for (framing, lines) in [
            (Some(Framing::Length(5)), "content-length: 5\r\n"),
            (Some(Framing::Chunks), "transfer-encoding: chunked\r\n"),
        ] {
            let mut out = Vec::new();
            write(&mut out, &head, framing);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(
                text,
                format!("POST /a?b HTTP/1.1\r\nhost: a.com\r\n{lines}\r\n")
            );
        }
    }
}
