//! What programs note about the sockets that they connect, for those who watch connections.
//!
//! A connection that a program has made goes to an endpoint from its first packet on, and conntrack knows nothing of the
//! Service. Programs write down here what is asked of them, and what they need themselves; `flows` says what becomes of
//! sockets whose endpoint is gone.

mod flows;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use portolan_dataplane::ebpf::{ENDPOINT_LEN, endpoint_of, read_endpoint};
use portolan_model::{ApplyError, Flow, Protocol};

use super::maps::{hash, pinned, removed};
use super::namespaces::Namespaces;
use super::pins::Pins;
use super::programs::Part;
use super::refused;
use crate::sockets::Sockets;
use flows::{FLOW_LEN, PEER_LEN, STUCK_LEN};

/// `NOTES_DIALS` and `NOTES_PAIRS` of ebpf/sockets.c.
const DIALS: u64 = 1;
const PAIRS: u64 = 2;

/// Bytes of `struct pair`.
const PAIR_LEN: usize = 44;

/// How often programs did what: `enum outcome` of ebpf/decide.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Sockets that were connected to an endpoint.
    pub connected: u64,
    /// Sockets that connect to something that is none of ours.
    pub no_service: u64,
    /// Sockets that connect to a Service, and that were left to the rules for who they are.
    pub not_for_us: u64,
    /// Sockets that were left to the rules because a list was just being replaced.
    pub no_slot: u64,
    /// Sockets that were told at once that nobody is there.
    pub refused: u64,
}

impl Outcomes {
    /// All of them, with their names in metrics.
    pub fn all(self) -> [(&'static str, u64); 5] {
        [
            ("connected", self.connected),
            ("no-service", self.no_service),
            ("not-for-us", self.not_for_us),
            ("no-slot", self.no_slot),
            ("refused", self.refused),
        ]
    }
}

/// A handle of the notes of one node's programs, also of those that take their place.
#[derive(Clone)]
pub struct Notes(Arc<Mutex<State>>);

struct State {
    maps: Maps,
    namespaces: Namespaces,
    wants: u64,
    /// Whether programs connect sockets of UDP, where they can be ended.
    has_datagrams: bool,
    /// Where the programs at devices are, too.
    all_pins: PathBuf,
}

struct Maps {
    node: Array<MapData, [u64; 2]>,
    outcomes: PerCpuArray<MapData, u64>,
    dials: HashMap<MapData, [u8; ENDPOINT_LEN], [u8; ENDPOINT_LEN]>,
    pairs: PerCpuHashMap<MapData, [u8; PAIR_LEN], u64>,
    namespaces: HashMap<MapData, u64, u8>,
    peers: HashMap<MapData, u64, [u8; PEER_LEN]>,
    datagram_peers: HashMap<MapData, u64, [u8; PEER_LEN]>,
    flows: HashMap<MapData, [u8; FLOW_LEN], [u8; STUCK_LEN]>,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notes of node {}", self.lock().namespaces.node())
    }
}

impl Notes {
    /// Of the programs that are pinned there; from now on they know which network namespace is the node's.
    /// Namespaces of pods are found in this directory.
    pub(super) fn open(
        pins: &Pins,
        node: u64,
        pods: &Path,
        all_pins: &Path,
    ) -> Result<Self, ApplyError> {
        let mut state = State {
            all_pins: all_pins.into(),
            maps: Maps::open(pins)?,
            namespaces: Namespaces::new(node, pods)?,
            wants: 0,
            has_datagrams: has_datagrams(pins),
        };
        state.tell()?;
        state.refresh()?;
        Ok(Notes(Arc::new(Mutex::new(state))))
    }

    /// The programs there have taken the place of those before them.
    pub(super) fn open_anew(&self, pins: &Pins) -> Result<(), ApplyError> {
        let maps = Maps::open(pins)?;
        let mut state = self.lock();
        state.maps = maps;
        state.has_datagrams = has_datagrams(pins);
        state.namespaces.begin_anew();
        state.tell()?;
        state.refresh()
    }

    /// Looks for namespaces of pods that have come or gone: in those that are known, programs connect sockets of UDP
    /// from now on. Says in how many that is, the node's own among them.
    pub fn refresh(&self) -> Result<usize, ApplyError> {
        let mut state = self.lock();
        state.refresh()?;
        Ok(state.namespaces.len())
    }

    /// What the programs have done so far.
    pub fn outcomes(&self) -> Result<Outcomes, ApplyError> {
        let state = self.lock();
        let count = |index: u32| -> Result<u64, ApplyError> {
            let all = state.maps.outcomes.get(&index, 0);
            let all = all.map_err(|error| refused("read how often programs did what", &error))?;
            Ok(all.iter().sum())
        };
        Ok(Outcomes {
            connected: count(0)?,
            no_service: count(1)?,
            not_for_us: count(2)?,
            no_slot: count(3)?,
            refused: count(4)?,
        })
    }

    /// From now on programs note which endpoint was asked for as what.
    pub fn want_dials(&self) -> Result<(), ApplyError> {
        let mut state = self.lock();
        state.wants |= DIALS;
        state.tell()
    }

    /// Whether programs connect sockets of UDP.
    pub fn has_datagrams(&self) -> bool {
        self.lock().has_datagrams
    }

