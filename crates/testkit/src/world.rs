//! The world in which scenarios play: the address plan (CONTRIBUTING.md) around the node `n1`.
//!
//! ```text
//!   outside 203.0.113.0/24 ──┐                       ┌── pods of n1: 10.1.0.0/24, each a namespace
//!   2001:db8:113::/64        ├── n1 192.168.0.11 ────┤
//!   n2, n3, … and their pods ┘   (under test)        └── processes of n1 itself
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use portolan_model::{Family, LocalPods, NodeFacts, Packet, Protocol};

/// Source port of every packet that is only thought of; the real kernel chooses its own.
const SOURCE_PORT: u16 = 40_000;

/// Where an address of the plan lives, seen from `n1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Home {
    /// A pod of `n1`.
    Pod,
    /// The node `n1` itself.
    Node,
    /// Another node, or a pod of one.
    OtherNode,
    /// Outside the cluster.
    Outside,
}

/// The facts about `n1` of which a scenario names only what differs.
pub fn node() -> NodeFacts {
    let addresses = [node_address(Family::V4, 1), node_address(Family::V6, 1)];
    NodeFacts {
        name: "n1".into(),
        zone: None,
        addresses: addresses.into(),
        node_port_addresses: addresses.into(),
        local_pods: LocalPods::Cidrs(vec![net("10.0.0.0/8"), net("fd00:10::/32")]),
        masquerade_all: false,
        service_cidrs: vec![net("172.30.0.0/16"), net("fd00:172:30::/112")],
    }
}

/// Address of the `index`th node: 192.168.0.11 and fd00:192:168::11 for the first.
pub fn node_address(family: Family, index: u8) -> IpAddr {
    let last = 10 + index;
    match family {
        Family::V4 => Ipv4Addr::new(192, 168, 0, last).into(),
        // The decimal digits are written into the hexadecimal group, so that both families read alike.
        Family::V6 => {
            let digits = u16::from(last / 10) * 16 + u16::from(last % 10);
            Ipv6Addr::new(0xfd00, 0x192, 0x168, 0, 0, 0, 0, digits).into()
        }
    }
}

/// Where an address of the plan lives; `None` for one that nobody has (virtual, or not of the plan).
pub fn home(address: IpAddr) -> Option<Home> {
    let within = |cidr: &str| net(cidr).contains(&address);
    if address == node_address(Family::V4, 1) || address == node_address(Family::V6, 1) {
        return Some(Home::Node);
    }
    match () {
        _ if within("10.1.0.0/24") || within("fd00:10:1::/64") => Some(Home::Pod),
        _ if within("10.0.0.0/8") || within("fd00:10::/32") => Some(Home::OtherNode),
        _ if within("192.168.0.0/24") || within("fd00:192:168::/64") => Some(Home::OtherNode),
        _ if address.is_loopback() => Some(Home::Node),
        _ if address == gateway(Family::V4) || address == gateway(Family::V6) => Some(Home::Node),
        _ if within("203.0.113.0/24") || within("2001:db8:113::/64") => Some(Home::Outside),
        _ => None,
    }
}

/// The address of `n1` on the link to the outside.
pub fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(203, 0, 113, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1).into(),
    }
}

/// An address of the Service range that no scenario gives to a Service.
pub fn unallocated(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 30, 9, 99).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0x9999).into(),
    }
}

/// The first packet of a flow of the sender `from`: `pod`, `host`, `node`, `outside`, or an address of the plan;
/// `host as ADDRESS` is a process of the node with another source address.
pub fn packet(
    from: &str,
    family: Family,
    protocol: Protocol,
    to: SocketAddr,
) -> Result<Packet, String> {
    let as_v6 = |v4: &str, v6: &str| match family {
        Family::V4 => v4.to_owned(),
        Family::V6 => v6.to_owned(),
    };
    let named = match from {
        "pod" => as_v6("10.1.0.2", "fd00:10:1::2"),
        "host" => node_address(family, 1).to_string(),
        "node" => node_address(family, 2).to_string(),
        "outside" => as_v6("203.0.113.2", "2001:db8:113::2"),
        other => other.trim_start_matches("host as ").to_owned(),
    };
    let source: IpAddr = named
        .parse()
        .map_err(|_| format!("from: nobody is called {from:?}"))?;
    let home = match from.starts_with("host as ") {
        true => Home::Node,
        false => {
            home(source).ok_or_else(|| format!("from: {source} has no home in the address plan"))?
        }
    };
    let interface = match home {
        Home::Node => None,
        Home::Pod => Some("pod".into()),
        Home::OtherNode => Some("fabric".into()),
        Home::Outside => Some("outside".into()),
    };
    Ok(Packet {
        protocol,
        source: SocketAddr::new(source, SOURCE_PORT),
        destination: to,
        interface,
    })
}

/// Parses a range that is written in the code.
pub(crate) fn net(text: &str) -> IpNet {
    text.parse()
        .expect("invariant: ranges in the code are well formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_a_node_read_alike() {
        assert_eq!(node_address(Family::V4, 1).to_string(), "192.168.0.11");
        assert_eq!(node_address(Family::V6, 1).to_string(), "fd00:192:168::11");
        assert_eq!(node_address(Family::V6, 10).to_string(), "fd00:192:168::20");
    }

    #[test]
    fn addresses_have_homes() {
        let home = |text: &str| home(text.parse().unwrap());
        assert_eq!(home("10.1.0.2"), Some(Home::Pod));
        assert_eq!(home("10.2.0.2"), Some(Home::OtherNode));
        assert_eq!(home("fd00:10:1::2"), Some(Home::Pod));
        assert_eq!(home("203.0.113.1"), Some(Home::Node));
        assert_eq!(home("2001:db8:113::2"), Some(Home::Outside));
        assert_eq!(home("172.30.0.1"), None);
    }
}
