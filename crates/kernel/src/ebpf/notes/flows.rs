//! Sockets whose endpoint is gone. conntrack cannot lead them elsewhere: the kernel has connected them there.
//!
//! A socket that is not connected asks again with its next datagram when its flow is forgotten. One that is connected is
//! ended, and its process told: it connects anew, as a process does whose connection has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use aya::maps::{HashMap, MapData, MapError};
use portolan_dataplane::ebpf::read_endpoint;
use portolan_model::reset::{Connection, Fate, Stage};
use portolan_model::{ApplyError, Flow, Listener, Protocol};

use super::{Notes, State};
use crate::ebpf::maps::removed;
use crate::ebpf::refused;
use crate::sockets::Connected;

/// Bytes of `struct flow`, `struct stuck` and `struct peer` of ebpf/sockets.c.
pub(super) const FLOW_LEN: usize = 32;
pub(super) const STUCK_LEN: usize = 24;
pub(super) const PEER_LEN: usize = 40;

impl Notes {
    /// Forgets every flow of UDP that is stale, and ends connected sockets of which that is so. Says how many there were.
    pub fn sweep(&self, is_stale: impl Fn(&Flow) -> bool) -> Result<u64, ApplyError> {
        let mut state = self.lock();
        let forgotten = state.forget_flows(&is_stale)?;
        let doomed = peers(&state.maps.datagram_peers, Protocol::Udp, &is_stale)?;
        let ended = state.end(Protocol::Udp, &doomed, |_, _| true)?;
        Ok(forgotten + ended)
    }

    /// Asks for the fate of every TCP connection that a program has made, and ends those that are to be reset or
    /// forgotten. Says how many there were.
    pub fn reset(&self, fate: impl Fn(&Connection) -> Fate + Sync) -> Result<u64, ApplyError> {
        let state = self.lock();
        let connection = |client, flow: Flow, stage| Connection {
            client,
            flow,
            stage,
        };
        // Whoever is spared in any stage is so in this one.
        let concerns = |flow: &Flow| {
            let client = flow.replier;
            fate(&connection(client, *flow, Stage::Open)) != Fate::Stays
        };
        let doomed = peers(&state.maps.peers, Protocol::Tcp, concerns)?;
        state.end(Protocol::Tcp, &doomed, |socket, flow| {
            let stage = match socket.is_opening {
                true => Stage::Opening,
                false => Stage::Open,
            };
            fate(&connection(socket.here, *flow, stage)) != Fate::Stays
        })
    }

    /// Ends the connections to these endpoints that have not been answered: connect(2) fails at once. Says how many
    /// there were.
    pub fn leave(&self, listeners: &BTreeSet<Listener>) -> Result<u64, ApplyError> {
        let state = self.lock();
        let concerns = |flow: &Flow| {
            listeners.contains(&Listener {
                protocol: Protocol::Tcp,
                address: flow.replier,
            })
        };
        let doomed = peers(&state.maps.peers, Protocol::Tcp, concerns)?;
        state.end(Protocol::Tcp, &doomed, |socket, _| socket.is_opening)
    }
}

impl State {
    fn forget_flows(&mut self, is_stale: impl Fn(&Flow) -> bool) -> Result<u64, ApplyError> {
        let flows = &mut self.maps.flows;
        let mut forget = || -> Result<u64, MapError> {
            let mut stale = Vec::new();
            for entry in flows.iter() {
                let (key, value) = match entry {
                    // It has gone meanwhile.
                    Err(MapError::KeyNotFound) => continue,
                    entry => entry?,
                };
                let found = read_flow(&key, &value);
                let found = found.map(|(asked, to)| flow(Protocol::Udp, asked, to));
                if found.is_some_and(|flow| is_stale(&flow)) {
                    stale.push(key);
                }
            }
            // What the answers of such flows are taken for stays: some may be under way.
            stale
                .iter()
                .try_for_each(|key| removed(flows.remove(key)))?;
            Ok(stale.len() as u64)
        };
        forget().map_err(|error| refused("forget the flows of sockets", &error))
    }

    /// Ends the sockets with these cookies, as far as they still have that endpoint, in every namespace that is known.
    fn end(
        &self,
        protocol: Protocol,
        doomed: &BTreeMap<u64, Flow>,
        is_doomed: impl Fn(&Connected, &Flow) -> bool + Sync,
    ) -> Result<u64, ApplyError> {
        if doomed.is_empty() {
            return Ok(0);
        }
        self.namespaces.end(protocol, |socket| {
            let flow = doomed.get(&socket.cookie);
            flow.is_some_and(|flow| flow.replier == socket.there && is_doomed(socket, flow))
        })
    }
}

/// The connected sockets of which `concerns` says so, by their cookies.
fn peers(
    map: &HashMap<MapData, u64, [u8; PEER_LEN]>,
    protocol: Protocol,
    concerns: impl Fn(&Flow) -> bool,
) -> Result<BTreeMap<u64, Flow>, ApplyError> {
    let mut all = BTreeMap::new();
    for entry in map.iter() {
        let (cookie, peer) = match entry {
            Err(MapError::KeyNotFound) => continue,
            entry => entry.map_err(|error| refused("read who is connected", &error))?,
        };
        let found = read_peer(&peer).map(|(to, asked)| flow(protocol, asked, to));
        if let Some(flow) = found.filter(&concerns) {
            all.insert(cookie, flow);
        }
    }
    Ok(all)
}

fn flow(protocol: Protocol, destination: SocketAddr, replier: SocketAddr) -> Flow {
    Flow {
        protocol,
        destination,
        replier,
    }
}

/// `struct peer`.
fn read_peer(bytes: &[u8; PEER_LEN]) -> Option<(SocketAddr, SocketAddr)> {
    let (to, asked) = bytes.split_first_chunk()?;
    Some((read_endpoint(to)?, read_endpoint(asked.first_chunk()?)?))
}

/// What was asked for, and the endpoint: `struct flow` and `struct stuck`.
fn read_flow(key: &[u8; FLOW_LEN], value: &[u8; STUCK_LEN]) -> Option<(SocketAddr, SocketAddr)> {
    let asked = key.get(8..)?.first_chunk()?;
    Some((read_endpoint(asked)?, read_endpoint(value.first_chunk()?)?))
}
