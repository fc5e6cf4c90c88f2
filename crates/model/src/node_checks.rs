//! `spec.healthCheckNodePort`: what load balancers are told about this node (rules R-CHECK of docs/semantics.md).
//!
//! Which ports are to be served, on which addresses, with which counts; whoever serves them is told here and nowhere
//! else. Pure, and a change costs what it touches.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use crate::name::{Families, Family, ServiceName};
use crate::problem::Problem;
use crate::service::ServicePort;
use crate::snapshot::Snapshot;

/// Addresses and ports that are served at a time: all NodePorts (2 768 by default) on one address of each family, with
/// room to spare. Each is an open socket.
pub const SERVED_MAX: usize = 8_192;

/// The reason of Problems, as kube-proxy's Events have it.
pub const REASON: &str = "FailedToStartServiceHealthcheck";

/// What one Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCheck {
    /// Seconds since the epoch: of two Services that want one port, the older has it.
    created: i64,
    port: NonZeroU16,
    families: Families,
    /// Ready endpoints on this node in IPv4 and IPv6; each address once, whatever its ports.
    local: [usize; 2],
}

/// What is served at one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The Service whose port it is.
    pub service: ServiceName,
    /// Its ready endpoints on this node, in the family of the address.
    pub local_endpoints: usize,
}

/// The checks of all Services, kept up to date.
#[derive(Debug, Default)]
pub struct NodeChecks {
    seen: Option<Snapshot>,
    checks: BTreeMap<ServiceName, NodeCheck>,
}

impl NodeChecks {
    /// Takes in a Snapshot. Costs what differs from the last one.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot) {
        let touched: BTreeSet<ServiceName> = match &self.seen {
            Some(seen) => {
                let keys = snapshot.touched(seen).into_iter();
                keys.map(|key| key.service).collect()
            }
            None => {
                let ports = snapshot.ports();
                ports.map(|port| port.key.service.clone()).collect()
            }
        };
        for service in touched {
            match check(snapshot, &service) {
                Some(check) => drop(self.checks.insert(service, check)),
                None => drop(self.checks.remove(&service)),
            }
        }
        self.seen = Some(snapshot.clone());
    }

    /// What has to be served now, and what cannot be.
    pub fn served(&self) -> (BTreeMap<SocketAddr, Served>, Vec<Problem>) {
        let (mut all, mut problems) = (BTreeMap::new(), Vec::new());
        let addresses = self.seen.as_ref().map(|s| &s.node().node_port_addresses);
        let mut checks: Vec<_> = self.checks.iter().collect();
        checks.sort_by_key(|(service, check)| (check.created, *service));
        for (service, check) in checks {
            let mut refused = None;
            for address in addresses.into_iter().flatten() {
                let Some(served) = served(service, check, *address) else {
                    continue;
                };
                let at = SocketAddr::new(*address, check.port.get());
                match all.get(&at) {
                    None if all.len() < SERVED_MAX => drop(all.insert(at, served)),
                    None => refused = Some(too_many()),
                    Some(owner) => refused = Some(taken(check.port, owner)),
                }
            }
            problems.extend(refused.map(|message| Problem {
                service: service.clone(),
                reason: REASON,
                message,
            }));
        }
        (all, problems)
    }
}

fn served(service: &ServiceName, check: &NodeCheck, address: IpAddr) -> Option<Served> {
    let family = Family::of(address);
    let answers = check.families.contains(family);
    answers.then(|| Served {
        service: service.clone(),
        local_endpoints: check.local[family as usize],
    })
}

fn taken(port: NonZeroU16, owner: &Served) -> String {
    format!(
        "healthCheckNodePort {port} belongs to the older Service {}; choose another one, or none to have one allocated.",
        owner.service
    )
}

fn too_many() -> String {
    format!(
        "This node serves {SERVED_MAX} healthCheckNodePorts already; there is no room for more."
    )
}

fn check(snapshot: &Snapshot, service: &ServiceName) -> Option<NodeCheck> {
    let ports: Vec<&ServicePort> = snapshot.ports_of(service).map(AsRef::as_ref).collect();
    let first = ports.first()?;
    let mut local = [BTreeSet::new(), BTreeSet::new()];
    let endpoints = ports.iter().flat_map(|port| port.endpoints.iter());
    for endpoint in endpoints.filter(|e| e.local && e.ready) {
        let ip = endpoint.address.ip();
        local[Family::of(ip) as usize].insert(ip);
    }
    Some(NodeCheck {
        created: first.created,
        port: first.health_check_node_port?,
        families: first.families,
        local: local.map(|ips| ips.len()),
    })
}

#[cfg(test)]
mod tests;
