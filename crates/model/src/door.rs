//! Where the relay of userspace mode waits: one address of the node for each family, one port for each origin.
//!
//! The kernel's rules know whom a packet comes from, the relay's sockets do not; so the rules say it by the port that
//! they send a flow to. Both halves of the mode compute the same doors from the same facts about the node.

use std::net::{IpAddr, SocketAddr};

use crate::name::Family;
use crate::node::NodeFacts;
use crate::packet::Origin;

/// The ports of the relay's doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// The first of three in a row: for pods, for the host, for the outside.
    pub first_port: u16,
}

impl Default for Doors {
    /// 10270 to 10272: below the range of node ports and above what the parts of Kubernetes listen on.
    fn default() -> Self {
        Doors { first_port: 10270 }
    }
}

/// All origins, in the order of their ports.
const ORIGINS: [Origin; 3] = [Origin::Pod, Origin::Host, Origin::Outside];

impl Doors {
    /// The address of all doors of one family: the first one that NodePorts answer on, else the node's first.
    /// `None` when the node has none that packets from elsewhere can be sent to.
    pub fn address(node: &NodeFacts, family: Family) -> Option<IpAddr> {
        let reached = |ip: &&IpAddr| Family::of(**ip) == family && !is_bound_to_link(ip);
        let mut all = node.node_port_addresses.iter().chain(&node.addresses);
        all.find(reached).copied()
    }

    /// The door for flows of `origin`.
    pub fn at(&self, node: &NodeFacts, family: Family, origin: Origin) -> Option<SocketAddr> {
        let address = Doors::address(node, family)?;
        let index = ORIGINS.iter().position(|known| *known == origin)?;
        let port = self.first_port.checked_add(index as u16)?;
        Some(SocketAddr::new(address, port))
    }

    /// All doors of one family, with the origin of the flows that come there.
    pub fn all(&self, node: &NodeFacts, family: Family) -> Vec<(SocketAddr, Origin)> {
        let door = |origin| Some((self.at(node, family, origin)?, origin));
        ORIGINS.into_iter().filter_map(door).collect()
    }

    /// Whether `address` is one of them.
    pub fn leads_to(&self, node: &NodeFacts, address: SocketAddr) -> bool {
        let all = self.all(node, Family::of(address.ip()));
        all.iter().any(|(door, _)| *door == address)
    }
}

/// Loopback and link-local addresses: rules cannot send a packet there that came from elsewhere.
fn is_bound_to_link(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(addresses: &[&str], node_ports: &[&str]) -> NodeFacts {
        let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        NodeFacts {
            addresses: all(addresses),
            node_port_addresses: all(node_ports),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn a_door_has_an_address_that_everybody_reaches() {
        let own = ["127.0.0.1", "10.1.0.1", "169.254.0.1", "::1", "fe80::1"];
        for (node_ports, wanted) in [
            (&["192.168.0.11"][..], Some("192.168.0.11")),
            (&["127.0.0.1", "169.254.0.1"], Some("10.1.0.1")),
        ] {
            let node = node(&own, node_ports);
            let wanted = wanted.map(|text| text.parse().unwrap());
            assert_eq!(Doors::address(&node, Family::V4), wanted);
            assert_eq!(Doors::address(&node, Family::V6), None);
        }
    }

    #[test]
    fn every_origin_has_a_door_of_its_own() {
        let node = node(&["192.168.0.11"], &[]);
        let doors = Doors { first_port: 10270 };
        let all = doors.all(&node, Family::V4);
        let ports: Vec<u16> = all.iter().map(|(door, _)| door.port()).collect();
        assert_eq!(ports, [10270, 10271, 10272]);
        assert_eq!(doors.at(&node, Family::V4, Origin::Outside), Some(all[2].0));
        assert!(all.iter().all(|(door, _)| doors.leads_to(&node, *door)));
        assert!(!doors.leads_to(&node, "192.168.0.11:10273".parse().unwrap()));
        let last = Doors { first_port: 65_535 };
        assert_eq!(last.all(&node, Family::V4).len(), 1);
    }
}
