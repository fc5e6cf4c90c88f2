//! Facts about our own node, out of options, its Node object and its interfaces.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_k8s::wire;
use portolan_model::{Family, LocalPods, NodeFacts};

use crate::address::{parse_cidr, parse_ip};

/// How traffic of pods is recognised (kube-proxy's `--detect-local-mode`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// Source in one of these ranges; none given means that pods cannot be told apart.
    ClusterCidr(Vec<IpNet>),
    /// Source in `spec.podCIDRs` of the node.
    NodeCidr,
    /// Arrives on this interface.
    BridgeInterface(String),
    /// Arrives on an interface whose name starts so.
    InterfaceNamePrefix(String),
}

/// On which of the node's addresses NodePorts answer (`--nodeport-addresses`). Loopback addresses never do, whatever is
/// written here (R-NODEPORT-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// The node's primary addresses, one per family: its InternalIPs.
    pub primary: bool,
    /// And every address that lies in one of these ranges.
    pub ranges: Vec<IpNet>,
}

impl NodePortAddresses {
    /// The default of nftables mode.
    pub const PRIMARY: Self = NodePortAddresses {
        primary: true,
        ranges: Vec::new(),
    };

    /// The addresses in these ranges only.
    pub fn within(ranges: Vec<IpNet>) -> Self {
        let primary = false;
        NodePortAddresses { primary, ranges }
    }

    /// Those of `addresses`, which are the node's, on which NodePorts answer; `listed` are those of its Node object, the
    /// first of each family is the primary one.
    pub fn choose(&self, listed: &[IpAddr], addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let inside = |ip: &&IpAddr| self.ranges.iter().any(|range| range.contains(*ip));
        let mut chosen: BTreeSet<IpAddr> = addresses.iter().filter(inside).copied().collect();
        if self.primary {
            chosen.extend(primary(listed, addresses));
        }
        chosen.retain(|ip| !ip.is_loopback());
        chosen
    }
}

/// What the operator has decided about this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Name of our Node object.
    pub name: String,
    /// `--bind-address`: the primary address of its family, instead of what the Node object says.
    pub primary_address: Option<IpAddr>,
    /// How pods are recognised.
    pub detect_local: DetectLocal,
    /// Where NodePorts answer.
    pub node_port_addresses: NodePortAddresses,
    /// `--masquerade-all`.
    pub masquerade_all: bool,
    /// Ranges that ClusterIPs come from, as far as known.
    pub service_cidrs: Vec<IpNet>,
}

/// Puts the facts together. `interfaces` are the addresses of the network namespace; without them those of the Node
/// object count. `None`: something is missing without which rules would be wrong (pod ranges in mode NodeCIDR).
pub(crate) fn facts(
    options: &NodeOptions,
    node: Option<&wire::Node>,
    interfaces: &BTreeSet<IpAddr>,
) -> Option<NodeFacts> {
    let mut listed = node.map(listed_addresses).unwrap_or_default();
    // The first one of its family is the primary one.
    listed.splice(..0, options.primary_address);
    let addresses = match interfaces.is_empty() {
        true => listed.iter().copied().collect(),
        false => interfaces.clone(),
    };
    let local_pods = match &options.detect_local {
        DetectLocal::ClusterCidr(cidrs) if cidrs.is_empty() => LocalPods::Unknown,
        DetectLocal::ClusterCidr(cidrs) => LocalPods::Cidrs(cidrs.clone()),
        DetectLocal::NodeCidr => {
            LocalPods::Cidrs(node.map(pod_cidrs).filter(|cidrs| !cidrs.is_empty())?)
        }
        DetectLocal::BridgeInterface(name) => LocalPods::Interface(name.as_str().into()),
        DetectLocal::InterfaceNamePrefix(prefix) => {
            LocalPods::InterfacePrefix(prefix.as_str().into())
        }
    };
    let node_port_addresses = options.node_port_addresses.choose(&listed, &addresses);
    let zone = node.and_then(|node| {
        node.metadata
            .labels
            .as_ref()?
            .get("topology.kubernetes.io/zone")
    });
    Some(NodeFacts {
        name: options.name.as_str().into(),
        zone: zone
            .filter(|zone| !zone.is_empty())
            .map(|zone| Arc::from(zone.as_str())),
        addresses,
        node_port_addresses,
        local_pods,
        masquerade_all: options.masquerade_all,
        service_cidrs: options.service_cidrs.clone(),
    })
}

/// Whether the node stays: it is not being deleted, and no autoscaler is about to.
pub(crate) fn is_eligible(node: &wire::Node) -> bool {
    let mut taints = node.spec.taints.iter().flatten();
    node.metadata.deletion_timestamp.is_none()
        && !taints.any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler")
}

/// InternalIPs first, then ExternalIPs, in the order of the object.
fn listed_addresses(node: &wire::Node) -> Vec<IpAddr> {
    let all = node.status.addresses.as_deref().unwrap_or_default();
    let of = |wanted: &'static str| {
        let typed = all
            .iter()
            .filter(move |a| a.r#type.as_deref() == Some(wanted));
        typed.filter_map(|a| parse_ip(a.address.as_deref()?))
    };
    of("InternalIP").chain(of("ExternalIP")).collect()
}

/// The first listed address of each family. Without a Node object, every address that others can reach.
fn primary(listed: &[IpAddr], addresses: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let first = |family: Family| listed.iter().copied().find(|ip| Family::of(*ip) == family);
    let chosen: BTreeSet<IpAddr> = Family::ALL.into_iter().filter_map(first).collect();
    let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    match chosen.is_empty() {
        true => addresses
            .iter()
            .filter(|ip| !link_local(ip))
            .copied()
            .collect(),
        false => chosen,
    }
}

fn pod_cidrs(node: &wire::Node) -> Vec<IpNet> {
    let list = node.spec.pod_cidrs.as_deref().unwrap_or_default();
    let single = node.spec.pod_cidr.iter().filter(|_| list.is_empty());
    list.iter()
        .chain(single)
        .filter_map(|text| parse_cidr(text))
        .collect()
}

#[cfg(test)]
mod tests;
