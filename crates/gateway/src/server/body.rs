//! Bodies on their way: those of requests to endpoints, and those of answers to clients. Bytes pass as they come; nothing
//! is gathered here.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// Why a body has ended before its end.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer, or of a request: as it comes from the other side, or made here.
pub(super) enum Body {
    /// As it comes from the other side.
    Passed(Incoming),
    /// All of it, made here.
    Own(Full<Bytes>),
    /// Made here from another one.
    Made(UnsyncBoxBody<Bytes, BodyError>),
}

impl Default for Body {
    fn default() -> Self {
        Body::Own(Full::default())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Body::Passed(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Body::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Body::Made(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Passed(body) => body.is_end_stream(),
            Body::Own(body) => body.is_end_stream(),
            Body::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Passed(body) => body.size_hint(),
            Body::Own(body) => body.size_hint(),
            Body::Made(body) => body.size_hint(),
        }
    }
}

/// The body of a request. It tells when the client has sent something, so that an endpoint is not blamed for a client
/// that takes its time.
pub(super) struct Upload {
    inner: Body,
    moved: Rc<Cell<Instant>>,
}

impl Upload {
    pub(super) fn new(inner: Body) -> Upload {
        Upload {
            inner,
            moved: Rc::new(Cell::new(Instant::now())),
        }
    }

    /// When the client has sent something last.
    pub(super) fn moved(&self) -> Rc<Cell<Instant>> {
        Rc::clone(&self.moved)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if polled.is_ready() {
            self.moved.set(Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
