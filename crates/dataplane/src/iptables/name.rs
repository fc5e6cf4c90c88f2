//! The names of chains: byte for byte those of kube-proxy, since other tools look for them.

use std::fmt;
use std::net::SocketAddr;

use portolan_model::{PortKey, Protocol};
use sha2::{Digest, Sha256};

/// A table of the kernel that has chains of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Nothing but the canary.
    Mangle,
    /// Where destinations and sources are rewritten.
    Nat,
    /// Where packets are refused that no rule of `nat` has rewritten.
    Filter,
}

impl Table {
    /// All, in the order in which they are listed.
    pub const ALL: [Table; 3] = [Table::Mangle, Table::Nat, Table::Filter];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Mangle => "mangle",
            Table::Nat => "nat",
            Table::Filter => "filter",
        }
    }

    /// The table with this name.
    pub fn named(name: &str) -> Option<Self> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// Chains that stand in every kernel, whatever Services there are; the same name may stand in several tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fixed {
    /// Stands empty in every table: when it is gone, somebody has flushed everything.
    Canary,
    /// Sets the bit of the packet mark that asks for masquerade.
    MarkMasq,
    /// Marks whoever is no pod, where one condition cannot say that.
    MarkForeign,
    /// Rewrites the source of marked packets.
    Postrouting,
    /// `nat`: a line for each address frontend. `filter`: ClusterIPs that refuse.
    Services,
    /// `nat`: a line for each NodePort. `filter`: ports of health checks, which are let in.
    NodePorts,
    /// `filter`: external addresses that refuse.
    ExternalServices,
    /// `filter`: guarded LoadBalancer addresses, for sources that may not enter.
    Firewall,
    /// `filter`: lets masqueraded packets and answers pass, whatever the node's policy for forwarding is.
    Forward,
    /// `filter`: NodePorts that refuse.
    RefusedNodePorts,
    /// `filter`: answers with an error.
    Reject,
    /// `filter`: ClusterIPs, of which unused ports are rejected.
    ClusterIps,
    /// `filter`: where ClusterIPs lie that are in none of the known Service ranges.
    ClusterBlocks,
}

impl Fixed {
    /// All of them.
    pub const ALL: [Fixed; 13] = [
        Fixed::Canary,
        Fixed::MarkMasq,
        Fixed::MarkForeign,
        Fixed::Postrouting,
        Fixed::Services,
        Fixed::NodePorts,
        Fixed::ExternalServices,
        Fixed::Firewall,
        Fixed::Forward,
        Fixed::RefusedNodePorts,
        Fixed::Reject,
        Fixed::ClusterIps,
        Fixed::ClusterBlocks,
    ];

    /// Its name in the kernel: kube-proxy's where kube-proxy has such a chain.
    pub const fn name(self) -> &'static str {
        match self {
            Fixed::Canary => "KUBE-PROXY-CANARY",
            Fixed::MarkMasq => "KUBE-MARK-MASQ",
            Fixed::MarkForeign => "PORTOLAN-MARK-FOREIGN",
            Fixed::Postrouting => "KUBE-POSTROUTING",
            Fixed::Services => "KUBE-SERVICES",
            Fixed::NodePorts => "KUBE-NODEPORTS",
            Fixed::ExternalServices => "KUBE-EXTERNAL-SERVICES",
            Fixed::Firewall => "KUBE-PROXY-FIREWALL",
            Fixed::Forward => "KUBE-FORWARD",
            Fixed::RefusedNodePorts => "PORTOLAN-NODEPORTS",
            Fixed::Reject => "PORTOLAN-REJECT",
            Fixed::ClusterIps => "PORTOLAN-CLUSTER-IPS",
            Fixed::ClusterBlocks => "PORTOLAN-CLUSTER-BLOCKS",
        }
    }
}

/// What the chain of a Service port is for. All stand in `nat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// One endpoint.
    Endpoint,
    /// Chooses among the endpoints of the policy Cluster.
    Cluster,
    /// Chooses among the endpoints of the policy Local.
    Local,
    /// All external frontends.
    External,
    /// Who may enter guarded LoadBalancer addresses.
    Guard,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [
        Role::Endpoint,
        Role::Cluster,
        Role::Local,
        Role::External,
        Role::Guard,
    ];

    /// How names of such chains start.
    pub const fn prefix(self) -> &'static str {
        match self {
            Role::Endpoint => "KUBE-SEP-",
            Role::Cluster => "KUBE-SVC-",
            Role::Local => "KUBE-SVL-",
            Role::External => "KUBE-EXT-",
            Role::Guard => "KUBE-FW-",
        }
    }
}

/// The first 80 bits of a SHA-256: sixteen letters in base 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 10]);

impl Hash {
    /// The smallest.
    pub(crate) const FIRST: Hash = Hash([0; 10]);

