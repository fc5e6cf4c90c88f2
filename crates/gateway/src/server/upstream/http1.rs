//! HTTP/1.1 with an endpoint, spoken by the task of the request itself (docs/decisions/0024).
//!
//! ```text
//!   Connection::ask ─▶ head and body out ─▶ head of the answer ─▶ Answer: a whole body │ Flow, which reads on
//!         ▲                                                             │
//!         └──────────────── Pool ◀── as soon as the last byte is read ──┘
//! ```

mod chunks;
mod head;
mod stream;

use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use self::chunks::{Chunks, Piece};
use self::head::{Framing, Head};
pub(super) use self::stream::Stream;
use super::pool::Place;
use super::{Upstream, pool};
use crate::guard::digits;
use crate::server::alarm::Alarm;
use crate::server::body::{BodyError, Progress, Stage, Upload};
use crate::traffic::Traffic;

pub(in super::super) use self::stream::Opened;

/// Bytes that one read of a body brings at most, and at least where there may be more.
const PART_BYTES_MAX: usize = 64 * 1024;
const PART_BYTES_MIN: usize = 4 * 1024;
/// Bytes that a connection keeps for its next request; what a large head has needed is given back.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// A connection, which serves one request at a time.
pub(super) struct Connection {
    stream: Stream,
    /// What was read and not taken yet.
    buffer: BytesMut,
    /// What is to be sent, but for bodies, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    alarm: Alarm,
}

/// Where a connection goes when its answer is read.
pub(super) struct Home {
    pub(super) upstream: Rc<Upstream>,
    pub(super) place: Place,
}

/// Why there is no answer.
pub(super) enum Lost {
    /// Nothing of the request was sent, and here it is.
    Unsent(Upload),
    /// It was sent, and the connection has ended, or what came over it is no answer; whether anything has come.
    Broken(io::Error, bool),
    /// Nothing comes.
    Silent,
    /// The client has broken off.
    Client,
}

/// The body of a request that is being sent.
struct Sending {
    body: Upload,
    /// Bytes that are still to come; `None` where it goes in chunks.
    left: Option<u64>,
    data: Bytes,
    tail: &'static [u8],
    is_whole: bool,
}

/// Why a body is not sent on.
enum Unsendable {
    Client,
    Endpoint(io::Error),
}

impl Sending {
    /// Of a request with this head.
    fn new(body: Upload, head: &Parts) -> Sending {
        let said = head.headers.get(CONTENT_LENGTH);
        let said = || said.and_then(|length| digits(length.as_bytes()));
        Sending {
            left: body.size_hint().exact().or_else(said),
            body,
            data: Bytes::new(),
            tail: b"",
            is_whole: false,
        }
    }

    fn framing(&self) -> Framing {
        self.left.map_or(Framing::Chunks, Framing::Length)
    }

    /// Gets the next part of the body, and what stands before it. Trailers of requests are dropped, as RFC 9110
    /// section 6.5 allows: hardly any server reads them.
    fn poll_part(&mut self, cx: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<Result<(), ()>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
            let data = match frame.transpose().map_err(|_| ())? {
                Some(frame) => frame.into_data().unwrap_or_default(),
                None => {
                    self.is_whole = true;
                    match self.left {
                        None => self.tail = b"0\r\n\r\n",
                        Some(0) => {}
                        Some(_) => return Poll::Ready(Err(())),
                    }
                    return Poll::Ready(Ok(()));
                }
            };
            if data.is_empty() {
                continue;
            }
            match &mut self.left {
                Some(left) => *left = left.checked_sub(data.len() as u64).ok_or(())?,
                None => {
                    write!(out, "{:x}\r\n", data.len()).map_err(|_| ())?;
                    self.tail = b"\r\n";
                }
            }
            self.data = data;
            return Poll::Ready(Ok(()));
        }
    }
}

impl Connection {
    pub(super) fn new(stream: Stream) -> Connection {
        Connection {
            stream,
            buffer: BytesMut::new(),
            out: Vec::new(),
            sent: 0,
            alarm: Alarm::default(),
        }
    }

