//! The bytes of a client's connection: read along with by a [`Guard`] where HTTP/1 is spoken, by [`Frames`] where HTTP/2
//! is, and given up when the client takes nothing for too long.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::guard::{Frames, Guard};

/// What the parser gets instead of what was refused: it takes this for a request at no place, and answers with 400.
const REFUSAL: &[u8] = b"\0\r\n\r\n";

/// A client's connection.
pub(super) struct ClientIo<S> {
    inner: S,
    /// Bytes that have been read before.
    first: Bytes,
    guard: Option<Guard>,
    frames: Option<Frames>,
    /// What is left to be read of a refusal; nothing comes after it.
    refusal: Option<&'static [u8]>,
    /// The client must take something within every so long.
    limit: Duration,
    /// Runs while it takes nothing.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<S> ClientIo<S> {
    /// Of a connection of which `first` has been read already.
    pub(super) fn new(inner: S, first: Bytes, limit: Duration) -> ClientIo<S> {
        ClientIo {
            inner,
            first,
            guard: None,
            frames: None,
            refusal: None,
            limit,
            patience: None,
        }
    }

    /// From now on, what is read is HTTP/1.
    pub(super) fn guarded(mut self) -> ClientIo<S> {
        self.guard = Some(Guard::default());
        self
    }

    /// From now on, what is read is HTTP/2 from its preface on.
    pub(super) fn framed(mut self) -> ClientIo<S> {
        self.frames = Some(Frames::default());
        self
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.refusal.is_none() {
            if this.first.has_remaining() {
                let count = this.first.remaining().min(buf.remaining());
                buf.put_slice(&this.first.split_to(count));
            } else {
                std::task::ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            }
            if let Some(frames) = &mut this.frames {
                frames.take(&mut buf.filled_mut()[before..]);
            }
            let read = &buf.filled()[before..];
            let looked = this.guard.as_mut().map_or(Ok(()), |guard| guard.take(read));
            if let Err(refused) = looked {
                tracing::debug!(why = refused.why, "a request is refused");
                buf.set_filled(before + refused.at);
                this.refusal = Some(REFUSAL);
            }
        }
        if let Some(left) = &mut this.refusal {
            let count = left.len().min(buf.remaining());
            buf.put_slice(&left[..count]);
            *left = &left[count..];
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> ClientIo<S> {
    /// The clock runs while nothing can be written.
    fn patient<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.patience = None;
            return polled;
        }
        let limit = self.limit;
        let sleep = self.patience.get_or_insert_with(|| Box::pin(sleep(limit)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.patient(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.patient(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.patient(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.patient(cx, polled)
    }
}
