//! From the model's decisions to virtual servers: which lists they serve, where they stand, how they choose.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_model::{
    Action, Balance, Choices, Family, NodeFacts, Place, PortKey, Problem, Scheduler, ServicePort,
    Snapshot, Treatment, decide, packed,
};

use super::Ipvs;
use super::state::{Placed, Server, State, is_drained};
use crate::nftables::compile::Servers;
use crate::nftables::{self, Class, Spot};

pub(super) fn compile(ipvs: &Ipvs, snapshot: &Snapshot) -> (State, Vec<Problem>) {
    let (rules, mut problems) = nftables::compile::compile(snapshot, ipvs);
    let mut state = State::adopted(rules, Default::default());
    for port in packed(snapshot.ports().collect()) {
        let placed = ipvs.placed(snapshot.node(), port);
        problems.extend(ipvs.problems(port, &placed));
        state.replace(&[], &placed);
    }
    (state, problems)
}

pub(super) fn update(
    ipvs: &Ipvs,
    state: &mut State,
    snapshot: &Snapshot,
    touched: &[PortKey],
) -> Vec<Problem> {
    let mut own = Vec::new();
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for key in touched {
        if let Some(port) = state.rules.snapshot.port(key) {
            old.extend(ipvs.placed(state.rules.snapshot.node(), port));
        }
        if let Some(port) = snapshot.port(key) {
            let placed = ipvs.placed(snapshot.node(), port);
            own.extend(ipvs.problems(port, &placed));
            new.extend(placed);
        }
    }
    state.replace(&old, &new);
    let mut problems = nftables::compile::update(&mut state.rules, snapshot, touched, ipvs);
    problems.extend(own);
    problems
}

impl Servers for Ipvs {
    const EXIST: bool = true;

    /// Outside traffic is what a virtual server is for; where there is none, whoever is served from a list.
    fn served<'a>(
        &self,
        node: &NodeFacts,
        port: &ServicePort,
        treatment: &'a Treatment,
    ) -> Option<&'a Choices> {
        self.scheduler_of(node, port, treatment.frontend.place.family())?;
        let foreign = |ip: &IpAddr| self.excluded.iter().any(|range| range.contains(ip));
        if addresses(node, treatment).iter().any(foreign) {
            return None;
        }
        let actions = [&treatment.outside, &treatment.pod, &treatment.host];
        actions.into_iter().find_map(|action| match action {
            Action::Balance { endpoints, .. } => Some(endpoints),
            Action::Reject | Action::Drop => None,
        })
    }
}

impl Ipvs {
    /// How the virtual servers of a port choose; `None` if nf_tables has to, for no scheduler does what is asked for.
    fn scheduler_of(
        &self,
        node: &NodeFacts,
        port: &ServicePort,
        family: Family,
    ) -> Option<Scheduler> {
        match (port.scheduler, port.balance) {
            (Some(scheduler), _) => Some(scheduler),
            (None, Balance::Random) => Some(self.scheduler),
            // Turns are counted for the port, whichever address a flow comes to, and a virtual server has one address.
            (None, Balance::RoundRobin) => {
                (places(node, port, family) == 1).then_some(Scheduler::RoundRobin)
            }
            // The oracle says which endpoint a hash gives; the kernel's `sh` and `mh` give another one.
            (None, Balance::SourceHash | Balance::Maglev) => None,
        }
    }

    /// Every virtual server of a port.
    fn placed(&self, node: &NodeFacts, port: &ServicePort) -> Vec<Placed> {
        let mut all = Vec::new();
        for treatment in decide(node, port) {
            let family = treatment.frontend.place.family();
            let served = self.served(node, port, &treatment);
            let scheduler = self.scheduler_of(node, port, family);
            let (Some(served), Some(scheduler)) = (served, scheduler) else {
                continue;
            };
            let server = Arc::new(server(port, &treatment, served, |weighted| {
                let wanted = if weighted {
                    scheduler.weighted()
                } else {
                    scheduler
                };
                self.existing(wanted, weighted)
            }));
            for address in addresses(node, &treatment) {
                let spot = Spot {
                    address,
                    protocol: treatment.frontend.protocol,
                    port: treatment.frontend.port.get(),
                };
                let is_node_port = matches!(treatment.frontend.place, Place::NodePort(_));
                let server = server.clone();
                all.push(Placed {
                    spot,
                    is_node_port,
                    server,
                });
            }
        }
        all
    }

