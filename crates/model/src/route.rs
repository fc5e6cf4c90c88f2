//! The oracle: what must become of the first packet of a flow on this node.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use crate::decide::{Action, Treatment, decide};
use crate::name::{Family, Protocol};
use crate::packet::{Packet, Verdict, is_hairpin};
use crate::service::{Frontend, FrontendKind, Place};
use crate::snapshot::Snapshot;

impl Snapshot {
    /// What the data plane of this node must do with `packet`.
    ///
    /// In this order: a frontend at the very address and port; a NodePort, if the address is one that NodePorts
    /// answer on; a ClusterIP without such a port (rejected); an address of the Service range that no Service has
    /// (dropped); anything else passes.
    pub fn route(&self, packet: &Packet) -> Verdict {
        let address = packet.destination.ip();
        if let Some(frontend) = self.frontend(packet.protocol, packet.destination) {
            return self.serve(&frontend, packet);
        }
        if self.is_cluster_ip(address) {
            return Verdict::Reject;
        }
        match self
            .node()
            .service_cidrs
            .iter()
            .any(|cidr| cidr.contains(&address))
        {
            true => Verdict::Drop,
            false => Verdict::Pass,
        }
    }

    /// The frontend at which packets to `destination` arrive, if some port answers there: the very address and port,
    /// else a NodePort. Costs O(log n).
    pub fn frontend(&self, protocol: Protocol, destination: SocketAddr) -> Option<Frontend> {
        let address = destination.ip();
        // Port 0 is legal in a packet, but no frontend has it.
        let port = NonZeroU16::new(destination.port())?;
        let at = |place| {
            let frontend = Frontend {
                place,
                protocol,
                port,
            };
            self.owner(&frontend).map(|_| frontend)
        };
        at(Place::Address(address)).or_else(|| {
            let answers = self.node().node_port_addresses.contains(&address);
            let family = Family::of(address);
            answers.then(|| at(Place::NodePort(family))).flatten()
        })
    }

    /// With which chances a packet that [`Snapshot::route`] delivers goes to each endpoint: of as many equally likely
    /// choices as all numbers together, so many lead there. Empty for a packet that is not delivered.
    pub fn shares(&self, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        let frontend = self.frontend(packet.protocol, packet.destination);
        let treatment = frontend.and_then(|frontend| self.treatment(&frontend));
        let Some(treatment) = treatment.filter(|treatment| treatment.admits(packet.source.ip()))
        else {
            return BTreeMap::new();
        };
        match treatment.action(packet.origin(self.node())) {
            Action::Balance { endpoints, .. } => {
                let shares = endpoints.shares(treatment.balance, packet.source);
                shares.into_iter().collect()
            }
            Action::Reject | Action::Drop => BTreeMap::new(),
        }
    }

    fn treatment(&self, frontend: &Frontend) -> Option<Treatment> {
        let treatments = decide(self.node(), self.owner(frontend)?);
        treatments.into_iter().find(|t| t.frontend == *frontend)
    }

    fn serve(&self, frontend: &Frontend, packet: &Packet) -> Verdict {
        let Some(treatment) = self.treatment(frontend) else {
            return Verdict::Pass;
        };
        debug_assert!(treatment.kind == FrontendKind::LoadBalancer || treatment.sources.is_none());
        if !treatment.admits(packet.source.ip()) {
            return Verdict::Drop;
        }
        match treatment.action(packet.origin(self.node())) {
            Action::Reject => Verdict::Reject,
            Action::Drop => Verdict::Drop,
            Action::Balance {
                endpoints,
                masquerade,
            } => {
                let chosen = endpoints.shares(treatment.balance, packet.source);
                let source = packet.source.ip();
                let told = |(e, _)| (e, *masquerade || is_hairpin(source, e));
                Verdict::Deliver(chosen.into_iter().map(told).collect())
            }
        }
    }
}
