//! Facts about the node for which a data plane is compiled.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::name::Family;

/// How traffic of pods is told from traffic of anybody else (kube-proxy's `detectLocalMode`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalPods {
    /// Pods cannot be told apart: nobody is masqueraded towards ClusterIPs for coming from outside.
    #[default]
    Unknown,
    /// A source address in one of these ranges is a pod (modes `ClusterCIDR` and `NodeCIDR`).
    Cidrs(Vec<IpNet>),
    /// Packets that arrive on this interface come from pods (mode `BridgeInterface`).
    Interface(Arc<str>),
    /// Packets that arrive on an interface whose name starts so come from pods (mode `InterfaceNamePrefix`).
    InterfacePrefix(Arc<str>),
}

impl LocalPods {
    /// Whether pods can be told apart in this family: a range tells something of its own family only.
    pub fn known(&self, family: Family) -> bool {
        match self {
            LocalPods::Unknown => false,
            LocalPods::Cidrs(cidrs) => cidrs.iter().any(|c| Family::of(c.addr()) == family),
            LocalPods::Interface(_) | LocalPods::InterfacePrefix(_) => true,
        }
    }
}

/// What the node itself adds to the meaning of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// `metadata.name` of the Node; an endpoint with this `nodeName` is local.
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`, if the node has one.
    pub zone: Option<Arc<str>>,
    /// Addresses of the node; a packet from one of them comes from the host.
    pub addresses: BTreeSet<IpAddr>,
    /// The addresses on which NodePorts answer (`--nodeport-addresses`), a part of `addresses`.
    pub node_port_addresses: BTreeSet<IpAddr>,
    /// How pods are recognised.
    pub local_pods: LocalPods,
    /// `--masquerade-all`: everything that goes to a ClusterIP is masqueraded.
    pub masquerade_all: bool,
    /// Ranges that ClusterIPs are allocated from; a packet to an unallocated address in them is dropped.
    pub service_cidrs: Vec<IpNet>,
}
