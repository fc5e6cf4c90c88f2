//! What this node has found out about endpoints, laid over the Snapshot that comes from the API.
//!
//! ```text
//!   Reflection's Snapshot ──on_snapshot──▶ Overlay ──snapshot──▶ the same with `Endpoint::ejected` set
//!                             eject, readmit ──┘
//! ```
//!
//! Both Snapshots share everything but the ports that list an ejected endpoint, so the Overlay costs what is ejected.
//! Who deserves to be ejected, [`crate::health`] decides; what it means for packets, [`crate::decide`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::name::{Family, PortKey};
use crate::service::{Endpoint, Listener, ServicePort};
use crate::snapshot::Snapshot;

/// The Snapshot of the API, the one with what we know in addition, and who is ejected.
///
/// Invariant: `ejected` names, for each ejected listener, exactly the ports of `upstream` that list it, at least one.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    upstream: Snapshot,
    effective: Snapshot,
    ejected: BTreeMap<Listener, BTreeSet<PortKey>>,
}

impl Overlay {
    /// Takes over a new Snapshot of the API, at the cost of what it touches. Returns the ejected listeners that no port
    /// lists any more: they are forgotten.
    pub fn on_snapshot(&mut self, upstream: Snapshot) -> Vec<Listener> {
        let mut forgotten = Vec::new();
        if !self.ejected.is_empty() {
            for key in upstream.touched(&self.upstream) {
                self.relist(&key, upstream.port(&key).map(AsRef::as_ref));
            }
            self.ejected.retain(|listener, ports| {
                if ports.is_empty() {
                    forgotten.push(*listener);
                }
                !ports.is_empty()
            });
        }
        self.effective = upstream.clone();
        self.upstream = upstream;
        let keys: BTreeSet<PortKey> = self.ejected.values().flatten().cloned().collect();
        keys.iter().for_each(|key| self.flag(key));
        forgotten
    }

    /// Takes an endpoint out of rotation; false if it was, or if no port lists it. Looks at every port.
    pub fn eject(&mut self, listener: Listener) -> bool {
        if self.ejected.contains_key(&listener) {
            return false;
        }
        let keys: BTreeSet<PortKey> = self
            .listing(listener)
            .map(|port| port.key.clone())
            .collect();
        if keys.is_empty() {
            return false;
        }
        self.ejected.insert(listener, keys.clone());
        keys.iter().for_each(|key| self.flag(key));
        true
    }

    /// Puts an endpoint back into rotation; false if it was not ejected.
    pub fn readmit(&mut self, listener: Listener) -> bool {
        let Some(keys) = self.ejected.remove(&listener) else {
            return false;
        };
        keys.iter().for_each(|key| self.flag(key));
        true
    }

    /// Whether `listener` may be ejected as well: every port that lists it keeps another endpoint of the family that
    /// is ready, has a weight and is not ejected, and no more than `percent` of them are ejected then, but always one may be.
    /// Looks at every port.
    pub fn has_room(&self, listener: Listener, percent: u8) -> bool {
        let family = Family::of(listener.address.ip());
        self.listing(listener).all(|port| {
            let ready =
                |e: &&Endpoint| e.ready && e.weight > 0 && Family::of(e.address.ip()) == family;
            let (mut all, mut out) = (0_usize, 0_usize);
            for endpoint in port.endpoints.iter().filter(ready) {
                all += 1;
                let gone = Listener {
                    protocol: listener.protocol,
                    address: endpoint.address,
                };
                out += usize::from(gone == listener || self.is_ejected(gone));
            }
            let most = (all * usize::from(percent) / 100).max(1);
            out <= most && out < all
        })
    }

    /// Whether this endpoint is ejected.
    pub fn is_ejected(&self, listener: Listener) -> bool {
        self.ejected.contains_key(&listener)
    }

    /// Everybody who is ejected, with the ports that list them.
    pub fn ejected(&self) -> &BTreeMap<Listener, BTreeSet<PortKey>> {
        &self.ejected
    }

    /// What the API says.
    pub fn upstream(&self) -> &Snapshot {
        &self.upstream
    }

    /// What shall stand in the kernel.
    pub fn snapshot(&self) -> &Snapshot {
        &self.effective
    }

    /// The keys of the ports that list `listener`, for people. Looks at every port.
    pub fn listed_by(&self, listener: Listener) -> Vec<PortKey> {
        self.listing(listener)
            .map(|port| port.key.clone())
            .collect()
    }

    /// The ports that list `listener`. Costs O(log n) of the endpoints for every port: a reverse index would cost
    /// memory all the time for what happens seldom.
    fn listing(&self, listener: Listener) -> impl Iterator<Item = &Arc<ServicePort>> {
        self.upstream.ports().filter(move |port| {
            port.key.protocol == listener.protocol && port.endpoint(listener.address).is_some()
        })
    }

    /// Brings `ejected` up to what the port `key` lists now.
    fn relist(&mut self, key: &PortKey, port: Option<&ServicePort>) {
        let listener = |endpoint: &Endpoint| Listener {
            protocol: key.protocol,
            address: endpoint.address,
        };
        let before = self.upstream.port(key).map(|port| &port.endpoints[..]);
        for endpoint in before.unwrap_or_default() {
            if let Some(keys) = self.ejected.get_mut(&listener(endpoint)) {
                keys.remove(key);
            }
        }
        for endpoint in port.map(|port| &port.endpoints[..]).unwrap_or_default() {
            if let Some(keys) = self.ejected.get_mut(&listener(endpoint)) {
                keys.insert(key.clone());
            }
        }
    }

    /// Writes the port `key` of the effective Snapshot anew.
    fn flag(&mut self, key: &PortKey) {
        let Some(port) = self.upstream.port(key) else {
            return;
        };
        let flagged = |endpoint: &Endpoint| Endpoint {
            ejected: self.is_ejected(Listener {
                protocol: key.protocol,
                address: endpoint.address,
            }),
            ..endpoint.clone()
        };
        if !port.endpoints.iter().any(|e| flagged(e).ejected) {
            return self.effective.set(Arc::clone(port));
        }
        let endpoints = port.endpoints.iter().map(flagged).collect();
        self.effective.set(ServicePort {
            endpoints,
            ..ServicePort::clone(port)
        });
    }
}

/// The endpoints that are ejected in `now` and were not in `before`; costs what differs.
pub fn newly_ejected(before: &Snapshot, now: &Snapshot) -> BTreeSet<Listener> {
    let mut all = BTreeSet::new();
    for key in now.touched(before) {
        let was = |endpoint: &Endpoint| {
            let before = before.port(&key).and_then(|p| p.endpoint(endpoint.address));
            before.is_some_and(|before| before.ejected)
        };
        let endpoints = now.port(&key).map(|port| &port.endpoints[..]);
        let new = endpoints.unwrap_or_default().iter();
        all.extend(new.filter(|e| e.ejected && !was(e)).map(|e| Listener {
            protocol: key.protocol,
            address: e.address,
        }));
    }
    all
}

#[cfg(test)]
mod tests;
