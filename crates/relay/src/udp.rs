//! UDP: each client gets a socket of its own towards its endpoint, so that answers find back.
//!
//! ```text
//!   clients ──▶ door (one socket, recvmmsg) ──▶ session of the client ──sendmmsg──▶ endpoint
//!           ◀──sendmmsg── door ◀──────────────── recvmmsg ◀───────────────────────
//! ```
//!
//! Nothing waits: a datagram that finds no room in a socket is lost, as on any link, and counted.

mod batch;
mod session;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_model::Protocol;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::{Book, Plan};
use crate::limits::BATCHES_MAX;
use crate::original::FindOriginal;
use crate::relay::Door;
use crate::workers::{Place, Workers};

pub(crate) use session::Session;

/// What all UDP doors share.
pub(crate) struct Datagrams {
    pub book: Arc<Book>,
    /// How many clients are known.
    pub open: AtomicUsize,
    pub tasks: TaskTracker,
    pub abort: CancellationToken,
    pub original: Mutex<Box<dyn FindOriginal>>,
    pub workers: Arc<Workers>,
}

/// Doors are numbered, so that one client at two doors is two sessions.
static NEXT_DOOR: AtomicU64 = AtomicU64::new(0);

/// A door that is open.
pub(crate) struct OpenDoor {
    shared: Arc<Datagrams>,
    number: u64,
    door: Door,
    socket: UdpSocket,
    sessions: Mutex<HashMap<SocketAddr, Arc<Session>>>,
}

/// Takes datagrams until `closed`; then its sessions end.
pub(crate) async fn run(
    shared: Arc<Datagrams>,
    socket: UdpSocket,
    door: Door,
    closed: CancellationToken,
) {
    let open = Arc::new(OpenDoor {
        shared,
        number: NEXT_DOOR.fetch_add(1, Relaxed),
        door,
        socket,
        sessions: Mutex::default(),
    });
    loop {
        tokio::select! {
            _ = closed.cancelled() => break,
            _ = open.shared.abort.cancelled() => break,
            readable = open.socket.readable() => if readable.is_err() { break },
        }
        open.take();
        tokio::task::yield_now().await;
    }
    let sessions = open.sessions.lock();
    let sessions = sessions.unwrap_or_else(PoisonError::into_inner);
    sessions.values().for_each(|session| session.close());
}

impl OpenDoor {
    /// Takes what is there, as far as its turn goes.
    fn take(self: &Arc<Self>) {
        for _ in 0..BATCHES_MAX {
            let taken = batch::with(|batch| {
                let socket = &self.socket;
                socket.try_io(Interest::READABLE, || batch.receive(socket))?;
                batch.by_source(|client, datagrams| self.forward(client, datagrams));
                io::Result::Ok(())
            });
            if taken.is_err() {
                return;
            }
        }
    }

    /// Gives datagrams of one client to its session. The second try is for an endpoint that has refused.
    fn forward(self: &Arc<Self>, client: SocketAddr, datagrams: &[&[u8]]) {
        for _ in 0..2 {
            let Some(session) = self.session(client) else {
                return;
            };
            if session.send(datagrams) {
                return;
            }
            self.forget(&session);
        }
    }

    /// The session of `client`, or a new one; `None` when it may not have one.
    fn session(self: &Arc<Self>, client: SocketAddr) -> Option<Arc<Session>> {
        if let Some(session) = self.known(client) {
            return Some(session);
        }
        let destination = self.destination(client)?;
        let book = &self.shared.book;
        let plan = book.plan(Protocol::Udp, client, destination, self.door.origin);
        let plan = plan.ok()?;
        let endpoint = plan.endpoint()?;
        if !self.make_room(&plan) {
            plan.tally.counts.limited.add(1);
            return None;
        }
        // Answers come back on the thread that has least to do.
        let place = self.shared.workers.least();
        let inside = self.shared.workers.handle(place).enter();
        let opened = Session::open(&plan, client, destination, endpoint, book.now());
        drop(inside);
        let session = match opened {
            Ok(session) => Arc::new(session),
            Err(error) => {
                plan.tally.counts.dial_failures.add(1);
                tracing::debug!(port = %plan.tally.key, %endpoint, %error, "cannot send there");
                return None;
            }
        };
        plan.settle(endpoint, book.now());
        self.enter(&plan, &session, place);
        Some(session)
    }

    fn known(&self, client: SocketAddr) -> Option<Arc<Session>> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(&client)?;
        if session.is_closed() {
            return None;
        }
        let (session, now) = (Arc::clone(session), self.shared.book.now());
        drop(sessions);
        session.meet(now);
        let key = (self.number, client);
        session.tally.lock_sessions().meet(&key, now, Duration::MAX);
        Some(session)
    }

    /// Where the client was writing to.
    fn destination(&self, client: SocketAddr) -> Option<SocketAddr> {
        if self.door.leads_to.is_some() {
            return self.door.leads_to;
        }
        let mut original = self
            .shared
            .original
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match original.find(Protocol::Udp, client, self.door.listen) {
            Ok(destination) => destination,
            Err(words) => {
                tracing::warn!(%client, words, "cannot ask where a datagram was going");
                None
            }
        }
    }

    /// Whether there is room for one more client. When the relay is full, a Service port that has clients gives up the
    /// one that was silent for longest.
    fn make_room(&self, plan: &Plan) -> bool {
        let max = self.shared.book.limits.datagrams.sessions_max;
        if self.shared.open.load(Relaxed) < max {
            return true;
        }
        let evicted = plan.tally.lock_sessions().evict();
        evicted.is_some_and(|(_, session)| {
            session.close();
            plan.tally.counts.evicted.add(1);
            true
        })
    }

    /// From now on the session is known, and its answers are brought back.
    fn enter(self: &Arc<Self>, plan: &Plan, session: &Arc<Session>, place: Place) {
        let key = (self.number, session.client);
        let now = self.shared.book.now();
        let mut of_port = plan.tally.lock_sessions();
        let evicted = of_port.insert(key, Arc::clone(session), now);
        drop(of_port);
        if let Some((_, evicted)) = evicted {
            evicted.close();
            plan.tally.counts.evicted.add(1);
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.insert(session.client, Arc::clone(session));
        drop(sessions);
        self.shared.open.fetch_add(1, Relaxed);
        plan.tally.counts.sessions.add(1);
        plan.tally.counts.sessions_open.add(1);
        let (door, session) = (Arc::clone(self), Arc::clone(session));
        let load = self.shared.workers.load(place);
        let bring = async move {
            let abort = door.shared.abort.clone();
            tokio::select! {
                _ = session.bring_answers(&door.socket, &door.shared.book) => {}
                _ = abort.cancelled() => {}
            }
            door.forget(&session);
            door.shared.open.fetch_sub(1, Relaxed);
            session.tally.counts.sessions_open.sub(1);
            drop(load);
        };
        let handle = self.shared.workers.handle(place);
        self.shared.tasks.spawn_on(bring, handle);
    }

    /// The next datagram of this client begins anew.
    fn forget(&self, session: &Arc<Session>) {
        session.close();
        let same = |known: &Arc<Session>| Arc::ptr_eq(known, session);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&session.client).is_some_and(same) {
            sessions.remove(&session.client);
        }
        drop(sessions);
        let key = (self.number, session.client);
        let mut of_port = session.tally.lock_sessions();
        if of_port.peek(&key).is_some_and(same) {
            of_port.remove(&key);
        }
    }
}