    /// Whether it can be used, after it was idle.
    pub(super) fn is_alive(&mut self) -> bool {
        self.stream.is_quiet()
    }

    /// Sends a request, and waits for the head of the answer: as long as the endpoint takes the body in time, the client
    /// sends it, and then the answer comes in time.
    pub(super) async fn ask(
        mut self: Box<Self>,
        head: &Parts,
        body: Upload,
        traffic: &Traffic,
        home: Option<Home>,
    ) -> Result<Response<Answer>, Lost> {
        let progress = body.progress();
        let (mut sending, mut unsent) = match body.is_end_stream() {
            true => (None, Some(body)),
            false => (Some(Sending::new(body, head)), None),
        };
        self.out.clear();
        self.sent = 0;
        head::write(&mut self.out, head, sending.as_ref().map(Sending::framing));
        let (mut is_sent, mut is_broken) = (false, false);
        let answer = std::future::poll_fn(|cx| {
            if !is_sent {
                match self.poll_send(cx, sending.as_mut()) {
                    Poll::Ready(Ok(())) => is_sent = true,
                    Poll::Ready(Err(Unsendable::Client)) => return Poll::Ready(Err(Lost::Client)),
                    Poll::Ready(Err(Unsendable::Endpoint(error))) => {
                        let untouched = unsent.take().or_else(|| {
                            let sending = sending.take()?;
                            sending.data.is_empty().then_some(sending.body)
                        });
                        match untouched.filter(|_| self.sent == 0) {
                            Some(body) => return Poll::Ready(Err(Lost::Unsent(body))),
                            None => {
                                tracing::debug!(%error, "an endpoint takes no more of a request")
                            }
                        }
                        // It may have answered before it has read everything.
                        (is_sent, is_broken) = (true, true);
                    }
                    Poll::Pending => {}
                }
            }
            match self.poll_head(cx, head) {
                Poll::Ready(read) => Poll::Ready(read),
                Poll::Pending => self.poll_silence(cx, &progress, traffic),
            }
        });
        let Head {
            answer,
            framing,
            keeps,
        } = answer.await?;
        let is_well = keeps && !is_broken && (is_sent || sending.is_some());
        let home = home.filter(|_| is_well);
        let sending = sending.filter(|_| !is_sent);
        let (head, ()) = answer.into_parts();
        let answer = self.answer(head.status, framing, sending, home);
        Ok(Response::from_parts(head, answer))
    }

