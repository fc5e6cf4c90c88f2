//! How many flows each Service port and each of its endpoints has had, out of what the kernel counts.
//!
//! The kernel counts for each pair of destination and endpoint, and forgets pairs that are not used any more; here they
//! become totals that never go down. Pure; [`Flow`]s with their counts come from `kernel::nft::ConnectionCounts`.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use crate::name::PortKey;
use crate::snapshot::Snapshot;
use crate::stale::Flow;

/// Service ports that are counted by name: each is a series of metrics, and a server of metrics suffers from more long
/// before a node does. The flows of further ports are counted together.
pub const PORTS_MAX: usize = 10_000;

/// The flows of one Service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortCount {
    /// All of them, since the proxy was started.
    pub total: u64,
    /// Those of each endpoint that is still listed.
    pub endpoints: BTreeMap<SocketAddr, u64>,
}

/// So many readings in a row may lack a pair before it counts as forgotten by the kernel: a listing may leave one out
/// while the kernel's set grows, and what is there again must not count twice. The kernel itself forgets after a day.
pub const MISSED_MAX: u8 = 8;

/// What the kernel said last about a pair.
#[derive(Debug, Default)]
struct Last {
    count: u64,
    /// Readings since then.
    age: u8,
}

/// The totals, and what the kernel said last.
#[derive(Debug, Default)]
pub struct Counts {
    last: HashMap<Flow, Last>,
    ports: BTreeMap<PortKey, PortCount>,
    others: u64,
}

impl Counts {
    /// Takes in what the kernel has counted for every pair. A pair at an address that is nobody's is not counted for
    /// anybody; the totals of ports that are gone are forgotten.
    pub fn take(&mut self, snapshot: &Snapshot, counted: Vec<(Flow, u64)>) {
        for (flow, count) in counted {
            let last = self.last.entry(flow).or_default();
            // Less than before: the kernel had forgotten the pair and began anew.
            let more = count.checked_sub(last.count).unwrap_or(count);
            *last = Last { count, age: 0 };
            let owner = snapshot
                .frontend(flow.protocol, flow.destination)
                .and_then(|frontend| snapshot.owner(&frontend));
            if let (Some(port), 1..) = (owner, more) {
                self.add(&port.key, flow.replier, more);
            }
        }
        self.last.retain(|_, last| {
            let known = last.age <= MISSED_MAX;
            last.age = last.age.saturating_add(1);
            known
        });
        self.ports.retain(|key, count| {
            let Some(port) = snapshot.port(key) else {
                return false;
            };
            let listed = |address: &SocketAddr| {
                let found = port.endpoints.binary_search_by_key(address, |e| e.address);
                found.is_ok()
            };
            count.endpoints.retain(|address, _| listed(address));
            true
        });
    }

    /// The kernel begins anew with all pairs.
    pub fn begin_anew(&mut self) {
        self.last.clear();
    }

    fn add(&mut self, key: &PortKey, endpoint: SocketAddr, more: u64) {
        if self.ports.len() >= PORTS_MAX && !self.ports.contains_key(key) {
            self.others += more;
            return;
        }
        let port = self.ports.entry(key.clone()).or_default();
        port.total += more;
        *port.endpoints.entry(endpoint).or_default() += more;
    }

    /// The ports that have had a flow, up to [`PORTS_MAX`].
    pub fn ports(&self) -> &BTreeMap<PortKey, PortCount> {
        &self.ports
    }

    /// The flows of all other ports together.
    pub fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests;
