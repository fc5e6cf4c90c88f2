//! What should stand in the maps of the socket programs. All maps are persistent: a clone costs O(1).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use portolan_model::Frontend;

use super::outside::Outside;
use crate::nftables;

/// The rules of nftables mode, and the maps of the programs above them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// For every packet that no program has taken care of.
    pub rules: nftables::State,
    /// For sockets of this node.
    pub sockets: Sockets,
    /// For what comes in by the devices to the outside.
    pub outside: Outside,
}

/// The contents of the maps.
///
/// Two are equal when the same things stand in the kernel: how pods are told apart matters to `trace` only, for the
/// programs know it from the socket.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// What is found at each frontend.
    pub services: OrdMap<Frontend, Entry>,
    /// Which endpoint each slot has.
    pub lists: OrdMap<ListKey, Arc<[SocketAddr]>>,
    /// Who is in the lists with whom pods stay: each endpoint once.
    pub members: OrdMap<ListKey, Arc<[SocketAddr]>>,
    /// The addresses at which NodePorts answer.
    pub node_port_ips: OrdMap<IpAddr, ()>,
    pub(crate) pods: Pods,
}

impl PartialEq for Sockets {
    fn eq(&self, other: &Self) -> bool {
        self.services == other.services
            && self.lists == other.lists
            && self.members == other.members
            && self.node_port_ips == other.node_port_ips
    }
}

/// What the programs do at one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The first frontend of the Service port in this family, whose lists these are.
    pub id: Frontend,
    /// For sockets of other network namespaces than the node's.
    pub pod: Option<Deed>,
    /// For sockets of the node's network namespace.
    pub host: Option<Deed>,
    /// Sockets of the node that are bound to an address are not for the programs: only the rules can give them
    /// another source. One that is not bound gets an address of the node by itself.
    pub host_unbound: bool,
    /// A pod stays with its endpoint until it has made no new flow for so many seconds; `None`: it does not stay.
    pub affinity_s: Option<NonZeroU32>,
}

/// What programs do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It goes to one of the endpoints.
    Pick(Pick),
    /// connect(2) fails at once: nobody is there, in the whole cluster.
    Refuse,
}

/// One of the slots of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// The hash of the list: [`ListKey::hash`].
    pub list: u32,
    /// How many slots it has; never 0.
    pub slots: u32,
}

/// The name of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListKey {
    /// Whose it is: [`Entry::id`].
    pub id: Frontend,
    /// A hash of its slots. Should two lists of one Service port have one hash, the slots are overwritten one by one.
    pub hash: u32,
}

/// Which packets come from sockets of pods, as far as `trace` can know.
#[derive(Clone, Debug, Default)]
pub(crate) enum Pods {
    /// Every packet that arrives on an interface may do: nobody is told apart, or nothing depends on it.
    #[default]
    Anybody,
    /// Those from these ranges, in the families that have one; in others, anybody.
    Cidrs(Arc<[IpNet]>),
}
