//! Connections of one thread to endpoints: HTTP/1.1, kept while they are idle, and tried one endpoint after the other.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use portolan_model::PortKey;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::body::Upload;
use super::limits::{
    ANSWER_TIMEOUT, CONNECT_TIMEOUT, IDLE_ALL_MAX, IDLE_LOOK, IDLE_MAX, IDLE_TIMEOUT, TRIES_MAX,
};

/// Why no endpoint has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no endpoint.
    Nobody,
    /// None of those that were tried takes a connection, or the one that did has closed it or does not speak HTTP.
    Broken,
    /// The one that was chosen does not answer.
    Silent,
}

/// The connections of a thread.
#[derive(Default)]
pub(super) struct Upstream {
    idle: RefCell<Idle>,
    /// Where the next request of each Service port goes.
    turns: RefCell<HashMap<PortKey, usize>>,
}

/// Idle connections by endpoint, the one that was used last at the end.
#[derive(Default)]
struct Idle {
    by_endpoint: HashMap<SocketAddr, Vec<(SendRequest<Upload>, Instant)>>,
    count: usize,
}

impl Idle {
    fn take(&mut self, endpoint: SocketAddr) -> Option<SendRequest<Upload>> {
        let kept = self.by_endpoint.get_mut(&endpoint)?;
        while let Some((sender, _)) = kept.pop() {
            self.count -= 1;
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put(&mut self, endpoint: SocketAddr, sender: SendRequest<Upload>) {
        let kept = self.by_endpoint.entry(endpoint).or_default();
        if kept.len() < IDLE_MAX && self.count < IDLE_ALL_MAX {
            kept.push((sender, Instant::now()));
            self.count += 1;
        }
    }

    /// Closes what was not used for long, or is closed on the other side.
    fn trim(&mut self, now: Instant) {
        self.by_endpoint.retain(|_, kept| {
            kept.retain(|(sender, since)| !sender.is_closed() && now - *since < IDLE_TIMEOUT);
            !kept.is_empty()
        });
        self.count = self.by_endpoint.values().map(Vec::len).sum();
    }
}

impl Upstream {
    /// Closes idle connections in time, for ever.
    pub(super) async fn keep(self: Rc<Self>) {
        let mut look = tokio::time::interval(IDLE_LOOK);
        loop {
            let now = look.tick().await;
            self.idle.borrow_mut().trim(now);
        }
    }

    /// Sends a request to one of the endpoints, by turns. Another one is tried as long as nothing of the request has
    /// been sent.
    pub(super) async fn send(
        self: &Rc<Self>,
        key: &PortKey,
        endpoints: &[SocketAddr],
        mut request: Request<Upload>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut failure = Failure::Nobody;
        let first = self.turn(key);
        let tries = endpoints.len().min(TRIES_MAX);
        for index in 0..tries {
            let endpoint = endpoints[first.wrapping_add(index) % endpoints.len()];
            // What was idle may have been closed in this very moment; then a new connection is made.
            let kept = self.idle.borrow_mut().take(endpoint);
            if let Some(sender) = kept {
                match self.ask(endpoint, sender, request).await {
                    Ok(answer) => return Ok(answer),
                    Err((_, Some(unsent))) => request = unsent,
                    Err((failure, None)) => return Err(failure),
                }
            }
            let Some(sender) = connect(endpoint).await else {
                failure = Failure::Broken;
                continue;
            };
            match self.ask(endpoint, sender, request).await {
                Ok(answer) => return Ok(answer),
                Err((why, Some(unsent))) => {
                    request = unsent;
                    failure = why;
                }
                Err((failure, None)) => return Err(failure),
            }
        }
        Err(failure)
    }

    /// Whose turn it is. Threads begin at different endpoints.
    fn turn(&self, key: &PortKey) -> usize {
        let mut turns = self.turns.borrow_mut();
        match turns.get_mut(key) {
            Some(turn) => {
                *turn = turn.wrapping_add(1);
                *turn
            }
            None => {
                let first = fastrand::usize(..);
                turns.insert(key.clone(), first);
                first
            }
        }
    }

    /// Forgets the turns of Service ports that nothing leads to any more.
    pub(super) fn forget(&self, known: impl Fn(&PortKey) -> bool) {
        self.turns.borrow_mut().retain(|key, _| known(key));
    }

    /// Sends a request over a connection; gives it back when nothing of it was sent.
    async fn ask(
        self: &Rc<Self>,
        endpoint: SocketAddr,
        mut sender: SendRequest<Upload>,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, (Failure, Option<Request<Upload>>)> {
        let moved = request.body().moved();
        moved.set(Instant::now());
        let answer = answered(sender.try_send_request(request), &moved).await;
        let answer = answer.ok_or((Failure::Silent, None))?;
        let answer = answer.map_err(|mut error| (Failure::Broken, error.take_message()))?;
        // Once the answer has been read to its end, the connection is good for another request.
        let upstream = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                upstream.idle.borrow_mut().put(endpoint, sender);
            }
        });
        Ok(answer)
    }
}

/// Waits for an answer until both sides have been still for [`ANSWER_TIMEOUT`].
async fn answered<T>(answer: impl Future<Output = T>, moved: &Cell<Instant>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let until = moved.get() + ANSWER_TIMEOUT;
        match tokio::time::timeout_at(until, answer.as_mut()).await {
            Ok(answer) => return Some(answer),
            Err(_) if moved.get() + ANSWER_TIMEOUT > until => {}
            Err(_) => return None,
        }
    }
}

async fn connect(endpoint: SocketAddr) -> Option<SendRequest<Upload>> {
    let stream = within(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await?;
    // Small answers must not wait for each other; a socket that refuses this is still good.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%endpoint, %error, "connection to an endpoint");
        }
    });
    Some(sender)
}

async fn within<T, E>(limit: Duration, act: impl Future<Output = Result<T, E>>) -> Option<T> {
    timeout(limit, act).await.ok().and_then(Result::ok)
}
