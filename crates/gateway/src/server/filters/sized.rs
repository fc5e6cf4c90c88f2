//! Bodies of requests that may not be too long.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::super::answer;
use super::super::body::{Body, BodyError, MadeBody};
use super::After;

/// Refuses a body that says it is too long, and watches the others: one that gets too long ends, and the client is told.
pub(super) fn limit(
    request: &mut Request<Body>,
    max: u64,
    after: &mut After,
) -> Result<(), Response<Body>> {
    if super::known_length(request) > max {
        return Err(answer::plain(StatusCode::PAYLOAD_TOO_LARGE));
    }
    if request.body().size_hint().exact().is_some() {
        return Ok(());
    }
    let is_over = Arc::new(AtomicBool::new(false));
    after.is_over = Some(Arc::clone(&is_over));
    let inner = std::mem::take(request.body_mut());
    let sized = Sized {
        inner,
        left: max,
        is_over,
    };
    *request.body_mut() = Body::Made(MadeBody::new(sized));
    Ok(())
}

struct Sized {
    inner: Body,
    left: u64,
    is_over: Arc<AtomicBool>,
}

impl HttpBody for Sized {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let Poll::Ready(Some(Ok(frame))) = &polled else {
            return polled;
        };
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match self.left.checked_sub(length) {
            Some(left) => {
                self.left = left;
                polled
            }
            None => {
                self.is_over.store(true, Ordering::Relaxed);
                Poll::Ready(Some(Err("the body is too long".into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
