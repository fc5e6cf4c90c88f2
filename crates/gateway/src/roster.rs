//! Who stands behind each Service port, out of the Snapshot: who serves is the model's word, not ours.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use imbl::HashMap;
use portolan_model::{Balance, Choices, PortKey, Protocol, ServicePort, Snapshot, upstreams};

/// The endpoints that get the requests for one Service port, and what its owner wants of them. Never changed.
#[derive(Debug)]
pub struct Roster {
    /// The endpoints with their weights.
    pub choices: Choices,
    /// How the Service wants its flows spread; `None` when it does not say.
    pub balance: Option<Balance>,
    /// How long an endpoint that is new takes to get its full share.
    pub slow_start: Option<Duration>,
    slots: OnceLock<Option<Vec<u16>>>,
    hash_slots: OnceLock<Option<Vec<u16>>>,
    /// Endpoints by what stands for them in cookies.
    marks: OnceLock<std::collections::HashMap<String, SocketAddr>>,
}

impl Roster {
    /// Of these endpoints, all alike.
    pub fn of(endpoints: impl IntoIterator<Item = SocketAddr>) -> Roster {
        let weighed = endpoints.into_iter().map(|address| (address, 1));
        Roster {
            choices: Choices::of(weighed),
            balance: None,
            slow_start: None,
            slots: OnceLock::new(),
            hash_slots: OnceLock::new(),
            marks: OnceLock::new(),
        }
    }

    /// Of a Service port. Session affinity is by the client's address, which is what a hash of it is, too.
    fn of_port(port: &ServicePort) -> Roster {
        let balance = match (port.affinity, port.balance) {
            (Some(_), _) => Some(Balance::SourceHash),
            (None, Balance::Random) => None,
            (None, balance) => Some(balance),
        };
        let seconds = port.slow_start.map(|seconds| u64::from(seconds.get()));
        Roster {
            choices: upstreams(port),
            balance,
            slow_start: seconds.map(Duration::from_secs),
            slots: OnceLock::new(),
            hash_slots: OnceLock::new(),
            marks: OnceLock::new(),
        }
    }

    /// The endpoint of turn number `turn`, as an index: each as often in a round as its weight says.
    pub fn in_turn(&self, turn: usize) -> Option<usize> {
        let slots = self
            .slots
            .get_or_init(|| self.choices.slots(Balance::RoundRobin));
        slot(slots.as_deref(), turn, self.choices.addresses.len())
    }

    /// The endpoint of a hash, as an index; when an endpoint goes, few hashes but its own find another one.
    pub fn by_hash(&self, hash: u64) -> Option<usize> {
        let slots = self
            .hash_slots
            .get_or_init(|| self.choices.slots(Balance::SourceHash));
        let hash = usize::try_from(hash).unwrap_or(usize::MAX);
        slot(slots.as_deref(), hash, self.choices.addresses.len())
    }

    /// The endpoint that this stands for, if it is still there; `mark` says what stands for an endpoint.
    pub(crate) fn marked(&self, text: &str, mark: fn(SocketAddr) -> String) -> Option<SocketAddr> {
        let marks = self.marks.get_or_init(|| {
            let all = self.choices.addresses.iter();
            all.map(|address| (mark(*address), *address)).collect()
        });
        marks.get(text).copied()
    }

    /// The hash of some bytes that decide about an endpoint: the same in every thread and every gateway.
    pub fn hash(bytes: &[u8]) -> u64 {
        // FNV-1a, mixed once more because tables take the remainder of it.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
        let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^ (hash >> 33)
    }
}

fn slot(slots: Option<&[u16]>, number: usize, count: usize) -> Option<usize> {
    match slots {
        Some(slots) => {
            let slot = number.checked_rem(slots.len())?;
            Some(usize::from(slots[slot]))
        }
        None => number.checked_rem(count),
    }
}

/// The rosters of all TCP ports of Services; cheap to copy, and a change costs what it touches.
#[derive(Clone, Debug, Default)]
pub struct Rosters {
    snapshot: Snapshot,
    all: HashMap<PortKey, Arc<Roster>>,
}

