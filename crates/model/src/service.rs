//! One Service port as data planes see it: where it answers and who stands behind it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::balance::{Balance, WEIGHT_DEFAULT};
use crate::name::{Families, Family, PortKey, Protocol};
use crate::scheduler::Scheduler;

/// `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrafficPolicy {
    /// Every endpoint of the cluster may answer.
    #[default]
    Cluster,
    /// Only endpoints on the node that sees the packet may answer.
    Local,
}

/// `sessionAffinity: ClientIP`: a client address stays with its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Affinity {
    /// `sessionAffinityConfig.clientIP.timeoutSeconds`: how long without a new connection; default 10 800 s.
    pub timeout: Duration,
}

/// One endpoint of a Service port: an address and port out of an EndpointSlice with its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its `nodeName` is the node that the Snapshot is for.
    pub local: bool,
    /// Condition `ready` (absent means true): takes new connections.
    pub ready: bool,
    /// Condition `serving` (absent means the value of `ready`): answers, perhaps while terminating.
    pub serving: bool,
    /// Condition `terminating`: its pod is on the way out.
    pub terminating: bool,
    /// Its share of new flows beside those of the others (annotation `portolan.dev/weights`); 0 only gets flows when
    /// every eligible endpoint has 0.
    pub weight: u16,
    /// It does not answer, as this node has found out, and gets no new flows while another one can have them
    /// (R-HEALTH). [`crate::Overlay`] keeps this; set it false.
    pub ejected: bool,
    /// Who should use it; shared, and absent as a rule.
    pub hints: Option<Arc<Hints>>,
}

/// Topology hints of an endpoint (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// `hints.forZones`: empty for an endpoint without this hint.
    pub zones: Vec<Arc<str>>,
    /// `hints.forNodes`: empty for an endpoint without this hint.
    pub nodes: Vec<Arc<str>>,
}

impl Endpoint {
    /// A ready endpoint on another node, without hints; tests start from it.
    pub fn ready(address: SocketAddr) -> Self {
        Endpoint {
            address,
            local: false,
            ready: true,
            serving: true,
            terminating: false,
            weight: WEIGHT_DEFAULT,
            ejected: false,
            hints: None,
        }
    }

    /// The same with another port.
    pub fn at_port(mut self, port: u16) -> Self {
        self.address.set_port(port);
        self
    }

    /// The zones that should use it; empty without this hint.
    pub fn zones(&self) -> &[Arc<str>] {
        self.hints.as_ref().map_or(&[], |hints| &hints.zones)
    }

    /// The nodes that should use it; empty without this hint.
    pub fn nodes(&self) -> &[Arc<str>] {
        self.hints.as_ref().map_or(&[], |hints| &hints.nodes)
    }

    /// Whether flows that it has may stay with it: it answers, though perhaps while it terminates.
    pub fn may_serve(&self) -> bool {
        self.ready || self.serving
    }
}

/// Where the process behind an endpoint listens. Several Service ports may lead to one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address and port of the endpoint.
    pub address: SocketAddr,
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.protocol)
    }
}

/// Where a frontend listens: on an address of its own, or on every NodePort address of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Place {
    /// One virtual address.
    Address(IpAddr),
    /// The NodePort addresses of the node, in one family.
    NodePort(Family),
}

impl Place {
    /// The family whose endpoints can stand behind this place.
    pub const fn family(self) -> Family {
        match self {
            Place::Address(address) => Family::of(address),
            Place::NodePort(family) => family,
        }
    }
}

/// A place, protocol and port at which a Service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Frontend {
    /// Address, or the node's own.
    pub place: Place,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port that clients connect to.
    pub port: NonZeroU16,
}

/// Which field of the Service a frontend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `status.loadBalancer.ingress[].ip` with `ipMode` VIP.
    LoadBalancer,
    /// `spec.ports[].nodePort`.
    NodePort,
}

