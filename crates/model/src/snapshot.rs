//! Everything a data plane needs to know, as one value that is cheap to copy and to compare.
//!
//! The maps are persistent: a clone shares its nodes with the original, so that keeping the last applied
//! Snapshot costs nothing, and [`Snapshot::touched`] finds what differs without looking at the rest.

use std::num::NonZeroU16;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::name::{PortKey, Protocol, ServiceName};
use crate::node::NodeFacts;
use crate::problem::Problem;
use crate::service::{Frontend, Place, ServicePort};

/// All Service ports as seen from one node.
///
/// Invariant: a frontend belongs to the oldest port that wants it (then to the smallest key);
/// the `lost` field of every port says which of its frontends belong to another.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    node: Arc<NodeFacts>,
    ports: OrdMap<PortKey, Arc<ServicePort>>,
    claims: OrdMap<Frontend, Claimants>,
}

/// The ports that want a frontend. There is hardly ever more than one, and one needs no memory of its own.
#[derive(Clone, Debug)]
enum Claimants {
    One(PortKey),
    /// At least two, in the order in which they would have it.
    Several(Arc<[PortKey]>),
}

impl Claimants {
    /// The first of them has the frontend.
    fn keys(&self) -> &[PortKey] {
        match self {
            Claimants::One(key) => std::slice::from_ref(key),
            Claimants::Several(keys) => keys,
        }
    }

    /// `None` for nobody.
    fn of(mut keys: Vec<PortKey>) -> Option<Self> {
        match keys.len() {
            0 | 1 => keys.pop().map(Claimants::One),
            _ => Some(Claimants::Several(keys.into())),
        }
    }
}

impl Snapshot {
    /// A Snapshot without Services for `node`.
    pub fn new(node: NodeFacts) -> Self {
        Snapshot {
            node: Arc::new(node),
            ..Snapshot::default()
        }
    }

    /// The node this Snapshot is for.
    pub fn node(&self) -> &NodeFacts {
        &self.node
    }

    /// Replaces the facts about the node; every port is compiled anew after it, if they differ.
    pub fn set_node(&mut self, node: NodeFacts) {
        if *self.node != node {
            self.node = Arc::new(node);
        }
    }

    /// All ports in the order of their keys.
    pub fn ports(&self) -> impl Iterator<Item = &Arc<ServicePort>> {
        self.ports.values()
    }

    /// The port with this key.
    pub fn port(&self, key: &PortKey) -> Option<&Arc<ServicePort>> {
        self.ports.get(key)
    }

    /// The ports of one Service, in the order of their keys. Costs O(log n) and what they are.
    pub fn ports_of<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> impl Iterator<Item = &'a Arc<ServicePort>> {
        let first = PortKey {
            service: service.clone(),
            port: "".into(),
            protocol: Protocol::Tcp,
        };
        let from = self.ports.range(first..).map(|(_, port)| port);
        from.take_while(move |port| port.key.service == *service)
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there is no port at all.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Adds `port` or replaces the one with its key. Costs O(log n) of the number of ports.
    pub fn set(&mut self, port: impl Into<Arc<ServicePort>>) {
        let mut port: Arc<ServicePort> = port.into();
        let old = self.ports.get(&port.key);
        let lost = old.map(|old| old.lost.clone()).unwrap_or_default();
        if port.lost != lost {
            Arc::make_mut(&mut port).lost = lost;
        }
        if old == Some(&port) {
            return;
        }
        let key = port.key.clone();
        let old = self.ports.insert(key.clone(), Arc::clone(&port));
        if old
            .as_ref()
            .is_some_and(|old| old.created == port.created && old.wants_same(&port))
        {
            return;
        }
        let before = old.map(|old| old.wanted()).unwrap_or_default();
        let wanted = port.wanted();
        let mut moved: Vec<Frontend> = before.iter().chain(&wanted).map(|(f, _)| *f).collect();
        moved.sort_unstable();
        moved.dedup();
        for frontend in &moved {
            let wants = wanted.iter().any(|(wanted, _)| wanted == frontend);
            self.claim(frontend, &key, wants);
        }
        self.settle(moved, &key);
    }