    /// The scheduler itself, or the one that every kernel has.
    fn existing(&self, wanted: Scheduler, weighted: bool) -> Scheduler {
        match (self.missing.contains(&wanted), weighted) {
            (false, _) => wanted,
            (true, false) => Scheduler::RoundRobin,
            (true, true) => Scheduler::WeightedRoundRobin,
        }
    }

    /// What ipvs mode does otherwise than the Service asks.
    fn problems(&self, port: &ServicePort, placed: &[Placed]) -> Vec<Problem> {
        let missing = port
            .scheduler
            .filter(|wanted| self.missing.contains(wanted));
        let missing = missing.map(|wanted| Problem {
            service: port.key.service.clone(),
            reason: "SchedulerMissing",
            message: format!(
                "annotation portolan.dev/ipvs-scheduler: this node's kernel has no scheduler {wanted}; rr is used, or wrr \
                 with weights"
            ),
        });
        missing
            .into_iter()
            .chain(self.forgetful(port, placed))
            .collect()
    }

    /// The kernel remembers clients for each virtual server.
    fn forgetful(&self, port: &ServicePort, placed: &[Placed]) -> Option<Problem> {
        let of = |family| {
            let ours = move |p: &&Placed| Family::of(p.spot.address) == family;
            placed.iter().filter(ours).count()
        };
        let most = Family::ALL.into_iter().map(of).max().unwrap_or(0);
        (port.affinity.is_some() && most > 1).then(|| Problem {
            service: port.key.service.clone(),
            reason: "AffinityPerAddress",
            message: format!(
                "port {} answers at {most} addresses, and in ipvs mode a client is remembered at each by itself; a client \
                 that uses several may get several endpoints, unlike in the other modes",
                port.port
            ),
        })
    }
}

fn server(
    port: &ServicePort,
    treatment: &Treatment,
    served: &Choices,
    scheduler: impl Fn(bool) -> Scheduler,
) -> Server {
    // A client does not matter for this way to choose: the numbers are the weights as far as they differ.
    let anybody = SocketAddr::from(([0; 4], 0));
    let mut endpoints = served.shares(Balance::Random, anybody);
    if !is_drained(port.key.protocol) {
        let family = treatment.frontend.place.family();
        let keeps = |address: &SocketAddr| {
            Family::of(address.ip()) == family && served.addresses.binary_search(address).is_err()
        };
        let listed = port.endpoints.iter().filter(|e| e.may_serve());
        let kept = listed.map(|e| e.address).filter(keeps);
        endpoints.extend(kept.map(|address| (address, 0)));
        endpoints.sort_unstable();
    }
    let longest = u64::from(Class::AFFINITY_S_MAX);
    let affinity_s = treatment.affinity.as_ref();
    Server {
        scheduler: scheduler(served.weights.is_some()),
        affinity_s: affinity_s.map_or(0, |a| a.timeout.as_secs().clamp(1, longest) as u32),
        endpoints: endpoints.into(),
    }
}

/// Where the frontend of a treatment answers.
fn addresses(node: &NodeFacts, treatment: &Treatment) -> Vec<IpAddr> {
    match treatment.frontend.place {
        Place::Address(address) => vec![address],
        Place::NodePort(family) => {
            let ours = |ip: &&IpAddr| Family::of(**ip) == family;
            node.node_port_addresses
                .iter()
                .filter(ours)
                .copied()
                .collect()
        }
    }
}

/// At how many addresses of a family a port answers.
fn places(node: &NodeFacts, port: &ServicePort, family: Family) -> usize {
    let ours = |ip: &&IpAddr| Family::of(**ip) == family;
    let frontends = port.frontends();
    let counts = frontends.iter().map(|(frontend, _)| match frontend.place {
        place if place.family() != family => 0,
        Place::Address(_) => 1,
        Place::NodePort(_) => node.node_port_addresses.iter().filter(ours).count(),
    });
    counts.sum()
}
