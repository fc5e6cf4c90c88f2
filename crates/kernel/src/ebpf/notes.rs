//! What programs note about the sockets that they connect, for those who watch connections.
//!
//! A connection that a program has made goes to an endpoint from its first packet on, and conntrack knows nothing of the
//! Service. Programs write down what is asked of them here, and nothing else: a note that nobody wants costs nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use portolan_dataplane::ebpf::{ENDPOINT_LEN, endpoint_of, read_endpoint};
use portolan_model::ApplyError;

use super::maps::{hash, pinned, removed};
use super::pins::Pins;
use super::refused;

/// `NOTES_DIALS` of ebpf/sockets.c.
const DIALS: u64 = 1;

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
}

impl Outcomes {
    /// All of them, with their names in metrics.
    pub fn all(self) -> [(&'static str, u64); 4] {
        [
            ("connected", self.connected),
            ("no-service", self.no_service),
            ("not-for-us", self.not_for_us),
            ("no-slot", self.no_slot),
        ]
    }
}

/// A handle of the notes of one node's programs, also of those that take their place.
#[derive(Clone)]
pub struct Notes(Arc<Mutex<State>>);

struct State {
    maps: Maps,
    /// The cookie of the node's network namespace.
    node: u64,
    wants: u64,
}

struct Maps {
    node: Array<MapData, [u64; 2]>,
    outcomes: PerCpuArray<MapData, u64>,
    dials: HashMap<MapData, [u8; ENDPOINT_LEN], [u8; ENDPOINT_LEN]>,
}

impl std::fmt::Debug for Notes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Notes of node {}", self.lock().node)
    }
}

impl Notes {
    /// Of the programs that are pinned there; from now on they know which network namespace is the node's.
    pub(super) fn open(pins: &Pins, node: u64) -> Result<Self, ApplyError> {
        let state = State {
            maps: Maps::open(pins)?,
            node,
            wants: 0,
        };
        let notes = Notes(Arc::new(Mutex::new(state)));
        notes.lock().tell()?;
        Ok(notes)
    }

    /// The programs there have taken the place of those before them.
    pub(super) fn open_anew(&self, pins: &Pins) -> Result<(), ApplyError> {
        let maps = Maps::open(pins)?;
        let mut state = self.lock();
        state.maps = maps;
        state.tell()
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
        })
    }

    /// From now on programs note which endpoint was asked for as what.
    pub fn want_dials(&self) -> Result<(), ApplyError> {
        let mut state = self.lock();
        state.wants |= DIALS;
        state.tell()
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
        let set = self.maps.node.set(0, [self.node, self.wants], 0);
        set.map_err(|error| refused("tell the programs what is wanted of them", &error))
    }
}

impl Maps {
    fn open(pins: &Pins) -> Result<Self, ApplyError> {
        let shaped = |error| refused("open the notes of the socket programs", &error);
        Ok(Maps {
            node: Array::try_from(Map::Array(pinned(pins, "node")?)).map_err(shaped)?,
            outcomes: PerCpuArray::try_from(Map::PerCpuArray(pinned(pins, "outcomes")?))
                .map_err(shaped)?,
            dials: hash(pinned(pins, "dials")?)?,
        })
    }
}
