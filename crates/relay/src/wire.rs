//! What a relay in a process of its own and its agent say to each other, each as one message of JSON.
//!
//! ```text
//!   agent ──Adopt──▶ relay     who you are, and your doors        ◀──Door… Doors──
//!         ──Begin Node Set…──▶ the whole Snapshot, then changes   ◀──Done──
//!         ──Open Close──▶      doors, with their sockets          ◀──Dials Counts──
//! ```
//!
//! [`Hello`], [`Ask::HandOver`], [`Ask::Retire`], [`Ask::End`], [`Tell::Door`] and [`Tell::Doors`] are understood by all
//! versions: with them doors go from one relay to a newer one. Everything else is for those of one [`PROTOCOL`].

use portolan_model::{NodeFacts, PortKey, ServicePort, Snapshot};
use serde::{Deserialize, Serialize};

use crate::relay::Door;
use crate::tally::Counted;
use crate::tcp::Dial;

/// Counts up when messages change.
pub const PROTOCOL: u32 = 1;

/// Endpoints that travel in one message, about; each takes less than 200 bytes.
const ENDPOINTS_PER_MESSAGE: usize = 8192;
/// What a Service port without endpoints counts for.
const ENDPOINTS_FOR_A_PORT: usize = 4;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// I am your agent from now on; a former one is left. Also one that has retired goes on.
    Adopt,
    /// Give me your doors, and end when your last connection has.
    HandOver,
    /// Your mode is over: close your doors in a moment, and end when your last connection has.
    Retire,
    /// End now.
    End,
    /// Wait at this door; its socket comes along.
    Open(Door),
    /// Close this door.
    Close(Door),
    /// What comes up to the next [`Ask::Commit`] is everything.
    Begin,
    /// The facts about the node.
    Node(NodeFacts),
    /// These Service ports are there.
    Set(Vec<ServicePort>),
    /// These are gone.
    Remove(Vec<PortKey>),
    /// Go by it from now on, and tell [`Tell::Done`] with this number.
    Commit(u64),
}

/// What a relay says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its [`PROTOCOL`].
    pub protocol: u32,
    /// Which program it is: another file is another program.
    pub program: String,
    /// Whether it has given its doors away, and ends when its last connection does.
    pub drains: bool,
}

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Tell {
    /// To everybody who comes.
    Hello(Hello),
    /// This door stands; its socket comes along.
    Door(Door),
    /// Those were all.
    Doors,
    /// The Snapshot with this number stands.
    Done(u64),
    /// You are not my agent any more: another one has come.
    Replaced,
    /// Connections to endpoints have begun.
    Dials(Vec<Dial>),
    /// What was counted, for Service ports for which that has changed.
    Counts(Vec<(PortKey, Counted)>),
}

/// The messages that lead from `before` to `now`; without `before`, from anything.
pub fn changes(before: Option<&Snapshot>, now: &Snapshot, number: u64) -> Vec<Ask> {
    let mut all = Vec::new();
    let keys: Vec<PortKey> = match before {
        Some(before) => now.touched(before),
        None => now.ports().map(|port| port.key.clone()).collect(),
    };
    if before.is_none() {
        all.push(Ask::Begin);
    }
    if before.is_none_or(|before| before.node() != now.node()) {
        all.push(Ask::Node(now.node().clone()));
    }
    let (mut set, mut weight, mut gone) = (Vec::new(), 0, Vec::new());
    for key in keys {
        let Some(port) = now.port(&key) else {
            gone.push(key);
            continue;
        };
        weight += port.endpoints.len() + ENDPOINTS_FOR_A_PORT;
        set.push(ServicePort::clone(port));
        if weight >= ENDPOINTS_PER_MESSAGE {
            all.push(Ask::Set(std::mem::take(&mut set)));
            weight = 0;
        }
    }
    all.push(Ask::Set(set));
    let chunks = gone.chunks(ENDPOINTS_PER_MESSAGE);
    all.extend(chunks.map(|keys| Ask::Remove(keys.to_vec())));
    all.push(Ask::Commit(number));
    all
}

/// A Snapshot in the making, as messages tell it.
#[derive(Debug, Default)]
pub struct Draft(Snapshot);

impl Draft {
    /// Takes what is said; returns the whole and its number when it is complete.
    pub fn take(&mut self, ask: Ask) -> Option<(Snapshot, u64)> {
        match ask {
            Ask::Begin => self.0 = Snapshot::default(),
            Ask::Node(node) => self.0.set_node(node),
            Ask::Set(ports) => ports.into_iter().for_each(|port| self.0.set(port)),
            Ask::Remove(keys) => keys.iter().for_each(|key| self.0.remove(key)),
            Ask::Commit(number) => return Some((self.0.clone(), number)),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests;
