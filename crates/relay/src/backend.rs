//! The pure half: what the portal and the relay together do with a packet.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{
    Action, Backend, Doors, Family, Frontend, FrontendKind, Origin, Packet, PortKey, Problem,
    Protocol, ServicePort, Snapshot, TrafficPolicy, Verdict, decide,
};

/// Userspace mode over the portal that `P` compiles.
#[derive(Clone, Copy, Debug, Default)]
pub struct Userspace<P> {
    /// The rules that bring packets to the doors.
    pub portal: P,
    /// Where the relay waits.
    pub doors: Doors,
}

/// What should stand: rules in the kernel, and a Snapshot in the relay. A clone costs O(1).
#[derive(Clone, Debug, PartialEq)]
pub struct State<S> {
    /// The portal's rules.
    pub portal: S,
    /// What the relay goes by.
    pub snapshot: Snapshot,
}

/// A change of the portal, of the relay, or of both.
#[derive(Clone, Debug)]
pub struct Ops<O> {
    /// What the kernel has to be told.
    pub portal: O,
    /// Whether there is anything in it.
    pub portal_changes: bool,
    /// What the relay goes by from now on; `None` if nothing changes for it.
    pub snapshot: Option<Snapshot>,
}

impl<P: Backend> Backend for Userspace<P> {
    type State = State<P::State>;
    type Ops = Ops<P::Ops>;

    fn compile(&self, snapshot: &Snapshot) -> (Self::State, Vec<Problem>) {
        let (portal, mut problems) = self.portal.compile(snapshot);
        problems.extend(snapshot.ports().filter_map(|port| source_is_lost(port)));
        let snapshot = snapshot.clone();
        (State { portal, snapshot }, problems)
    }

    fn update(
        &self,
        state: &mut Self::State,
        snapshot: &Snapshot,
        touched: &[PortKey],
    ) -> Vec<Problem> {
        state.snapshot = snapshot.clone();
        let mut problems = self.portal.update(&mut state.portal, snapshot, touched);
        let touched = touched.iter().filter_map(|key| snapshot.port(key));
        problems.extend(touched.filter_map(|port| source_is_lost(port)));
        problems
    }

    fn diff(&self, from: Option<&Self::State>, to: &Self::State) -> Self::Ops {
        let portal = self.portal.diff(from.map(|from| &from.portal), &to.portal);
        let same = |from: &Self::State| {
            from.snapshot.node() == to.snapshot.node()
                && to.snapshot.touched(&from.snapshot).is_empty()
        };
        Ops {
            portal_changes: !self.portal.is_empty(&portal),
            portal,
            snapshot: (!from.is_some_and(same)).then(|| to.snapshot.clone()),
        }
    }

    fn is_empty(&self, ops: &Self::Ops) -> bool {
        !ops.portal_changes && ops.snapshot.is_none()
    }

    /// The portal delivers to a door; from there the relay goes on, with the origin that the door stands for.
    fn trace(&self, state: &Self::State, packet: &Packet) -> Verdict {
        let verdict = self.portal.trace(&state.portal, packet);
        let Verdict::Deliver(choices) = &verdict else {
            return verdict;
        };
        let mut relayed = BTreeMap::new();
        for (to, masquerade) in choices {
            let Some(origin) = self.origin_at(state, to) else {
                relayed.insert(*to, *masquerade);
                continue;
            };
            match relay(&state.snapshot, packet, origin) {
                // They see the node's address: the connection is the relay's own.
                Some(endpoints) => relayed.extend(endpoints.into_keys().map(|to| (to, true))),
                None => return Verdict::Reject,
            }
        }
        Verdict::Deliver(relayed)
    }

    fn shares(&self, state: &Self::State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        let mut shares = BTreeMap::new();
        for (to, share) in self.portal.shares(&state.portal, packet) {
            match self.origin_at(state, &to) {
                Some(origin) => {
                    shares.extend(relay(&state.snapshot, packet, origin).into_iter().flatten())
                }
                None => drop(shares.insert(to, share)),
            }
        }
        shares
    }
}

impl<P> Userspace<P> {
    /// The origin of flows that come to `to`, if that is a door.
    fn origin_at<S>(&self, state: &State<S>, to: &SocketAddr) -> Option<Origin> {
        let family = Family::of(to.ip());
        let doors = self.doors.all(state.snapshot.node(), family);
        let found = doors.into_iter().find(|(door, _)| door == to);
        found.map(|(_, origin)| origin)
    }
}

/// Whoever sets `externalTrafficPolicy: Local` may do so for the client's address, and endpoints see the relay's.
fn source_is_lost(port: &ServicePort) -> Option<Problem> {
    let relayed = port.key.protocol != Protocol::Sctp;
    let cluster = |(_, kind): &(Frontend, FrontendKind)| *kind == FrontendKind::ClusterIp;
    let local = port.external_policy == TrafficPolicy::Local;
    let lost = relayed && local && !port.frontends().iter().all(cluster);
    lost.then(|| Problem {
        service: port.key.service.clone(),
        reason: "SourceAddressLost",
        message: format!(
            "port {} has externalTrafficPolicy Local, but in userspace mode its endpoints see an address of the node \
             instead of the client's; use another --proxy-mode if they need it",
            port.port
        ),
    })
}

/// The endpoints that the relay dials, each with how many of its slots lead there.
pub(crate) fn relay(
    snapshot: &Snapshot,
    packet: &Packet,
    origin: Origin,
) -> Option<BTreeMap<SocketAddr, u32>> {
    let frontend = snapshot.frontend(packet.protocol, packet.destination)?;
    let treatments = decide(snapshot.node(), snapshot.owner(&frontend)?);
    let treatment = treatments.iter().find(|t| t.frontend == frontend)?;
    match treatment.action(origin) {
        Action::Balance { endpoints, .. } if treatment.admits(packet.source.ip()) => {
            let chosen = endpoints.shares(treatment.balance, packet.source);
            Some(chosen.into_iter().collect())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::{NodeFacts, Place};
    use std::num::NonZeroU16;

    #[test]
    fn who_loses_the_source_is_told() {
        let of = |protocol, policy, node_port| {
            let key = PortKey::new("shop", "web", "http", protocol);
            let mut port = ServicePort::new(key, NonZeroU16::MIN);
            port.cluster_ips = vec!["172.30.0.1".parse().unwrap()];
            port.families = [Family::V4].into();
            port.node_port = NonZeroU16::new(node_port);
            port.external_policy = policy;
            port
        };
        let (tcp, sctp) = (Protocol::Tcp, Protocol::Sctp);
        let (local, cluster) = (TrafficPolicy::Local, TrafficPolicy::Cluster);
        for (protocol, policy, node_port, told) in [
            (tcp, local, 30080, true),
            (tcp, local, 0, false),
            (tcp, cluster, 30080, false),
            (sctp, local, 30080, false),
        ] {
            let port = of(protocol, policy, node_port);
            assert_eq!(source_is_lost(&port).is_some(), told, "{port:?}");
        }
        let mut clash = of(tcp, local, 30080);
        let older = ServicePort {
            key: PortKey::new("shop", "api", "http", tcp),
            cluster_ips: Vec::new(),
            ..of(tcp, cluster, 30080)
        };
        clash.created = 1;
        let mut snapshot = Snapshot::new(NodeFacts::default());
        snapshot.set(older);
        snapshot.set(clash.clone());
        let lost = snapshot.port(&clash.key).unwrap();
        let place = Place::NodePort(Family::V4);
        assert!(lost.lost.iter().any(|frontend| frontend.place == place));
        assert_eq!(source_is_lost(lost), None);
    }
}