impl Rosters {
    /// The roster of a Service port that is there.
    pub fn get(&self, key: &PortKey) -> Option<&Arc<Roster>> {
        self.all.get(key)
    }

    /// One of these Service ports only.
    pub fn of(rosters: impl IntoIterator<Item = (PortKey, Roster)>) -> Rosters {
        let all = rosters.into_iter();
        Rosters {
            snapshot: Snapshot::default(),
            all: all.map(|(key, roster)| (key, Arc::new(roster))).collect(),
        }
    }

    /// Becomes what this Snapshot says. A roster stays the same value as long as nothing of its port has changed.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        for key in snapshot.touched(&self.snapshot) {
            if key.protocol != Protocol::Tcp {
                continue;
            }
            match snapshot.port(&key) {
                Some(port) => drop(self.all.insert(key, Arc::new(Roster::of_port(port)))),
                None => drop(self.all.remove(&key)),
            }
        }
        self.snapshot = snapshot.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use portolan_model::Endpoint;

    use super::*;

    fn port(name: &str, endpoints: &[&str]) -> ServicePort {
        let key = PortKey::new("shop", name, "http", Protocol::Tcp);
        let endpoints = endpoints
            .iter()
            .map(|at| Endpoint::ready(at.parse().unwrap()));
        ServicePort {
            endpoints: endpoints.collect(),
            ..ServicePort::new(key, NonZeroU16::MIN)
        }
    }

    #[test]
    fn a_change_touches_its_own_roster() {
        let mut snapshot = Snapshot::default();
        snapshot.set(port("a", &["10.1.0.2:80"]));
        snapshot.set(port("b", &["10.1.0.3:80"]));
        let mut rosters = Rosters::default();
        rosters.follow(&snapshot);
        let (a, b) = (port("a", &[]).key, port("b", &[]).key);
        let before = rosters.clone();
        snapshot.set(port("a", &["10.1.0.2:80", "10.1.0.4:80"]));
        rosters.follow(&snapshot);
        let same = |key| Arc::ptr_eq(before.get(key).unwrap(), rosters.get(key).unwrap());
        assert!(!same(&a) && same(&b));
        assert_eq!(rosters.get(&a).unwrap().choices.addresses.len(), 2);
        snapshot.remove(&a);
        rosters.follow(&snapshot);
        assert!(rosters.get(&a).is_none() && rosters.get(&b).is_some());
        assert!(before.get(&a).is_some(), "who has the old ones keeps them");
    }

    #[test]
    fn hashes_stay_where_they_can() {
        let at = |count: u8| (1..=count).map(|n| SocketAddr::from(([10, 1, 0, n], 80)));
        let (five, four) = (Roster::of(at(5)), Roster::of(at(4)));
        let moved = (0..1000_u32).filter(|n| {
            let hash = Roster::hash(&n.to_be_bytes());
            let (before, after) = (five.by_hash(hash).unwrap(), four.by_hash(hash).unwrap());
            before != 4 && before != after
        });
        assert!(
            moved.count() < 60,
            "a fifth of the hashes must move, hardly more"
        );
        assert_eq!(Roster::of([]).by_hash(7), None);
        assert_eq!(Roster::of([]).in_turn(7), None);
    }

    #[test]
    fn what_the_service_says_is_kept() {
        let mut port = port("a", &[]);
        assert_eq!(Roster::of_port(&port).balance, None);
        port.balance = Balance::RoundRobin;
        port.slow_start = NonZeroU16::new(30);
        let roster = Roster::of_port(&port);
        assert_eq!(roster.balance, Some(Balance::RoundRobin));
        assert_eq!(roster.slow_start, Some(Duration::from_secs(30)));
        let timeout = Duration::from_secs(10_800);
        port.affinity = Some(portolan_model::Affinity { timeout });
        assert_eq!(Roster::of_port(&port).balance, Some(Balance::SourceHash));
    }
}