    /// From now on programs count flows, all of them from 0.
    pub fn want_pairs(&self) -> Result<(), ApplyError> {
        let mut state = self.lock();
        state.wants |= PAIRS;
        state.forget_pairs(|_| true)?;
        super::tc::pairs(&state.all_pins, |_| true)?;
        state.tell()
    }

    /// How many flows each pair of destination and endpoint has had, at sockets and from outside. Those of which `is_old` says so are forgotten.
    pub fn pairs(&self, is_old: impl Fn(&Flow) -> bool) -> Result<Vec<(Flow, u64)>, ApplyError> {
        let mut state = self.lock();
        let read = |entry: Result<([u8; PAIR_LEN], PerCpuValues<u64>), MapError>| {
            let (key, counts) = entry?;
            Ok(read_pair(&key).map(|flow| (flow, counts.iter().sum())))
        };
        let all: Result<Vec<_>, MapError> = state.maps.pairs.iter().map(read).collect();
        let all = all.map_err(|error| refused("read how many flows programs have seen", &error))?;
        // A node port may have been asked for at a socket and from outside.
        let mut sums: std::collections::HashMap<Flow, u64> = all.into_iter().flatten().collect();
        for (flow, count) in super::tc::pairs(&state.all_pins, &is_old)? {
            *sums.entry(flow).or_default() += count;
        }
        state.forget_pairs(is_old)?;
        Ok(sums.into_iter().collect())
    }

    /// Where the last TCP socket wanted to go that a program has connected to this endpoint; `None` if there was none,
    /// or if it was so long ago that many others came after it.
    pub fn asked(&self, endpoint: SocketAddr) -> Result<Option<SocketAddr>, ApplyError> {
        let asked = self.lock().maps.dials.get(&endpoint_of(endpoint), 0);
        match asked {
            Ok(asked) => Ok(read_endpoint(&asked)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(refused("read what a socket has asked for", &error)),
        }
    }

    /// Nobody who gets this endpoint is known any more, until the next one.
    pub fn forget(&self, endpoint: SocketAddr) -> Result<(), ApplyError> {
        let done = self.lock().maps.dials.remove(&endpoint_of(endpoint));
        removed(done).map_err(|error| refused("forget what a socket has asked for", &error))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell(&mut self) -> Result<(), ApplyError> {
        let node = [self.namespaces.node(), self.wants];
        let set = self.maps.node.set(0, node, 0);
        set.map_err(|error| refused("tell the programs what is wanted of them", &error))
    }

    fn refresh(&mut self) -> Result<(), ApplyError> {
        match self.has_datagrams {
            true => self.namespaces.refresh(&mut self.maps.namespaces),
            false => Ok(()),
        }
    }

    fn forget_pairs(&mut self, is_old: impl Fn(&Flow) -> bool) -> Result<(), ApplyError> {
        let mut forget = || -> Result<(), MapError> {
            let keys: Vec<_> = self.maps.pairs.keys().collect::<Result<_, _>>()?;
            let old = |key: &&[u8; PAIR_LEN]| read_pair(key).is_none_or(|flow| is_old(&flow));
            let mut old = keys.iter().filter(old);
            old.try_for_each(|key| removed(self.maps.pairs.remove(key)))
        };
        forget().map_err(|error| refused("forget flows that programs have seen", &error))
    }
}

/// Sockets of UDP must be heard of when they are closed, answers to them be told as the Service's, and the kernel must be
/// able to end them.
fn has_datagrams(pins: &Pins) -> bool {
    let can_end = || Sockets::open().is_ok_and(|mut sockets| sockets.can_end(Protocol::Udp));
    pins.has(Part::Datagrams) && pins.has(Part::Release) && can_end()
}

/// `struct pair`.
fn read_pair(bytes: &[u8; PAIR_LEN]) -> Option<Flow> {
    let (asked, rest) = bytes.split_first_chunk()?;
    let (to, rest) = rest.split_first_chunk()?;
    let known = [Protocol::Tcp, Protocol::Udp].into_iter();
    Some(Flow {
        protocol: known
            .into_iter()
            .find(|p| rest.first() == Some(&p.number()))?,
        destination: read_endpoint(asked)?,
        replier: read_endpoint(to)?,
    })
}

impl Maps {
    fn open(pins: &Pins) -> Result<Self, ApplyError> {
        let shaped = |error| refused("open the notes of the socket programs", &error);
        Ok(Maps {
            node: Array::try_from(Map::Array(pinned(pins, "node")?)).map_err(shaped)?,
            outcomes: PerCpuArray::try_from(Map::PerCpuArray(pinned(pins, "outcomes")?))
                .map_err(shaped)?,
            dials: hash(pinned(pins, "dials")?)?,
            pairs: PerCpuHashMap::try_from(Map::PerCpuHashMap(pinned(pins, "pairs")?))
                .map_err(shaped)?,
            namespaces: hash(pinned(pins, "namespaces")?)?,
            peers: hash(pinned(pins, "peers")?)?,
            datagram_peers: hash(pinned(pins, "datagram_peers")?)?,
            flows: hash(pinned(pins, "flows")?)?,
        })
    }
}
