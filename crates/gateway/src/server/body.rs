//! Bodies on their way: those of requests to endpoints, and those of answers to clients. Bytes pass as they come; nothing
//! is gathered here.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::upstream::{Answer, Ticket};

/// Why a body has ended before its end.
pub(super) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Whoever should send the body has been silent for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("nothing has come for {0:?}")]
pub(super) struct Silence(Duration);

/// A body that was made from another one; it stays in its thread.
pub(super) struct MadeBody(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError>>>);

impl MadeBody {
    pub(super) fn new(body: impl HttpBody<Data = Bytes, Error = BodyError> + 'static) -> MadeBody {
        MadeBody(Box::pin(body))
    }
}

/// The body of an answer, or of a request: as it comes from the other side, or made here.
pub(super) enum Body {
    /// As it comes from a client.
    Passed(Incoming),
    /// As it comes from an endpoint.
    Answer(Download),
    /// All of it, made here.
    Own(Full<Bytes>),
    /// Made here from another one.
    Made(MadeBody),
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
            Body::Answer(body) => Pin::new(body).poll_frame(cx),
            Body::Own(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Body::Made(body) => body.0.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Passed(body) => body.is_end_stream(),
            Body::Answer(body) => body.inner.is_end_stream(),
            Body::Own(body) => body.is_end_stream(),
            Body::Made(body) => body.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Passed(body) => body.size_hint(),
            Body::Answer(body) => body.inner.size_hint(),
            Body::Own(body) => body.size_hint(),
            Body::Made(body) => body.0.size_hint(),
        }
    }
}

impl Body {
    /// Nothing.
    pub(super) fn empty() -> Body {
        Body::default()
    }
}

/// Waits for something that should come in time; the clock runs only while nothing comes.
struct Patience {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Patience {
        Patience { limit, sleep: None }
    }

    /// Something has come.
    fn reset(&mut self) {
        self.sleep = None;
    }

    /// Nothing has come: whether that is for too long now.
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// How far the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The client has to send more.
    Client,
    /// The endpoint has to take more.
    Endpoint,
    /// All of it is sent.
    Sent,
    /// The client has been silent for too long.
    Silent,
    /// What the client has sent is malformed, or it has gone.
    Broken,
}

/// What is known of the body of a request while somebody else has it.
#[derive(Debug)]
pub(super) struct Progress {
    /// When something was moved last.
    pub(super) moved: Cell<Instant>,
    /// How far it is.
    pub(super) stage: Cell<Stage>,
}

/// The body of a request. It tells how far it is, so that an endpoint is not blamed for a client that takes its time, and
/// the other way round.
pub(super) struct Upload {
    inner: Body,
    progress: Rc<Progress>,
    patience: Patience,
}

impl Upload {
    /// The client must send something within every `limit`.
    pub(super) fn new(inner: Body, limit: Duration) -> Upload {
        let stage = match inner.is_end_stream() {
            true => Stage::Sent,
            false => Stage::Endpoint,
        };
        let progress = Rc::new(Progress {
            moved: Cell::new(Instant::now()),
            stage: Cell::new(stage),
        });
        Upload {
            inner,
            progress,
            patience: Patience::new(limit),
        }
    }

    /// None at all.
    pub(super) fn empty() -> Upload {
        Upload::new(Body::empty(), Duration::ZERO)
    }

    /// How far it is, from now on.
    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        let stage = match &polled {
            Poll::Pending if this.patience.is_over(cx) => {
                this.progress.stage.set(Stage::Silent);
                let silence = Silence(this.patience.limit);
                return Poll::Ready(Some(Err(silence.into())));
            }
            Poll::Pending => Stage::Client,
            Poll::Ready(Some(Ok(_))) if this.inner.is_end_stream() => Stage::Sent,
            Poll::Ready(Some(Ok(_))) => Stage::Endpoint,
            Poll::Ready(Some(Err(_))) => Stage::Broken,
            Poll::Ready(None) => Stage::Sent,
        };
        if polled.is_ready() {
            this.patience.reset();
            this.progress.moved.set(Instant::now());
        }
        this.progress.stage.set(stage);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of an answer of an endpoint, which counts as busy until the end of it.
pub(super) struct Download {
    inner: Answer,
    patience: Patience,
    /// Ends with the body.
    _ticket: Ticket,
}

impl Download {
    /// The endpoint must send something within every `limit`.
    pub(super) fn new(inner: Answer, limit: Duration, ticket: Ticket) -> Download {
        Download {
            inner,
            patience: Patience::new(limit),
            _ticket: ticket,
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match polled {
            Poll::Pending if self.patience.is_over(cx) => {
                let silence = Silence(self.patience.limit);
                Poll::Ready(Some(Err(silence.into())))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(frame) => {
                self.patience.reset();
                Poll::Ready(frame)
            }
        }
    }
}
