//! Everything a data plane needs to know, as one value that is cheap to copy and to compare.
//!
//! The maps are persistent: a clone shares its nodes with the original, so that keeping the last applied
//! Snapshot costs nothing, and [`Snapshot::touched`] finds what differs without looking at the rest.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::name::PortKey;
use crate::node::NodeFacts;
use crate::problem::Problem;
use crate::service::{Frontend, FrontendKind, Place, ServicePort};

/// All Service ports as seen from one node.
///
/// Invariant: a frontend belongs to the oldest port that wants it (then to the smallest key);
/// the `lost` field of every port says which of its frontends belong to another.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    node: Arc<NodeFacts>,
    ports: OrdMap<PortKey, Arc<ServicePort>>,
    claims: OrdMap<Frontend, OrdSet<Claim>>,
    cluster_ips: OrdMap<std::net::IpAddr, OrdSet<PortKey>>,
}

/// A port's wish for a frontend; the smallest claim has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    created: i64,
    key: PortKey,
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

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.ports.len()
    }

    /// Whether there is no port at all.
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    /// Adds `port` or replaces the one with its key. Costs O(log n) of the number of ports.
    pub fn set(&mut self, mut port: ServicePort) {
        let old = self.ports.get(&port.key).cloned();
        let stays =
            |old: &ServicePort| old.created == port.created && old.wanted() == port.wanted();
        if let Some(old) = &old
            && stays(old)
        {
            let lost = old.lost.clone();
            let port = ServicePort { lost, ..port };
            if port != **old {
                self.ports.insert(port.key.clone(), Arc::new(port));
            }
            return;
        }
        let mut moved: Vec<Frontend> = Vec::new();
        if let Some(old) = old {
            moved.extend(self.unclaim(&old));
        }
        moved.extend(self.claim(&port));
        port.lost.clear();
        self.ports.insert(port.key.clone(), Arc::new(port));
        self.settle(moved);
    }

    /// Removes the port with this key, if there is one. Costs O(log n).
    pub fn remove(&mut self, key: &PortKey) {
        if let Some(old) = self.ports.remove(key) {
            let moved = self.unclaim(&old);
            self.settle(moved);
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
        let claim = self.claims.get(frontend)?.get_min()?;
        self.ports.get(&claim.key)
    }

    /// Whether `address` is the ClusterIP of some Service.
    pub fn is_cluster_ip(&self, address: std::net::IpAddr) -> bool {
        self.cluster_ips.contains_key(&address)
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

    fn claim(&mut self, port: &ServicePort) -> Vec<Frontend> {
        let claim = Claim {
            created: port.created,
            key: port.key.clone(),
        };
        let wanted = port.wanted();
        for (frontend, kind) in &wanted {
            self.claims
                .entry(*frontend)
                .or_default()
                .insert(claim.clone());
            if let (FrontendKind::ClusterIp, Place::Address(ip)) = (kind, frontend.place) {
                self.cluster_ips
                    .entry(ip)
                    .or_default()
                    .insert(port.key.clone());
            }
        }
        wanted.into_iter().map(|(frontend, _)| frontend).collect()
    }

    fn unclaim(&mut self, port: &ServicePort) -> Vec<Frontend> {
        let claim = Claim {
            created: port.created,
            key: port.key.clone(),
        };
        let wanted = port.wanted();
        for (frontend, kind) in &wanted {
            if let Some(claims) = self.claims.get_mut(frontend) {
                claims.remove(&claim);
                if claims.is_empty() {
                    self.claims.remove(frontend);
                }
            }
            if let (FrontendKind::ClusterIp, Place::Address(ip)) = (kind, frontend.place)
                && let Some(keys) = self.cluster_ips.get_mut(&ip)
            {
                keys.remove(&port.key);
                if keys.is_empty() {
                    self.cluster_ips.remove(&ip);
                }
            }
        }
        wanted.into_iter().map(|(frontend, _)| frontend).collect()
    }

    /// Restores the invariant about `lost` at these frontends.
    /// Only the owner and the one that was the owner can change, but every claimant is looked at: there are few.
    fn settle(&mut self, frontends: Vec<Frontend>) {
        for frontend in frontends {
            let Some(claims) = self.claims.get(&frontend).cloned() else {
                continue;
            };
            for (rank, claim) in claims.iter().enumerate() {
                let lost = rank > 0;
                let Some(port) = self.ports.get(&claim.key) else {
                    continue;
                };
                if port.lost.contains(&frontend) == lost {
                    continue;
                }
                let mut port = ServicePort::clone(port);
                match lost {
                    true => port.lost.insert(frontend),
                    false => port.lost.remove(&frontend),
                };
                self.ports.insert(claim.key.clone(), Arc::new(port));
            }
        }
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
