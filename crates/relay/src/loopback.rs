//! Userspace mode without privileges: a socket for each frontend, on an address of 127.0.0.0/8 instead of a portal.
//!
//! ```text
//!   ClusterIP 172.30.0.80:80 ──▶ 127.30.0.80:8080 (door) ──▶ relay ──▶ endpoint
//! ```
//!
//! An ordinary user may listen on every address of 127.0.0.0/8, so a ClusterIP keeps its last three numbers, and one that
//! lies there already is its own place. A port that only root may have is moved up by [`PORT_SHIFT`]. NodePorts keep
//! address and port. External IPs and LoadBalancer addresses are not brought to a node by this mode.
//! Where nobody is to be let through there is no socket: the kernel refuses, also where other modes drop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use portolan_model::{
    Action, ApplyError, Backend, Family, FrontendKind, Origin, Packet, Place, PortKey, Problem,
    Protocol, ServicePort, Snapshot, Target, Treatment, Verdict, decide,
};

use crate::backend::relay;
use crate::relay::Door;
use crate::target::Carrier;

/// 80 becomes 8080 and 443 becomes 8443.
pub const PORT_SHIFT: u16 = 8000;

/// Doors that are open at most: each takes two file descriptors, and the relay needs most of them for connections.
pub const DOORS_MAX: usize = 2048;

/// The backend of this mode.
#[derive(Clone, Copy, Debug)]
pub struct Loopback {
    /// The first port that this process may listen on (`net.ipv4.ip_unprivileged_port_start`).
    pub first_port: u16,
}

/// The doors that should be open, and what the relay goes by. A clone costs O(doors).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Open {
    /// All doors.
    pub doors: BTreeSet<Door>,
    /// What the relay goes by.
    pub snapshot: Snapshot,
}

impl Loopback {
    /// Where an address and port of a Service is reached; `None` for IPv6, which has one loopback address only.
    pub fn place(&self, address: IpAddr, port: u16) -> Option<SocketAddr> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let [_, second, third, fourth] = address.octets();
        let port = match port < self.first_port {
            true => port.checked_add(PORT_SHIFT)?,
            false => port,
        };
        Some((Ipv4Addr::new(127, second, third, fourth), port).into())
    }

    /// The doors of one Service port.
    fn doors_of(&self, snapshot: &Snapshot, port: &ServicePort) -> Vec<Door> {
        let mut doors = Vec::new();
        for treatment in decide(snapshot.node(), port) {
            let (origin, places) = self.places(snapshot, &treatment);
            if !matches!(treatment.action(origin), Action::Balance { .. }) {
                continue;
            }
            doors.extend(places.into_iter().map(|(listen, leads_to)| Door {
                protocol: port.key.protocol,
                listen,
                origin,
                leads_to: Some(leads_to),
            }));
        }
        doors
    }

    /// Whom the clients of a frontend count as, and where it is reached, each with what the client means.
    fn places(
        &self,
        snapshot: &Snapshot,
        treatment: &Treatment,
    ) -> (Origin, Vec<(SocketAddr, SocketAddr)>) {
        let number = treatment.frontend.port.get();
        match treatment.frontend.place {
            Place::Address(address) => {
                let place = self.place(address, number);
                let place = place.filter(|_| treatment.kind == FrontendKind::ClusterIp);
                let meant = SocketAddr::new(address, number);
                (
                    Origin::Host,
                    place.map(|at| (at, meant)).into_iter().collect(),
                )
            }
            Place::NodePort(family) => {
                let all = snapshot.node().node_port_addresses.iter();
                let ours = all.filter(|ip| Family::of(**ip) == family);
                let places = ours.map(|ip| SocketAddr::new(*ip, number));
                (Origin::Outside, places.map(|at| (at, at)).collect())
            }
        }
    }
}

impl Backend for Loopback {
    type State = Open;
    type Ops = Option<Open>;

