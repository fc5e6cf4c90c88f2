//! The address plan of a lab: read an address, know its role. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The most nodes of a lab: node 100 would need the host part 110 of the node network.
pub const NODES_MAX: u8 = 99;

/// Where the API server listens inside the fabric.
pub const API_PORT: u16 = 6443;

/// The Service that answers names, as pods' resolv.conf has it: the tenth address, as kubeadm chooses it.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 10);

/// The same Service in both families.
pub fn dns() -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 10);
    [DNS_SERVICE.into(), v6.into()]
}

/// The gateway that every pod sees, a link-local address of the node's end of the pod's link.
pub const POD_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The same for IPv6.
pub const POD_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The fabric's gateway addresses on the node network, with its prefix lengths.
pub fn gateway() -> [IpNet; 2] {
    [
        v4([192, 168, 0, 1], 24),
        v6([0xfd00, 0x192, 0x168, 0, 0, 0, 0, 1], 64),
    ]
}

/// The gateway's addresses on the outside network.
pub fn outside_gateway() -> [IpNet; 2] {
    [
        v4([203, 0, 113, 1], 24),
        v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 1], 64),
    ]
}

/// The outside client's addresses.
pub fn outside() -> [IpNet; 2] {
    [
        v4([203, 0, 113, 2], 24),
        v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 2], 64),
    ]
}

/// All pods of all nodes.
pub fn pods() -> [IpNet; 2] {
    [
        v4([10, 0, 0, 0], 8),
        v6([0xfd00, 0x10, 0, 0, 0, 0, 0, 0], 32),
    ]
}

/// All Services.
pub fn services() -> [IpNet; 2] {
    [
        v4([172, 30, 0, 0], 16),
        v6([0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0], 112),
    ]
}

/// One node of the lab; `number` counts from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodePlan {
    /// 1 to [`NODES_MAX`].
    pub number: u8,
}

impl NodePlan {
    /// The node that has this name ("n1" …), if the plan has room for it.
    pub fn named(name: &str) -> Option<NodePlan> {
        let number: u8 = name.strip_prefix('n')?.parse().ok()?;
        let plan = NodePlan { number };
        ((1..=NODES_MAX).contains(&number) && plan.name() == name).then_some(plan)
    }

    /// "n1" …
    pub fn name(self) -> String {
        format!("n{}", self.number)
    }

    /// The node's addresses on the node network.
    pub fn addresses(self) -> [IpNet; 2] {
        let host = 10 + self.number;
        [
            v4([192, 168, 0, host], 24),
            v6([0xfd00, 0x192, 0x168, 0, 0, 0, 0, decimal_digits(host)], 64),
        ]
    }

    /// The same without prefix lengths.
    pub fn ips(self) -> [IpAddr; 2] {
        self.addresses().map(|net| net.addr())
    }

    /// The node's pod networks.
    pub fn pod_cidrs(self) -> [IpNet; 2] {
        [
            v4([10, self.number, 0, 0], 24),
            v6(
                [0xfd00, 0x10, decimal_digits(self.number), 0, 0, 0, 0, 0],
                64,
            ),
        ]
    }
}

/// All nodes of a lab of `count` nodes.
pub fn nodes(count: u8) -> impl Iterator<Item = NodePlan> + Clone {
    (1..=count.min(NODES_MAX)).map(|number| NodePlan { number })
}

/// The number that looks in hexadecimal as `number` does in decimal: 11 becomes 0x11, so that fd00:192:168::11 reads like 192.168.0.11.
pub fn decimal_digits(number: u8) -> u16 {
    let number = u16::from(number);
    number / 100 * 256 + number / 10 % 10 * 16 + number % 10
}

fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    Ipv4Net::new(octets.into(), prefix)
        .expect("invariant: the plan's prefixes are valid")
        .into()
}

fn v6(segments: [u16; 8], prefix: u8) -> IpNet {
    Ipv6Net::new(segments.into(), prefix)
        .expect("invariant: the plan's prefixes are valid")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_alike_in_both_families() {
        let node = NodePlan::named("n12").unwrap();
        assert_eq!(
            node.ips().map(|ip| ip.to_string()),
            ["192.168.0.22", "fd00:192:168::22"]
        );
        assert_eq!(
            node.pod_cidrs().map(|net| net.to_string()),
            ["10.12.0.0/24", "fd00:10:12::/64"]
        );
    }

    #[test]
    fn only_names_of_the_plan_are_nodes() {
        for name in ["n0", "n100", "n01", "x1", "n", "n1 "] {
            assert_eq!(NodePlan::named(name), None, "{name}");
        }
    }
}