/// One port of one Service. Any combination of values is legal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Its identity.
    pub key: PortKey,
    /// `metadata.creationTimestamp`, seconds since the epoch: of two Services that want one address, the older has it.
    pub created: i64,
    /// `spec.ports[].port`.
    pub port: NonZeroU16,
    /// `spec.clusterIPs`, at most one per family, and the addresses of annotation `portolan.dev/node-local`; empty for a
    /// Service without one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// LoadBalancer addresses to be programmed on the node.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.ports[].nodePort`; `None` when there is none (0 in the API).
    pub node_port: Option<NonZeroU16>,
    /// `spec.ipFamilies`: the families in which the NodePort answers.
    pub families: Families,
    /// `spec.loadBalancerSourceRanges`; empty means everybody. Guards LoadBalancer addresses only.
    pub source_ranges: Vec<IpNet>,
    /// `spec.sessionAffinity`.
    pub affinity: Option<Affinity>,
    /// Annotation `portolan.dev/balance`.
    pub balance: Balance,
    /// Annotation `portolan.dev/ipvs-scheduler`: only ipvs mode reads it.
    pub scheduler: Option<Scheduler>,
    /// Annotation `portolan.dev/slow-start`, in seconds: how long an endpoint that comes into rotation takes to get its
    /// full share.
    pub slow_start: Option<NonZeroU16>,
    /// Annotation `portolan.dev/health`: whether its connections are watched, and its endpoints checked.
    pub is_watched: bool,
    /// Annotation `portolan.dev/node-local`: a process of the node itself may answer instead, so that packets must say
    /// the Service's own address for as long as they can.
    pub is_node_local: bool,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort` of a LoadBalancer Service with external policy Local.
    pub health_check_node_port: Option<NonZeroU16>,
    /// Everybody behind this port, sorted by address, each address once.
    pub endpoints: Arc<[Endpoint]>,
    /// Frontends of this port that belong to an older Service. [`crate::Snapshot`] keeps this; set it empty.
    pub lost: BTreeSet<Frontend>,
}

impl ServicePort {
    /// A ClusterIP port without endpoints; tests and builders start from it.
    pub fn new(key: PortKey, port: NonZeroU16) -> Self {
        ServicePort {
            key,
            created: 0,
            port,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            node_port: None,
            families: Families::default(),
            source_ranges: Vec::new(),
            affinity: None,
            balance: Balance::Random,
            scheduler: None,
            slow_start: None,
            is_watched: true,
            is_node_local: false,
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            endpoints: Arc::new([]),
            lost: BTreeSet::new(),
        }
    }

    /// The endpoint that listens at `address`, if there is one. Costs O(log n) of their number.
    pub fn endpoint(&self, address: SocketAddr) -> Option<&Endpoint> {
        let index = self
            .endpoints
            .binary_search_by_key(&address, |endpoint| endpoint.address);
        index.ok().map(|index| &self.endpoints[index])
    }

    /// Every frontend that the Service asks for, each once, also those it has lost to an older Service.
    pub fn wanted(&self) -> Vec<(Frontend, FrontendKind)> {
        let protocol = self.key.protocol;
        let of_addresses = |addresses: &[IpAddr], kind| {
            let port = self.port;
            let frontend = |&ip: &IpAddr| Frontend {
                place: Place::Address(ip),
                protocol,
                port,
            };
            addresses
                .iter()
                .map(|ip| (frontend(ip), kind))
                .collect::<Vec<_>>()
        };
        let mut all = of_addresses(&self.cluster_ips, FrontendKind::ClusterIp);
        all.extend(of_addresses(
            &self.load_balancer_ips,
            FrontendKind::LoadBalancer,
        ));
        all.extend(of_addresses(&self.external_ips, FrontendKind::ExternalIp));
        if let Some(port) = self.node_port {
            let at = |family: Family| Frontend {
                place: Place::NodePort(family),
                protocol,
                port,
            };
            all.extend(
                self.families
                    .iter()
                    .map(|f| (at(f), FrontendKind::NodePort)),
            );
        }
        let mut seen = BTreeSet::new();
        all.retain(|(frontend, _)| seen.insert(*frontend));
        all
    }

    /// Whether `other`, with the same key, is known to want the same frontends: [`ServicePort::wanted`] of both is equal.
    /// It costs no memory; false may also mean that the same ones are written in another way.
    pub fn wants_same(&self, other: &ServicePort) -> bool {
        self.port == other.port
            && self.cluster_ips == other.cluster_ips
            && self.external_ips == other.external_ips
            && self.load_balancer_ips == other.load_balancer_ips
            && self.node_port == other.node_port
            && self.families == other.families
    }

    /// The frontends that are this port's own: [`ServicePort::wanted`] without the lost ones.
    pub fn frontends(&self) -> Vec<(Frontend, FrontendKind)> {
        let mut all = self.wanted();
        all.retain(|(frontend, _)| !self.lost.contains(frontend));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What most tests start from must be what its words say.
    #[test]
    fn the_plain_ones_are_plain() {
        let endpoint = Endpoint::ready("10.1.0.10:8080".parse().unwrap());
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating && !endpoint.local);
        let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
        let port = ServicePort::new(key, NonZeroU16::MIN);
        assert!(port.wanted().is_empty() && port.endpoints.is_empty());
        assert_eq!(port.created, 0);
        let policies = (port.internal_policy, port.external_policy);
        assert_eq!(policies, (TrafficPolicy::Cluster, TrafficPolicy::Cluster));
    }

    /// Ports that want the same are told from all that want something else.
    #[test]
    fn what_is_wanted_is_compared_whole() {
        let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
        let port = ServicePort::new(key, NonZeroU16::MIN);
        assert!(port.wants_same(&port));
        let ip = || vec!["172.30.0.1".parse().unwrap()];
        let changes: [fn(&mut ServicePort, Vec<IpAddr>); 6] = [
            |port, _| port.port = NonZeroU16::MAX,
            |port, ip| port.cluster_ips = ip,
            |port, ip| port.external_ips = ip,
            |port, ip| port.load_balancer_ips = ip,
            |port, _| port.node_port = Some(NonZeroU16::MAX),
            |port, _| port.families = [Family::V4].into(),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = port.clone();
            change(&mut other, ip());
            assert!(!port.wants_same(&other), "change {index}");
        }
    }
}
