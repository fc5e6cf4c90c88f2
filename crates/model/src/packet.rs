//! The question and the answer of the oracle: the first packet of a flow, and what must become of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::Protocol;
use crate::node::{LocalPods, NodeFacts};

/// Who sends a packet, as far as Service semantics care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// A pod, by the node's [`LocalPods`] rule.
    Pod,
    /// A process of the node itself: its packets enter through the output hook.
    Host,
    /// Anybody else: another node or a client outside the cluster.
    Outside,
}

/// The first packet of a flow, as it is before any translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// Name of the interface it arrives on; `None` when a process of the node sends it.
    pub interface: Option<Arc<str>>,
}

impl Packet {
    /// Who sent this packet, seen from `node`.
    pub fn origin(&self, node: &NodeFacts) -> Origin {
        let Some(interface) = &self.interface else {
            return Origin::Host;
        };
        let source = self.source.ip();
        let is_pod = match &node.local_pods {
            LocalPods::Unknown => false,
            LocalPods::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&source)),
            LocalPods::Interface(name) => interface == name,
            LocalPods::InterfacePrefix(prefix) => interface.starts_with(&**prefix),
        };
        if is_pod { Origin::Pod } else { Origin::Outside }
    }
}

/// What becomes of the first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to one of these endpoints; [`crate::Snapshot::shares`] says with which chance.
    /// The value says whether the source address is rewritten to the node's (masquerade).
    Deliver(BTreeMap<SocketAddr, bool>),
    /// It is answered with an error (TCP reset or ICMP unreachable), at once.
    Reject,
    /// It is dropped without an answer.
    Drop,
    /// It is none of our business and goes its way untouched.
    Pass,
}

impl Verdict {
    /// The destination addresses of a [`Verdict::Deliver`], else nothing.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let choices = match self {
            Verdict::Deliver(choices) => Some(choices),
            _ => None,
        };
        choices.into_iter().flat_map(|c| c.keys().copied())
    }
}

/// True when a packet from `source` that is delivered to `endpoint` would come back to its sender.
pub(crate) fn is_hairpin(source: IpAddr, endpoint: SocketAddr) -> bool {
    source == endpoint.ip()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_a_pod_when_pods_are_not_known() {
        let from = |interface: Option<&str>| {
            let packet = Packet {
                protocol: Protocol::Tcp,
                source: "10.1.0.10:40000".parse().unwrap(),
                destination: "172.30.0.1:80".parse().unwrap(),
                interface: interface.map(Into::into),
            };
            packet.origin(&NodeFacts::default())
        };
        assert_eq!(from(Some("pod0")), Origin::Outside);
        assert_eq!(from(None), Origin::Host);
    }
}
