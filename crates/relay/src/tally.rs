//! What the relay keeps for each Service port beside what the model says: whose turn it is, which client belongs to
//! which endpoint, and what is counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use portolan_model::PortKey;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::recent::Recent;
use crate::udp::Session;

/// One number that only grows, or one that says how many there are.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it.
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Takes away from it.
    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Relaxed);
    }

    /// What it is now.
    pub fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is counted for one Service port.
#[derive(Debug, Default)]
pub struct Counts {
    /// TCP connections that reached an endpoint.
    pub connections: Count,
    /// TCP connections that go on now.
    pub connections_open: Count,
    /// Tries that failed: an endpoint refused, or did not answer in time.
    pub dial_failures: Count,
    /// Connections that were reset because every try failed.
    pub unreachable: Count,
    /// Flows that were turned away because a limit was reached.
    pub limited: Count,
    /// Bytes from clients to endpoints, TCP and UDP.
    pub bytes_in: Count,
    /// Bytes from endpoints to clients.
    pub bytes_out: Count,
    /// UDP clients that were met.
    pub sessions: Count,
    /// UDP clients that are known now.
    pub sessions_open: Count,
    /// UDP clients that had to make room for others.
    pub evicted: Count,
    /// Datagrams that found no room in a socket.
    pub datagrams_lost: Count,
}

/// What [`Counts`] were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// TCP connections that reached an endpoint.
    pub connections: u64,
    /// TCP connections that go on.
    pub connections_open: u64,
    /// Tries that failed.
    pub dial_failures: u64,
    /// Connections that were reset because every try failed.
    pub unreachable: u64,
    /// Flows that were turned away because a limit was reached.
    pub limited: u64,
    /// Bytes from clients to endpoints.
    pub bytes_in: u64,
    /// Bytes from endpoints to clients.
    pub bytes_out: u64,
    /// UDP clients that were met.
    pub sessions: u64,
    /// UDP clients that are known.
    pub sessions_open: u64,
    /// UDP clients that had to make room for others.
    pub evicted: u64,
    /// Datagrams that found no room in a socket.
    pub datagrams_lost: u64,
}

impl Counts {
    /// All of them now.
    pub fn read(&self) -> Counted {
        Counted {
            connections: self.connections.now(),
            connections_open: self.connections_open.now(),
            dial_failures: self.dial_failures.now(),
            unreachable: self.unreachable.now(),
            limited: self.limited.now(),
            bytes_in: self.bytes_in.now(),
            bytes_out: self.bytes_out.now(),
            sessions: self.sessions.now(),
            sessions_open: self.sessions_open.now(),
            evicted: self.evicted.now(),
            datagrams_lost: self.datagrams_lost.now(),
        }
    }
}

/// Lists of endpoints that one Service port can have: in each family, the model decides with those of the whole cluster
/// and those of this node.
const LISTS_MAX: usize = 4;

/// Everything that belongs to one Service port and outlives changes of its endpoints.
#[derive(Debug)]
pub(crate) struct Tally {
    pub key: PortKey,
    pub counts: Counts,
    /// Each grows with each new flow of its list. Were they counted together, flows that alternate between two lists would
    /// always find the same turns.
    turns: [AtomicUsize; LISTS_MAX],
    /// Affinity: where each client goes.
    clients: Mutex<Recent<IpAddr, SocketAddr>>,
    /// UDP clients, by the number of their door and their address.
    sessions: Mutex<Recent<(u64, SocketAddr), Arc<Session>>>,
}

impl Tally {
    pub fn new(key: PortKey, limits: &Limits) -> Self {
        Tally {
            key,
            counts: Counts::default(),
            // Not every node begins with the same endpoint.
            turns: [(); LISTS_MAX].map(|()| AtomicUsize::new(fastrand::usize(..u16::MAX as usize))),
            clients: Mutex::new(Recent::new(limits.clients_per_port_max)),
            sessions: Mutex::new(Recent::new(limits.datagrams.sessions_per_port_max)),
        }
    }

    /// Whose turn it is in a list.
    pub fn next_turn(&self, list: usize) -> usize {
        self.turns[list.min(LISTS_MAX - 1)].fetch_add(1, Relaxed)
    }

    /// Where `client` went less than `timeout` ago.
    pub fn remembered(
        &self,
        client: IpAddr,
        now: Duration,
        timeout: Duration,
    ) -> Option<SocketAddr> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.meet(&client, now, timeout).copied()
    }

    /// From now on `client` goes to `endpoint`.
    pub fn remember(&self, client: IpAddr, endpoint: SocketAddr, now: Duration) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.insert(client, endpoint, now);
    }

    /// The next flow of `client` is free to go elsewhere.
    pub fn forget(&self, client: IpAddr) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.remove(&client);
    }

    /// The UDP clients that are known.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let sessions = self.lock_sessions();
        sessions.values().cloned().collect()
    }

    pub fn lock_sessions(&self) -> MutexGuard<'_, Recent<(u64, SocketAddr), Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
