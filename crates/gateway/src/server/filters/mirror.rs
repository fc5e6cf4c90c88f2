//! Copies of requests, for somebody whose answers are thrown away. The original never waits for its copy.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::body::{Body, BodyError, MadeBody};
use super::super::headers;
use super::{Exchange, ask, uri};
use crate::policy::Mirror;

/// Copies that are under way at one time in the whole process; further requests are not copied, so that a receiver that
/// hangs costs no memory.
const COPIES_MAX: usize = 256;

/// Pieces of a body that wait for the receiver of a copy, 16 KiB each as a rule; with more, the copy is given up.
const PIECES_MAX: usize = 64;

const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");

/// Room for copies.
#[derive(Debug)]
pub(super) struct Copies(Arc<Semaphore>);

impl Default for Copies {
    fn default() -> Self {
        Copies(Arc::new(Semaphore::new(COPIES_MAX)))
    }
}

/// Sends a copy, if there is room for it.
pub(super) fn copy(exchange: &Exchange<'_>, mirror: &Mirror, request: &mut Request<Body>) {
    let Ok(permit) = Arc::clone(&exchange.common.copies.0).try_acquire_owned() else {
        tracing::debug!(target = %exchange.target.origin, "too many copies are under way");
        return;
    };
    let url = exchange.render(&mirror.url, request);
    let mut copy = head(exchange, mirror, request);
    if mirror.with_body && !request.body().is_end_stream() {
        let (sender, receiver) = channel(PIECES_MAX);
        let inner = std::mem::take(request.body_mut());
        let length = inner.size_hint();
        let tee = Tee {
            inner,
            copy: Some(sender),
        };
        *request.body_mut() = Body::Made(MadeBody::new(tee));
        *copy.body_mut() = Body::Made(MadeBody::new(Pieces {
            receiver,
            length,
            is_whole: false,
        }));
    } else {
        copy.headers_mut().remove(CONTENT_LENGTH);
    }
    tokio::task::spawn_local(async move {
        match ask::ask_url(&url, copy).await {
            // The receiver may take its time, but nobody reads it.
            Ok(answer) => drop(answer),
            Err(error) => tracing::debug!(%error, "a copy was not taken"),
        }
        drop(permit);
    });
}

fn head(exchange: &Exchange<'_>, mirror: &Mirror, request: &Request<Body>) -> Request<Body> {
    let mut headers = request.headers().clone();
    headers::forward(&mut headers, &exchange.client());
    headers.remove(HOST);
    if let Some(host) = &mirror.host {
        headers.insert(HOST, host.clone());
    }
    if let Ok(original) = HeaderValue::from_str(uri(request)) {
        headers.insert(ORIGINAL_URI, original);
    }
    let mut copy = Request::new(Body::Own(Full::default()));
    *copy.method_mut() = request.method().clone();
    *copy.headers_mut() = headers;
    copy
}

/// A body whose pieces go to a copy, too.
struct Tee {
    inner: Body,
    copy: Option<Sender<Option<Bytes>>>,
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let piece = match &polled {
            Some(Ok(frame)) => frame.data_ref().map(|data| Some(data.clone())),
            Some(Err(_)) => {
                self.copy = None;
                None
            }
            None => Some(None),
        };
        if let (Some(piece), Some(copy)) = (piece, &self.copy)
            && copy.try_send(piece).is_err()
        {
            self.copy = None;
        }
        if self.inner.is_end_stream()
            && let Some(copy) = self.copy.take()
        {
            // Nobody may ask for the end.
            let _ = copy.try_send(None);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a copy. It ends with an error when the original is given up, or this one is too slow.
struct Pieces {
    receiver: Receiver<Option<Bytes>>,
    length: SizeHint,
    is_whole: bool,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        match ready!(self.receiver.poll_recv(cx)) {
            Some(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(None) => {
                self.is_whole = true;
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err("the original was given up".into()))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// The receiver of a copy takes nothing: the original has all of its body, and the copy is given up.
    #[tokio::test]
    async fn a_copy_that_is_too_slow_is_given_up() {
        for pieces in [PIECES_MAX - 1, PIECES_MAX + 1] {
            let frames = (0..pieces).map(|_| Ok(Frame::data(Bytes::from_static(b"x"))));
            let inner = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
            let (sender, receiver) = channel(PIECES_MAX);
            let tee = Tee {
                inner: Body::Made(MadeBody::new(inner)),
                copy: Some(sender),
            };
            assert_eq!(tee.collect().await.unwrap().to_bytes().len(), pieces);
            let copy = Pieces {
                receiver,
                length: SizeHint::default(),
                is_whole: false,
            };
            let mut copy = copy.into_data_stream();
            for _ in 0..pieces.min(PIECES_MAX) {
                assert_eq!(copy.next().await.unwrap().unwrap(), "x");
            }
            let end = copy.next().await;
            let is_whole = pieces < PIECES_MAX;
            assert_eq!(end.is_none(), is_whole, "{pieces}");
            assert_eq!(end.is_some_and(|end| end.is_err()), !is_whole, "{pieces}");
        }
    }
}