    /// Removes the port with this key, if there is one. Costs O(log n).
    pub fn remove(&mut self, key: &PortKey) {
        if let Some(old) = self.ports.remove(key) {
            let moved: Vec<Frontend> = old.wanted().into_iter().map(|(f, _)| f).collect();
            moved.iter().for_each(|f| self.claim(f, key, false));
            self.settle(moved, key);
        }
    }

    /// Keys of the ports that differ between `since` and `self`, in order; all keys of both when the node differs.
    /// Costs what has changed, not what there is: parts that both share are skipped.
    pub fn touched(&self, since: &Snapshot) -> Vec<PortKey> {
        if self.node != since.node {
            let both = since.ports.keys().chain(self.ports.keys());
            return both
                .cloned()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
        }
        since
            .ports
            .diff(&self.ports)
            .map(|item| match item {
                DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key.clone(),
                DiffItem::Update { new: (key, _), .. } => key.clone(),
            })
            .collect()
    }

    /// The port that answers at `frontend`.
    pub fn owner(&self, frontend: &Frontend) -> Option<&Arc<ServicePort>> {
        let key = self.claims.get(frontend)?.keys().first()?;
        self.ports.get(key)
    }

    /// Whether `address` is the ClusterIP of some Service.
    pub fn is_cluster_ip(&self, address: std::net::IpAddr) -> bool {
        let at = |protocol, port| Frontend {
            place: Place::Address(address),
            protocol,
            port,
        };
        let first = at(Protocol::Tcp, NonZeroU16::MIN);
        let last = at(Protocol::Sctp, NonZeroU16::MAX);
        let mut keys = self
            .claims
            .range(first..=last)
            .flat_map(|(_, claimants)| claimants.keys());
        keys.any(|key| {
            let port = self.ports.get(key);
            port.is_some_and(|port| port.cluster_ips.contains(&address))
        })
    }

    /// What is wrong with `port`, as far as it can be seen from all Services together.
    pub fn problems(&self, port: &ServicePort) -> Vec<Problem> {
        let told = |frontend: &Frontend| {
            let owner = self
                .owner(frontend)
                .map(|p| p.key.to_string())
                .unwrap_or_default();
            let place = match frontend.place {
                Place::Address(address) => format!("{address} port {}", frontend.port),
                Place::NodePort(_) => format!("node port {}", frontend.port),
            };
            Problem {
                service: port.key.service.clone(),
                reason: "AddressInUse",
                message: format!(
                    "{place}/{} belongs to the older {owner}; choose another one, or remove it there",
                    frontend.protocol
                ),
            }
        };
        port.lost.iter().map(told).collect()
    }

    /// Notes whether the port `key` wants `frontend`.
    fn claim(&mut self, frontend: &Frontend, key: &PortKey, wants: bool) {
        let standing = self.claims.get(frontend).map(Claimants::keys);
        let mut keys: Vec<PortKey> = standing.unwrap_or_default().to_vec();
        keys.retain(|other| other != key);
        if wants {
            keys.push(key.clone());
            keys.sort_by_key(|key| self.ports.get(key).map(|port| (port.created, key.clone())));
        }
        match Claimants::of(keys) {
            Some(claimants) => self.claims.insert(*frontend, claimants),
            None => self.claims.remove(frontend),
        };
    }

    /// Restores the invariant about `lost` at these frontends, which `changed` has wanted or wants.
    fn settle(&mut self, frontends: Vec<Frontend>, changed: &PortKey) {
        for frontend in frontends {
            let claimants = self.claims.get(&frontend).cloned();
            let keys = claimants.as_ref().map(Claimants::keys).unwrap_or_default();
            for (rank, key) in keys.iter().enumerate() {
                self.mark(key, frontend, rank > 0);
            }
            if !keys.contains(changed) {
                self.mark(changed, frontend, false);
            }
        }
    }

    fn mark(&mut self, key: &PortKey, frontend: Frontend, lost: bool) {
        let Some(port) = self.ports.get(key) else {
            return;
        };
        if port.lost.contains(&frontend) == lost {
            return;
        }
        let mut port = ServicePort::clone(port);
        match lost {
            true => port.lost.insert(frontend),
            false => port.lost.remove(&frontend),
        };
        self.ports.insert(key.clone(), Arc::new(port));
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node && self.ports == other.ports
    }
}

impl Eq for Snapshot {}

#[cfg(test)]
mod tests;
