//! What is written down of a request when its answer is at its end, or given up: numbers for its route, and a line of the
//! access log if there is one.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use portolan_model::PortKey;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::access::{Line, Outcome};
use super::body::{Body, BodyError};
use super::connection::Shared;
use super::request::Peer;
use crate::route::Target;
use crate::table::Table;
use crate::tally::Cells;

/// What nginx writes when the client has gone before there was an answer.
const CLIENT_GONE: u16 = 499;

/// One request, from its head to the end of its answer.
pub(super) struct Record {
    shared: Rc<Shared>,
    peer: Rc<Peer>,
    begun: Instant,
    status: StatusCode,
    bytes: u64,
    is_whole: bool,
    /// Its answer has no body, whatever its endpoint says.
    is_head: bool,
    /// What its line says already.
    line: Option<Box<Line>>,
    noted: RefCell<Noted>,
}

/// What has been found out about a request on its way; all but the first only where a line is written.
#[derive(Default)]
struct Noted {
    cells: Option<Arc<Cells>>,
    target: Option<Arc<Target>>,
    client: Option<IpAddr>,
    backend: Option<PortKey>,
    sent: Option<Instant>,
    heard: Option<(Instant, SocketAddr, StatusCode)>,
}

impl Record {
    /// Of a request that has just come.
    pub(super) fn begin(shared: Rc<Shared>, peer: &Rc<Peer>, request: &Request<Body>) -> Record {
        let log = shared.worker.settings.access_log.as_ref();
        let line = log.map(|log| Box::new(Line::of(&log.format, peer, request)));
        Record {
            line,
            shared,
            peer: Rc::clone(peer),
            begun: Instant::now(),
            status: StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST),
            bytes: 0,
            is_whole: false,
            is_head: *request.method() == Method::HEAD,
            noted: RefCell::default(),
        }
    }

    /// The connection that it comes by.
    pub(super) fn peer(&self) -> Rc<Peer> {
        Rc::clone(&self.peer)
    }

    /// Whatever lives on behind the answer is waited for when the server stops.
    pub(super) fn tracker(&self) -> &TaskTracker {
        &self.shared.tracker
    }

    /// It matches this target, and comes from this client.
    pub(super) fn found(&self, table: &Arc<Table>, target: &Arc<Target>, client: IpAddr) {
        let mut noted = self.noted.borrow_mut();
        noted.cells = Some(self.shared.ledger.borrow_mut().cells(table, target));
        if self.line.is_some() {
            noted.target = Some(Arc::clone(target));
            noted.client = Some(client);
        }
    }

    /// It is sent to an endpoint of this Service port.
    pub(super) fn sent(&self, backend: &PortKey) {
        if self.line.is_some() {
            let mut noted = self.noted.borrow_mut();
            noted.backend = Some(backend.clone());
            noted.sent = Some(Instant::now());
        }
    }

    /// This endpoint has begun to answer.
    pub(super) fn heard(&self, endpoint: SocketAddr, status: StatusCode) {
        if self.line.is_some() {
            self.noted.borrow_mut().heard = Some((Instant::now(), endpoint, status));
        }
    }

    /// Its answer begins.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now - self.begun;
        let noted = self.noted.get_mut();
        match &noted.cells {
            Some(cells) => cells.count(self.status, took, self.bytes),
            None => {
                let others = self.shared.ledger.borrow().others();
                others.count(self.status, took, self.bytes);
            }
        }
        let log = self.shared.worker.settings.access_log.as_ref();
        let is_unlogged = noted.target.as_ref().is_some_and(|t| t.policy.is_unlogged);
        let (Some(log), Some(line), false) = (log, &self.line, is_unlogged) else {
            return;
        };
        let heard = noted.heard.zip(noted.sent);
        let outcome = Outcome {
            status: self.status,
            bytes: self.bytes,
            is_whole: self.is_whole,
            took,
            client: noted.client,
            target: noted.target.as_ref(),
            backend: noted.backend.as_ref(),
            endpoint: noted.heard.map(|(_, endpoint, status)| (endpoint, status)),
            endpoint_took: heard.map(|((heard, ..), sent)| (heard - sent, now - sent)),
        };
        log.write(log.format.line(line, &outcome));
    }
}

/// The body of an answer, with the record of its request.
pub(super) struct Recorded {
    inner: Body,
    record: Record,
}

impl Recorded {
    pub(super) fn new(inner: Body, mut record: Record) -> Recorded {
        record.is_whole = inner.is_end_stream() || record.is_head;
        Recorded { inner, record }
    }
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.record.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.record.is_whole |= this.inner.is_end_stream();
            }
            Poll::Ready(None) => this.record.is_whole = true,
            _ => {}
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