    fn compile(&self, snapshot: &Snapshot) -> (Open, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut wanted = Vec::new();
        for port in snapshot.ports() {
            problems.extend(snapshot.problems(port));
            match port.key.protocol {
                Protocol::Sctp => problems.push(cannot(port, "SCTP is not carried")),
                _ => wanted.extend(self.doors_of(snapshot, port).into_iter().map(|d| (d, port))),
            }
            if !(port.external_ips.is_empty() && port.load_balancer_ips.is_empty()) {
                let why = "external and LoadBalancer addresses are not brought to the node";
                problems.push(cannot(port, why));
            }
            if !port.cluster_ips.is_empty() && port.cluster_ips.iter().all(IpAddr::is_ipv6) {
                problems.push(cannot(port, "IPv6 has no room for it on the loopback"));
            }
        }
        // Who is moved to another port gives way to those who have it by themselves.
        let moved =
            |door: &Door| door.leads_to.map(|meant| meant.port()) != Some(door.listen.port());
        wanted.sort_by_key(|(door, _)| moved(door));
        let mut doors = BTreeMap::new();
        for (door, port) in wanted {
            let place = (door.listen, door.protocol);
            let is_taken = doors.contains_key(&place);
            if is_taken || doors.len() >= DOORS_MAX {
                let why = match is_taken {
                    true => format!("another Service is at {}", door.listen),
                    false => format!("there are {DOORS_MAX} sockets already"),
                };
                problems.push(cannot(port, &why));
                continue;
            }
            doors.insert(place, door);
        }
        let open = Open {
            doors: doors.into_values().collect(),
            snapshot: snapshot.clone(),
        };
        (open, problems)
    }

    fn update(&self, state: &mut Open, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        let (open, mut problems) = self.compile(snapshot);
        *state = open;
        problems.retain(|problem| touched.iter().any(|key| key.service == problem.service));
        problems
    }

    fn diff(&self, from: Option<&Open>, to: &Open) -> Option<Open> {
        (from != Some(to)).then(|| to.clone())
    }

    fn is_empty(&self, ops: &Option<Open>) -> bool {
        ops.is_none()
    }

    fn trace(&self, state: &Open, packet: &Packet) -> Verdict {
        match led(state, packet) {
            Some(endpoints) => {
                Verdict::Deliver(endpoints.into_keys().map(|to| (to, true)).collect())
            }
            None if packet.destination.ip().is_loopback() => Verdict::Reject,
            None => Verdict::Pass,
        }
    }

    fn shares(&self, state: &Open, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        led(state, packet).unwrap_or_default()
    }
}

/// Where the relay brings a packet that comes to a door.
fn led(state: &Open, packet: &Packet) -> Option<BTreeMap<SocketAddr, u32>> {
    let here = |door: &&Door| door.listen == packet.destination && door.protocol == packet.protocol;
    let door = state.doors.iter().find(here)?;
    let meant = Packet {
        destination: door.leads_to?,
        ..packet.clone()
    };
    relay(&state.snapshot, &meant, door.origin)
}

fn cannot(port: &ServicePort, why: &str) -> Problem {
    Problem {
        service: port.key.service.clone(),
        reason: Problem::NOT_IN_THIS_MODE,
        message: format!(
            "port {} is not reached on this node as it should be: {why} in loopback mode; use another --proxy-mode",
            port.port
        ),
    }
}

/// A relay with such doors.
pub struct LoopbackTarget<R> {
    relay: R,
    /// Doors that could not be opened.
    missing: usize,
}

impl<R: Carrier> LoopbackTarget<R> {
    /// Around a relay.
    pub fn new(relay: R) -> Self {
        LoopbackTarget { relay, missing: 0 }
    }
}

impl<R: Carrier> Target<Loopback> for LoopbackTarget<R> {
    /// A door that cannot be opened keeps nobody else from being served; it is told, and tried again when it is looked
    /// whether everything stands.
    fn apply(&mut self, ops: &Option<Open>) -> Result<(), ApplyError> {
        let Some(open) = ops else { return Ok(()) };
        self.relay.replace(&open.snapshot)?;
        let failed = self.relay.open_each(&open.doors);
        self.missing = failed.len();
        for error in failed {
            tracing::warn!(%error, "a Service is not reached");
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Option<Open>, ApplyError> {
        Ok(Some(Open {
            doors: self.relay.standing(),
            snapshot: self.relay.snapshot(),
        }))
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        Ok(self.missing == 0)
    }
}

#[cfg(test)]
mod tests;