    /// Writes what there is to be sent, and what the client sends.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        mut sending: Option<&mut Sending>,
    ) -> Poll<Result<(), Unsendable>> {
        loop {
            let mut is_waiting = false;
            if let Some(sending) = &mut sending
                && !sending.is_whole
                && sending.data.is_empty()
                && sending.tail.is_empty()
            {
                if self.sent == self.out.len() {
                    self.out.clear();
                    self.sent = 0;
                }
                match sending.poll_part(cx, &mut self.out) {
                    Poll::Ready(part) => part.map_err(|()| Unsendable::Client)?,
                    Poll::Pending => is_waiting = true,
                }
            }
            let (data, tail) = sending.as_ref().map_or((&b""[..], &b""[..]), |sending| {
                (&sending.data, sending.tail)
            });
            let slices = [&self.out[self.sent..], data, tail].map(IoSlice::new);
            let all: usize = slices.iter().map(|slice| slice.len()).sum();
            if all == 0 {
                let is_whole = sending.as_ref().is_none_or(|sending| sending.is_whole);
                let flushed = Pin::new(&mut self.stream).poll_flush(cx);
                match (flushed, is_whole, is_waiting) {
                    (Poll::Ready(Err(error)), ..) => {
                        return Poll::Ready(Err(Unsendable::Endpoint(error)));
                    }
                    (Poll::Ready(Ok(())), true, _) => return Poll::Ready(Ok(())),
                    (Poll::Pending, true, _) | (_, false, true) => return Poll::Pending,
                    (_, false, false) => continue,
                }
            }
            let stream = Pin::new(&mut self.stream);
            let written = ready!(match sending {
                None => stream.poll_write(cx, &self.out[self.sent..]),
                Some(_) => stream.poll_write_vectored(cx, &slices),
            });
            let written = written.and_then(|written| match written {
                0 => Err(io::ErrorKind::WriteZero.into()),
                written => Ok(written),
            });
            self.advance(
                written.map_err(Unsendable::Endpoint)?,
                sending.as_deref_mut(),
            );
        }
    }

    /// So many bytes are sent.
    fn advance(&mut self, mut count: usize, sending: Option<&mut Sending>) {
        let own = count.min(self.out.len() - self.sent);
        self.sent += own;
        count -= own;
        if let Some(sending) = sending {
            let data = count.min(sending.data.len());
            sending.data.advance(data);
            sending.tail = &sending.tail[count - data..];
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>, asked: &Parts) -> Poll<Result<Head, Lost>> {
        loop {
            let has_come = !self.buffer.is_empty();
            let broken = |error| Lost::Broken(error, has_come);
            if has_come {
                let read = head::read(&mut self.buffer, &asked.method);
                let read = read.map_err(|why| Lost::Broken(io::Error::other(why), true));
                if let Some(head) = read? {
                    return Poll::Ready(Ok(head));
                }
            }
            let read = ready!(self.stream.poll_fill(cx, &mut self.buffer));
            if read.map_err(broken)? == 0 {
                return Poll::Ready(Err(broken(io::ErrorKind::UnexpectedEof.into())));
            }
        }
    }

    /// Nothing has come: whether that is for too long now.
    fn poll_silence<T>(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
        traffic: &Traffic,
    ) -> Poll<Result<T, Lost>> {
        loop {
            let limit = match progress.stage.get() {
                Stage::Sent => traffic.read_timeout,
                _ => traffic.send_timeout,
            };
            ready!(self.alarm.poll_until(cx, progress.moved.get() + limit));
            if progress.stage.get() != Stage::Client {
                return Poll::Ready(Err(Lost::Silent));
            }
            // It is the client's turn, and the body of the request looks after that.
            progress.moved.set(Instant::now());
        }
    }

    /// The body behind a head that has come.
    fn answer(
        mut self: Box<Self>,
        status: StatusCode,
        framing: Framing,
        sending: Option<Sending>,
        home: Option<Home>,
    ) -> Answer {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Answer::Opened(Box::new(Opened {
                stream: self.stream,
                first: self.buffer,
            }));
        }
        if let (Framing::Length(length), None) = (framing, &sending)
            && let Ok(length) = usize::try_from(length)
            && length <= self.buffer.len()
        {
            let body = self.buffer.split_to(length).freeze();
            self.go_home(home);
            return Answer::Whole(body);
        }
        let rest = match framing {
            Framing::Length(left) => Rest::Left(left),
            Framing::Chunks => Rest::Chunks(Chunks::default()),
            Framing::Close => Rest::Close,
        };
        Answer::Flow(Box::new(Flow {
            connection: Some(self),
            sending,
            rest,
            home,
        }))
    }

    /// Its answer is read: it is kept, unless something is in the way of that.
    fn go_home(mut self: Box<Self>, home: Option<Home>) {
        let Some(home) = home.filter(|_| self.buffer.is_empty()) else {
            return;
        };
        if self.buffer.capacity() > KEPT_BYTES_MAX {
            self.buffer = BytesMut::new();
        }
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = Vec::new();
        }
        let mut pool = home.upstream.pool.borrow_mut();
        pool.put(home.place, pool::Sender::Http1(self), Instant::now());
    }
}

/// The body of an answer of HTTP/1.1.
pub(in super::super) enum Answer {
    /// All of it, which has come with its head.
    Whole(Bytes),
    /// It is still coming.
    Flow(Box<Flow>),
    /// None: the connection is what was asked for.
    Opened(Box<Opened>),
}

