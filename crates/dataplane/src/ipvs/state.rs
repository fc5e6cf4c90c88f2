//! What should stand in the kernel: the tables of nftables mode, and virtual servers.

use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{Protocol, Scheduler};

use crate::nftables::{self, Spot};

/// A virtual server without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How it chooses.
    pub scheduler: Scheduler,
    /// How long a client is remembered after its last new flow, in seconds; 0 is not at all.
    pub affinity_s: u32,
    /// Endpoints (the kernel's real servers) and their weights, sorted, each once. One of weight 0 only keeps the flows
    /// that it has; TCP has none of these here: its connections keep a server that is gone as long as they last, and
    /// that is left to the target.
    pub endpoints: Box<[(SocketAddr, u32)]>,
}

/// Virtual servers by address, protocol and port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Servers(OrdMap<Spot, Arc<Server>>);

impl Servers {
    /// The virtual server at a place.
    pub fn get(&self, spot: &Spot) -> Option<&Arc<Server>> {
        self.0.get(spot)
    }

    /// All of them, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (&Spot, &Arc<Server>)> {
        self.0.iter()
    }

    pub(crate) fn map(&self) -> &OrdMap<Spot, Arc<Server>> {
        &self.0
    }
}

impl FromIterator<(Spot, Server)> for Servers {
    /// Of what was read from a kernel: endpoints may have any order.
    fn from_iter<I: IntoIterator<Item = (Spot, Server)>>(all: I) -> Self {
        let settled = |(spot, mut server): (Spot, Server)| {
            server.endpoints.sort_unstable();
            (spot, Arc::new(server))
        };
        Servers(all.into_iter().map(settled).collect())
    }
}

/// Everything that ipvs mode wants to stand.
///
/// Two States are equal when the same things stand in the kernel.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) rules: nftables::State,
    servers: Servers,
    /// Those of addresses, and those of node ports at each address of the node: where both have a place, the former has
    /// it. Bookkeeping for updates.
    addressed: OrdMap<Spot, Arc<Server>>,
    node_ports: OrdMap<Spot, Arc<Server>>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules && self.servers == other.servers
    }
}

/// A place at which a Service port wants a virtual server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub spot: Spot,
    pub is_node_port: bool,
    pub server: Arc<Server>,
}

impl State {
    /// What was read: the tables, and the virtual servers.
    pub fn adopted(rules: nftables::State, servers: Servers) -> Self {
        State {
            rules,
            servers,
            ..State::default()
        }
    }

    /// The tables of nf_tables.
    pub fn rules(&self) -> &nftables::State {
        &self.rules
    }

    /// The virtual servers.
    pub fn servers(&self) -> &Servers {
        &self.servers
    }

    /// Takes out what was there and puts in what is there now.
    pub(crate) fn replace(&mut self, old: &[Placed], new: &[Placed]) {
        for placed in old {
            self.side(placed.is_node_port).remove(&placed.spot);
        }
        for placed in new {
            let server = placed.server.clone();
            self.side(placed.is_node_port).insert(placed.spot, server);
        }
        for Placed { spot, .. } in old.iter().chain(new) {
            let first = self.addressed.get(spot).or(self.node_ports.get(spot));
            match first.cloned() {
                Some(server) => drop(self.servers.0.insert(*spot, server)),
                None => drop(self.servers.0.remove(spot)),
            }
        }
    }

    fn side(&mut self, is_node_port: bool) -> &mut OrdMap<Spot, Arc<Server>> {
        match is_node_port {
            true => &mut self.node_ports,
            false => &mut self.addressed,
        }
    }
}

/// Whether flows of a protocol keep an endpoint that its Service does not list any more (R-DRAIN-1; R-STALE-1).
pub const fn is_drained(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp)
}
