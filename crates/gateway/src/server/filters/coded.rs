//! Bodies of answers made smaller while they pass. What has come is sent on as soon as nothing more is there, so that
//! streams are not held up.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, VARY};
use http::{HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame};

use super::super::body::{Body, BodyError, MadeBody};
use crate::policy::{Coding, Compression};

/// Bytes that are gathered before they are sent, while more of the answer is there.
const PIECE_BYTES: usize = 16 * 1024;

/// Window of brotli, as a power of two: 512 KiB of memory for each answer under way, as nginx' module has it.
const BROTLI_WINDOW: u32 = 19;

/// The answer with its body in this coding.
pub(super) fn code(
    answer: Response<Body>,
    coding: Coding,
    compression: &Compression,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(ACCEPT_RANGES);
    head.headers
        .insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    head.headers
        .append(VARY, HeaderValue::from_static("Accept-Encoding"));
    // The bytes are not those that the backend has named (RFC 9110 section 8.8.3).
    if let Some(tag) = head
        .headers
        .get(ETAG)
        .filter(|tag| !tag.as_bytes().starts_with(b"W/"))
    {
        let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
        match weak {
            Ok(weak) => drop(head.headers.insert(ETAG, weak)),
            Err(_) => drop(head.headers.remove(ETAG)),
        }
    }
    let coded = Coded {
        inner: body,
        encoder: Some(Encoder::new(coding, compression)),
        is_unsent: false,
        last: None,
    };
    Response::from_parts(head, Body::Made(MadeBody::new(coded)))
}

enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(coding: Coding, compression: &Compression) -> Encoder {
        match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(compression.gzip.unwrap_or(1));
                Encoder::Gzip(GzEncoder::new(Vec::new(), level))
            }
            Coding::Brotli => {
                let level = compression.brotli.unwrap_or(4);
                let writer = brotli::CompressorWriter::new(Vec::new(), 4096, level, BROTLI_WINDOW);
                Encoder::Brotli(Box::new(writer))
            }
        }
    }

    fn write(&mut self, data: &[u8]) -> std::io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(data),
            Encoder::Brotli(encoder) => encoder.write_all(data),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.flush(),
        }
    }

    fn written(&mut self) -> &mut Vec<u8> {
        match self {
            Encoder::Gzip(encoder) => encoder.get_mut(),
            Encoder::Brotli(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => encoder.finish(),
            Encoder::Brotli(encoder) => Ok(encoder.into_inner()),
        }
    }
}

struct Coded {
    inner: Body,
    /// Until the body has ended.
    encoder: Option<Encoder>,
    /// Something was written that may not have come out yet.
    is_unsent: bool,
    /// What comes behind the last bytes.
    last: Option<Frame<Bytes>>,
}

impl Coded {
    fn finish(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(encoder) = self.encoder.take() else {
            return Poll::Ready(self.last.take().map(Ok));
        };
        Poll::Ready(Some(match encoder.finish() {
            Ok(rest) => Ok(Frame::data(rest.into())),
            Err(error) => Err(error.into()),
        }))
    }
}

impl HttpBody for Coded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(encoder) = self.encoder.as_mut() else {
                return self.finish();
            };
            if encoder.written().len() >= PIECE_BYTES {
                let piece = std::mem::take(encoder.written());
                return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let written = self.encoder.as_mut().map(|encoder| encoder.write(&data));
                        if let Some(Err(error)) = written {
                            return Poll::Ready(Some(Err(error.into())));
                        }
                        self.is_unsent = true;
                    }
                    Err(trailers) => {
                        self.last = Some(trailers);
                        return self.finish();
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return self.finish(),
                Poll::Pending if self.is_unsent => {
                    self.is_unsent = false;
                    let Some(encoder) = self.encoder.as_mut() else {
                        return Poll::Pending;
                    };
                    if let Err(error) = encoder.flush() {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    let piece = std::mem::take(encoder.written());
                    return Poll::Ready(Some(Ok(Frame::data(piece.into()))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
