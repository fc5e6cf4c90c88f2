//! Which flows that the kernel remembers lead nowhere any more (rules R-STALE of docs/semantics.md).
//!
//! A flow of UDP or SCTP keeps its endpoint for as long as datagrams come, also when the endpoint is gone; its entry in
//! the kernel's conntrack table must be removed, so that the next datagram is balanced anew.
//! This is the decision only. The entries come from `kernel::conntrack`, and [`crate::sweep`] says when to look.

use std::net::SocketAddr;

use crate::door::Doors;
use crate::name::{Family, PortKey, Protocol};
use crate::service::{Endpoint, ServicePort};
use crate::snapshot::Snapshot;

/// A flow as conntrack knows it, reduced to what the decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Where the first packet went to (destination of the original tuple).
    pub destination: SocketAddr,
    /// Who answers (source of the reply tuple): the endpoint; `destination` itself when nothing was translated.
    pub replier: SocketAddr,
}

impl Flow {
    /// Whether its destination was rewritten.
    pub fn is_translated(&self) -> bool {
        self.destination != self.replier
    }
}

/// What one sweep looks at: the flows of ports that differ between two Snapshots.
#[derive(Clone, Debug)]
pub struct Sweep {
    before: Option<Snapshot>,
    now: Snapshot,
    /// In order; without `before`, every port counts as touched.
    touched: Vec<PortKey>,
    /// Where the relay of userspace mode waits; empty in other modes.
    doors: Vec<SocketAddr>,
}

impl Sweep {
    /// The flows that the change from `before` to `now` may have made stale; without `before`, those of all ports.
    pub fn new(before: Option<&Snapshot>, now: &Snapshot) -> Self {
        Sweep {
            before: before.cloned(),
            now: now.clone(),
            touched: before.map(|before| now.touched(before)).unwrap_or_default(),
            doors: Vec::new(),
        }
    }

    /// The same in userspace mode: a flow to a door of the relay finds the endpoint there, as long as one serves.
    pub fn with_relay(mut self, doors: &Doors) -> Self {
        let of_family = |family| doors.all(self.now.node(), family);
        let all = Family::ALL.into_iter().flat_map(of_family);
        self.doors = all.map(|(door, _)| door).collect();
        self
    }

    /// The protocols whose flows have to be looked at; none when no port of these protocols is touched.
    pub fn protocols(&self) -> Vec<Protocol> {
        let touched = |protocol: Protocol| match self.before {
            Some(_) => self.touched.iter().any(|key| key.protocol == protocol),
            None => self.now.ports().any(|port| port.key.protocol == protocol),
        };
        let connectionless = [Protocol::Udp, Protocol::Sctp];
        connectionless.into_iter().filter(|p| touched(*p)).collect()
    }

    /// Whether `flow` must be forgotten. Costs O(log n) of the number of ports and of endpoints.
    pub fn is_stale(&self, flow: &Flow) -> bool {
        if flow.protocol == Protocol::Tcp {
            return false;
        }
        match owner(&self.now, flow) {
            Some(port) => self.looks_at(&port.key) && self.leads_nowhere(port, flow),
            // Nobody answers there now. If it was ours, it was us who translated.
            None => {
                let ours = |before| owner(before, flow).is_some();
                flow.is_translated() && self.before.as_ref().is_some_and(ours)
            }
        }
    }

    /// A translated flow is stale when its endpoint serves no more; one that found no endpoint, as soon as there is one.
    fn leads_nowhere(&self, port: &ServicePort, flow: &Flow) -> bool {
        let family = flow.destination.is_ipv4();
        let serves = |e: &Endpoint| e.may_serve() && e.address.is_ipv4() == family;
        if self.doors.contains(&flow.replier) {
            return !port.endpoints.iter().any(serves);
        }
        match port.endpoint(flow.replier) {
            Some(endpoint) => !endpoint.may_serve(),
            None => flow.is_translated() || port.endpoints.iter().any(serves),
        }
    }

    fn looks_at(&self, key: &PortKey) -> bool {
        self.before.is_none() || self.touched.binary_search(key).is_ok()
    }
}

fn owner<'a>(snapshot: &'a Snapshot, flow: &Flow) -> Option<&'a ServicePort> {
    let frontend = snapshot.frontend(flow.protocol, flow.destination)?;
    snapshot.owner(&frontend).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests;