    /// Of a Service port, e.g. `ns1/svc1:p80` and `tcp`.
    pub fn of_port(key: &PortKey) -> Self {
        Hash::of(&format!("{}{}", port_name(key), protocol(key.protocol)))
    }

    /// Of one endpoint of a Service port.
    pub fn of_endpoint(key: &PortKey, endpoint: SocketAddr) -> Self {
        let port = port_name(key);
        Hash::of(&format!("{port}{}{endpoint}", protocol(key.protocol)))
    }

    fn of(text: &str) -> Self {
        let mut first = [0; 10];
        first.copy_from_slice(&Sha256::digest(text.as_bytes())[..10]);
        Hash(first)
    }

    /// Reads what [`fmt::Display`] writes.
    fn read(text: &str) -> Option<Self> {
        let mut bits: u128 = 0;
        for letter in text.bytes() {
            let value = ALPHABET.iter().position(|known| *known == letter)?;
            bits = bits << 5 | value as u128;
        }
        let bytes = bits.to_be_bytes();
        (text.len() == 16).then(|| Hash(std::array::from_fn(|index| bytes[index + 6])))
    }
}

/// RFC 4648, section 6.
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self
            .0
            .iter()
            .fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let letter = |index: u32| ALPHABET[(bits >> (75 - 5 * index) & 31) as usize];
        (0..16).try_for_each(|index| write!(f, "{}", char::from(letter(index))))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A chain of ours, in whichever table. Ordered so that whoever is jumped to by a chain of a Service comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chain {
    /// A chain of one Service port.
    Service(Role, Hash),
    /// One that always stands.
    Fixed(Fixed),
}

impl Chain {
    /// Whether chains of Services lead to it: it must stand before them.
    pub(crate) fn is_leaf(&self) -> bool {
        matches!(self, Chain::Fixed(Fixed::MarkMasq | Fixed::MarkForeign))
    }

    /// The chain with this name, if it is one that we could have made.
    pub fn named(name: &str) -> Option<Self> {
        let fixed = Fixed::ALL.into_iter().find(|fixed| fixed.name() == name);
        if let Some(fixed) = fixed {
            return Some(Chain::Fixed(fixed));
        }
        let of_role = |role: Role| {
            let hash = Hash::read(name.strip_prefix(role.prefix())?)?;
            Some(Chain::Service(role, hash))
        };
        Role::ALL.into_iter().find_map(of_role)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chain::Service(role, hash) => write!(f, "{}{hash}", role.prefix()),
            Chain::Fixed(fixed) => f.write_str(fixed.name()),
        }
    }
}

/// How kube-proxy names a Service port: `namespace/name:port`, or `namespace/name` for a port without a name.
pub(crate) fn port_name(key: &PortKey) -> String {
    match key.port.is_empty() {
        true => key.service.to_string(),
        false => format!("{}:{}", key.service, key.port),
    }
}

/// The protocol as iptables writes it.
pub(crate) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that kube-proxy gives to the same Services.
    #[test]
    fn names_are_kube_proxys() {
        let port = |ns, name, port| PortKey::new(ns, name, port, Protocol::Tcp);
        let ports = [
            (port("ns1", "svc1", "p80"), "XPGD46QRK7WJZT7O"),
            (port("ns2", "svc2", "p8080"), "2VJB64SDSIJUP5T6"),
            (port("ns3", "svc3", "p80"), "X27LE4BHSL4DOUIK"),
        ];
        for (key, hash) in &ports {
            assert_eq!(Hash::of_port(key).to_string(), *hash);
        }
        let endpoints = [
            (&ports[0].0, "10.180.0.1:80", "SXIVWICOYRO3J4NJ"),
            (&ports[0].0, "10.0.1.1:80", "SNQ3ZNILQDEJNDQO"),
            (&ports[1].0, "10.0.2.1:8080", "UHEGFW77JX3KXTOV"),
        ];
        for (key, address, hash) in endpoints {
            let endpoint = address.parse().expect("an address and port");
            assert_eq!(Hash::of_endpoint(key, endpoint).to_string(), hash);
        }
    }

    #[test]
    fn names_can_be_read() {
        let hash = Hash::of("anything");
        let mut all: Vec<Chain> = Fixed::ALL.into_iter().map(Chain::Fixed).collect();
        all.extend(Role::ALL.map(|role| Chain::Service(role, hash)));
        for chain in all {
            assert_eq!(Chain::named(&chain.to_string()), Some(chain));
        }
        for foreign in [
            "",
            "INPUT",
            "KUBE-SVC-",
            "KUBE-SVC-1",
            "KUBE-XLB-XPGD46QRK7WJZT7O",
        ] {
            assert_eq!(Chain::named(foreign), None);
        }
        assert_eq!(
            Chain::named("KUBE-SVC-XPGD46QRK7WJZT71"),
            None,
            "1 is no letter of base 32"
        );
    }
}
