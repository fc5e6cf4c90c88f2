//! What should stand in the maps of the programs at devices. A clone costs O(1).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use portolan_model::{Frontend, Protocol};

use crate::ebpf::state::{ListKey, Pick};

/// The contents of the maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outside {
    /// What is found at each frontend.
    pub services: OrdMap<Frontend, Served>,
    /// Which endpoint each slot has.
    pub lists: OrdMap<ListKey, Arc<[SocketAddr]>>,
    /// The addresses at which NodePorts answer.
    pub node_port_ips: OrdMap<IpAddr, ()>,
    /// Sources that are pods.
    pub pods: OrdMap<IpNet, ()>,
}

/// What the programs do at one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// The first frontend of the Service port in this family, whose list it is.
    pub id: Frontend,
    /// Where flows go; `None` for a frontend of the rules that would otherwise be taken for a NodePort.
    pub pick: Option<Pick>,
    /// How the slot is chosen.
    pub by: By,
    /// Endpoints see an address of the node.
    pub masquerade: bool,
    /// Pods get the same; otherwise theirs is left to the rules.
    pub pods: bool,
}

/// What chooses a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// Chance.
    #[default]
    Chance,
    /// A hash of the client's address.
    Address,
    /// A hash of the client's address and port.
    Flow,
}

/// Who speaks with whom, as it stands in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Of TCP or UDP.
    pub protocol: Protocol,
    /// The sender.
    pub from: SocketAddr,
    /// The receiver.
    pub to: SocketAddr,
}

impl Tuple {
    /// That of an answer.
    pub fn turned(self) -> Self {
        Tuple {
            from: self.to,
            to: self.from,
            ..self
        }
    }
}

/// One direction of a flow that the programs translate; programs write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What its packets become. Turned round, it is the key of the other direction.
    pub becomes: Tuple,
    /// When a packet was last seen, in seconds of the monotonic clock.
    pub seen_s: u32,
    /// The program itself sends its packets on.
    pub is_sent: bool,
    /// From the endpoint to the client.
    pub is_back: bool,
    /// The endpoint has sent something.
    pub is_answered: bool,
    /// Both sides have said that they are done, or one has broken it off.
    pub has_ended: bool,
}
