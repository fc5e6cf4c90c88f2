//! The body of a request by HTTP/3, as it comes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use h3::server::RequestStream;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::super::body::BodyError;

pub(super) type Receive = RequestStream<h3_quinn::RecvStream, Bytes>;

/// More or less of it has come than `Content-Length` says (RFC 9114 section 4.1.2).
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body is not as long as it was said to be")]
struct Mismatch;

/// How far it is.
enum Stage {
    Data,
    Trailers,
    Over,
}

/// What a client sends behind the head of its request.
pub(super) struct Received {
    stream: Receive,
    /// Has come before anybody has asked for it.
    first: Option<Bytes>,
    /// Bytes that must still come, where the request says how many there are.
    left: Option<u64>,
    stage: Stage,
}

impl Received {
    pub(super) fn new(stream: Receive, first: Option<Bytes>, length: Option<u64>) -> Received {
        Received {
            stream,
            first,
            left: length,
            stage: Stage::Data,
        }
    }

    fn take(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or(Mismatch)?;
        }
        Ok(Frame::data(data))
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            return Poll::Ready(Some(this.take(first)));
        }
        if matches!(this.stage, Stage::Data) {
            let polled = std::task::ready!(this.stream.poll_recv_data(cx)?);
            let data = polled.map(|mut data| data.copy_to_bytes(data.remaining()));
            if let Some(data) = data {
                return Poll::Ready(Some(this.take(data)));
            }
            this.stage = Stage::Trailers;
            if this.left.is_some_and(|left| left > 0) {
                this.stage = Stage::Over;
                return Poll::Ready(Some(Err(Mismatch.into())));
            }
        }
        if matches!(this.stage, Stage::Over) {
            return Poll::Ready(None);
        }
        let trailers = std::task::ready!(this.stream.poll_recv_trailers(cx)?);
        this.stage = Stage::Over;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