/// What of a body has not come yet.
enum Rest {
    Left(u64),
    Chunks(Chunks),
    Close,
    Nothing,
}

/// A body that is still coming.
pub(in super::super) struct Flow {
    connection: Option<Box<Connection>>,
    /// The body of the request, where the endpoint has answered before its end.
    sending: Option<Sending>,
    rest: Rest,
    home: Option<Home>,
}

impl Flow {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        if self.sending.is_some()
            && let Poll::Ready(result) = connection.poll_send(cx, self.sending.as_mut())
        {
            self.sending = None;
            match result {
                Ok(()) => {}
                // It may go on with its answer all the same.
                Err(Unsendable::Endpoint(_)) => self.home = None,
                // Nobody will ever send the rest: the endpoint hears of it, and the answer has no end.
                Err(Unsendable::Client) => {
                    self.connection = None;
                    let why = "the client has broken off its request";
                    return Poll::Ready(Some(Err(why.into())));
                }
            }
        }
        loop {
            let buffer = &mut connection.buffer;
            let (piece, wanted) = match &mut self.rest {
                Rest::Nothing => (Piece::End, 0),
                Rest::Left(0) => (Piece::End, 0),
                Rest::Left(left) => {
                    let wanted = usize::try_from(*left).unwrap_or(usize::MAX);
                    let count = wanted.min(buffer.len());
                    *left -= count as u64;
                    match count {
                        0 => (Piece::Nothing, wanted),
                        _ => (Piece::Data(buffer.split_to(count).freeze()), 0),
                    }
                }
                Rest::Chunks(chunks) => (chunks.take(buffer)?, 0),
                Rest::Close if buffer.is_empty() => (Piece::Nothing, PART_BYTES_MAX),
                Rest::Close => (Piece::Data(buffer.split().freeze()), 0),
            };
            let frame = match piece {
                Piece::Nothing => {
                    let wanted = wanted.clamp(PART_BYTES_MIN, PART_BYTES_MAX);
                    let read = connection.stream.poll_fill_large(cx, buffer, wanted);
                    match (ready!(read)?, &self.rest) {
                        (0, Rest::Close) => self.rest = Rest::Nothing,
                        (0, _) => {
                            let end = io::Error::from(io::ErrorKind::UnexpectedEof);
                            return Poll::Ready(Some(Err(end.into())));
                        }
                        _ => {}
                    }
                    continue;
                }
                Piece::Data(data) => Some(Frame::data(data)),
                Piece::Trailers(trailers) => Some(Frame::trailers(trailers)),
                Piece::End => None,
            };
            let is_over = match &self.rest {
                Rest::Left(left) => *left == 0,
                Rest::Chunks(chunks) => chunks.is_over(),
                Rest::Close => false,
                Rest::Nothing => true,
            };
            if is_over {
                self.finish();
            }
            return Poll::Ready(frame.map(Ok));
        }
    }

    /// The last byte is read.
    fn finish(&mut self) {
        let home = self.home.take().filter(|_| self.sending.is_none());
        if let Some(connection) = self.connection.take() {
            connection.go_home(home);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Answer::Whole(body) if body.is_empty() => Poll::Ready(None),
            Answer::Whole(body) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(body))))),
            Answer::Flow(flow) => flow.poll_frame(cx),
            Answer::Opened(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Whole(body) => body.is_empty(),
            Answer::Flow(flow) => flow.connection.is_none(),
            Answer::Opened(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Whole(body) => SizeHint::with_exact(body.len() as u64),
            Answer::Flow(flow) => match (&flow.rest, &flow.connection) {
                (_, None) => SizeHint::with_exact(0),
                (Rest::Left(left), _) => SizeHint::with_exact(*left),
                _ => SizeHint::default(),
            },
            Answer::Opened(_) => SizeHint::with_exact(0),
        }
    }
}
