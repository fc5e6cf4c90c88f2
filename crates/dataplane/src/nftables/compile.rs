//! From the model's decisions to fragments, and fragments into and out of a State.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{
    Action, Balance, Choices, Family, NodeFacts, Origin, Place, PortKey, Problem, ServicePort,
    Snapshot, Treatment, decide, packed,
};

use super::ENDPOINTS_MAX;
use super::class::{Class, List, Turn, Via, Way};
use super::element::Spot;
use super::layout::ChainId;
use super::state::{Backing, Entry, Fragment, Part, State, Table, count_down, count_up, counted};

/// Which lists somebody else serves: virtual servers, in ipvs mode.
pub(crate) trait Servers {
    /// Whether there can be any.
    const EXIST: bool;

    /// The endpoints that the virtual server at the place of this treatment has; flows to them are handed to it.
    fn served<'a>(
        &self,
        node: &NodeFacts,
        port: &ServicePort,
        treatment: &'a Treatment,
    ) -> Option<&'a Choices>;

    /// The doors of the relay in this family: none but in userspace mode.
    fn doors(&self, _: &NodeFacts, _: Family) -> Vec<(SocketAddr, Origin)> {
        Vec::new()
    }

    /// Whether every flow of this port that is balanced goes to a door.
    fn relays(&self, _: &NodeFacts, _: &ServicePort, _: Family) -> bool {
        false
    }
}

/// There are no virtual servers.
pub(crate) struct NoServers;

impl Servers for NoServers {
    const EXIST: bool = false;

    fn served<'a>(&self, _: &NodeFacts, _: &ServicePort, _: &'a Treatment) -> Option<&'a Choices> {
        None
    }
}

pub(crate) fn compile<S: Servers>(snapshot: &Snapshot, servers: &S) -> (State, Vec<Problem>) {
    let mut state = State::default();
    let mut problems = Vec::new();
    for family in Family::ALL {
        *state.table_mut(family) = Table::of(family, snapshot.node(), S::EXIST);
        state.table_mut(family).doors = servers.doors(snapshot.node(), family);
    }
    let mut hairpins = [const { Vec::new() }; 2];
    // As a rule addresses have the order of names, or none.
    for port in packed(snapshot.ports().collect()) {
        problems.extend(snapshot.problems(port));
        let fragment = fragment(snapshot.node(), port, servers, &mut problems);
        insert(&mut state, &fragment);
        for (hairpins, part) in hairpins.iter_mut().zip(&fragment.parts) {
            hairpins.extend(part.iter().flat_map(addresses));
        }
    }
    for (family, hairpins) in Family::ALL.into_iter().zip(hairpins) {
        state.table_mut(family).hairpins = counted(hairpins);
    }
    state.snapshot = snapshot.clone();
    (state, problems)
}

/// Takes out all old fragments before any new one goes in: a frontend may have moved from one port to another.
pub(crate) fn update<S: Servers>(
    state: &mut State,
    snapshot: &Snapshot,
    touched: &[PortKey],
    servers: &S,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut changed = Vec::new();
    for key in touched {
        let before = state.snapshot.port(key).map(|port| {
            // They were told when it was compiled.
            fragment(state.snapshot.node(), port, servers, &mut Vec::new())
        });
        let new = snapshot.port(key).map(|port| {
            problems.extend(snapshot.problems(port));
            fragment(snapshot.node(), port, servers, &mut problems)
        });
        if before == new {
            continue;
        }
        if let Some(before) = before {
            remove(state, &before);
        }
        changed.extend(new);
    }
    for fragment in &changed {
        insert(state, fragment);
        for (family, part) in Family::ALL.into_iter().zip(&fragment.parts) {
            let table = state.table_mut(family);
            let ips = part.iter().flat_map(addresses);
            ips.for_each(|ip| count_up(&mut table.hairpins, ip));
        }
    }
    state.snapshot = snapshot.clone();
    problems
}

fn fragment<S: Servers>(
    node: &NodeFacts,
    port: &ServicePort,
    servers: &S,
    problems: &mut Vec<Problem>,
) -> Fragment {
    let treatments = decide(node, port);
    let of_family = |family: Family| {
        let ours = |t: &&Treatment| t.frontend.place.family() == family;
        let ours: Vec<&Treatment> = treatments.iter().filter(ours).collect();
        let served = ours.iter().map(|t| servers.served(node, port, t)).collect();
        let relayed = servers.relays(node, port, family);
        part(&ours, served, relayed, port, problems)
    };
    let parts = Family::ALL.map(of_family);
    let cluster_ips = port.cluster_ips.clone();
    Fragment { parts, cluster_ips }
}

/// What the treatments of one family become; the first of them gives the port its identity.
fn part(
    ours: &[&Treatment],
    served: Vec<Option<&Choices>>,
    relayed: bool,
    port: &ServicePort,
    problems: &mut Vec<Problem>,
) -> Option<Part> {
    let first = ours.first()?;
    let protocol = first.frontend.protocol;
    let spot = |treatment: &Treatment| Spot {
        address: match (treatment.frontend.place, first.frontend.place.family()) {
            (Place::Address(address), _) => address,
            (Place::NodePort(_), Family::V4) => IpAddr::from([0; 4]),
            (Place::NodePort(_), Family::V6) => IpAddr::from([0; 16]),
        },
        protocol,
        port: treatment.frontend.port.get(),
    };
    let id = spot(first);
    let mut lists = Lists::default();
    let mut part = Part {
        id,
        backing: Arc::default(),
        services: Vec::new(),
        allowed: Vec::new(),
        node_port: None,
        served: Vec::new(),
    };
    let treatments = ours.iter().zip(&served);
    let ways: Vec<[Way; 3]> = treatments
        .map(|(t, served)| match relayed {
            true => relay_ways(t),
            false => lists.ways(t, *served),
        })
        .collect();
    let endpoints = served.iter().flatten().flat_map(|s| s.addresses.iter());
    part.served.extend(endpoints);
    let backing = lists.backing(port, problems);
    for (treatment, ways) in ours.iter().zip(ways) {
        let at = spot(treatment);
        let via = match treatment.frontend.place {
            Place::NodePort(_) => Via::NodePort,
            Place::Address(_) if at == id => Via::Direct,
            Place::Address(_) => Via::Alias,
        };
        let class = class_of(via, treatment, ways, &backing);
        match via {
            Via::NodePort => part.node_port = Some((protocol, at.port, class)),
            _ => part.services.push((at, class)),
        }
        if let Some(sources) = &treatment.sources {
            // Overlapping ranges become one, for the kernel refuses them, and come in order.
            let nets: Vec<IpNet> = sources.iter().map(IpNet::trunc).collect();
            part.allowed.push((at, IpNet::aggregate(&nets).into()));
        }
    }
    let remembers = part.services.iter().map(|(_, class)| class);
    let remembers = remembers.chain(part.node_port.as_ref().map(|(_, _, class)| class));
    let remembers = remembers.into_iter().any(|class| class.affinity_s > 0);
    part.backing = Arc::new(Backing {
        remembers,
        ..backing
    });
    Some(part)
}

/// The relay chooses the endpoint; everything else the kernel does itself.
fn relay_ways(treatment: &Treatment) -> [Way; 3] {
    [&treatment.pod, &treatment.host, &treatment.outside].map(|action| match action {
        Action::Reject => Way::Reject,
        Action::Drop => Way::Drop,
        Action::Balance { .. } => Way::Server { masquerade: false },
    })
}

fn class_of(via: Via, treatment: &Treatment, ways: [Way; 3], backing: &Backing) -> Class {
    let [pod, host, outside] = ways;
    let count = |wanted: List| {
        let picks = |way: &Way| matches!(way, Way::Pick { list, .. } if *list == wanted);
        match ways.iter().any(picks) {
            true => backing.slot_count(wanted) as u16,
            false => 0,
        }
    };
    let (main, other) = (count(List::Main), count(List::Other));
    let affinity_s = match &treatment.affinity {
        Some(affinity) if main > 0 || other > 0 => {
            let longest = u64::from(Class::AFFINITY_S_MAX);
            affinity.timeout.as_secs().clamp(1, longest) as u32
        }
        _ => 0,
    };
    let balance = match main.max(other) {
        0 | 1 => Balance::Random,
        _ => treatment.balance,
    };
    Class {
        via,
        guarded: treatment.sources.is_some(),
        affinity_s,
        pod,
        host,
        outside,
        balance,
        main,
        other,
    }
}

/// The lists that treatments choose from, in the order in which they are met. The model knows two: those of the
/// whole cluster and those of this node.
#[derive(Default)]
struct Lists<'a>(Vec<&'a Choices>);

impl<'a> Lists<'a> {
    fn ways(&mut self, treatment: &'a Treatment, served: Option<&Choices>) -> [Way; 3] {
        let all = [&treatment.pod, &treatment.host, &treatment.outside];
        all.map(|action| self.way(action, served))
    }

    fn way(&mut self, action: &'a Action, served: Option<&Choices>) -> Way {
        let (endpoints, masquerade) = match action {
            Action::Reject => return Way::Reject,
            Action::Drop => return Way::Drop,
            Action::Balance {
                endpoints,
                masquerade,
            } if served == Some(endpoints) => {
                let masquerade = *masquerade;
                return Way::Server { masquerade };
            }
            Action::Balance {
                endpoints,
                masquerade,
            } => (endpoints, *masquerade),
        };
        let known = self.0.iter().position(|list| *list == endpoints);
        let index = known.unwrap_or_else(|| {
            self.0.push(endpoints);
            self.0.len() - 1
        });
        debug_assert!(index < 2, "the model decides with two lists");
        let list = match index {
            0 => List::Main,
            _ => List::Other,
        };
        Way::Pick { list, masquerade }
    }

    fn backing(&self, port: &ServicePort, problems: &mut Vec<Problem>) -> Backing {
        let mut backing = Backing::default();
        for (list, choices) in [List::Main, List::Other].into_iter().zip(&self.0) {
            let all = &choices.addresses;
            if all.len() > ENDPOINTS_MAX {
                problems.push(Problem {
                    service: port.key.service.clone(),
                    reason: "TooManyEndpoints",
                    message: format!(
                        "port {} has {} endpoints; only the first {ENDPOINTS_MAX} get connections",
                        port.port,
                        all.len()
                    ),
                });
            }
            let endpoints = &all[..all.len().min(ENDPOINTS_MAX)];
            let table = choices.slots(port.balance).unwrap_or_default();
            backing.set(list, endpoints, table);
        }
        backing
    }
}

/// The counters of a part, each once.
fn turns(part: &Part) -> BTreeSet<Turn> {
    let classes = part.services.iter().map(|(_, class)| class);
    let classes = classes.chain(part.node_port.as_ref().map(|(_, _, class)| class));
    classes.flat_map(|class| class.turns(part.id)).collect()
}

/// The addresses of all its endpoints, each once.
fn addresses(part: &Part) -> BTreeSet<IpAddr> {
    let lists = part.backing.main.iter().chain(part.backing.other.iter());
    let all = lists.chain(part.served.iter().copied());
    all.map(|to| to.ip()).collect()
}

/// Puts in everything but hairpins.
fn insert(state: &mut State, fragment: &Fragment) {
    for ip in &fragment.cluster_ips {
        count_up(&mut state.table_mut(Family::of(*ip)).cluster_ips, *ip);
    }
    for (family, part) in Family::ALL.into_iter().zip(&fragment.parts) {
        let Some(part) = part else { continue };
        let table = state.table_mut(family);
        let entry = |class| Entry { class, id: part.id };
        for (spot, class) in &part.services {
            table.services.insert(*spot, entry(*class));
            table.use_chain(family, ChainId::Class(*class));
        }
        if let Some((protocol, port, class)) = part.node_port {
            table.node_ports.insert((protocol, port), entry(class));
            table.use_chain(family, ChainId::Class(class));
        }
        for turn in turns(part) {
            table.use_chain(family, ChainId::Turn(turn));
        }
        for (spot, ranges) in &part.allowed {
            table.allowed.insert(*spot, ranges.clone());
        }
        if *part.backing != Backing::default() {
            table.backings.insert(part.id, part.backing.clone());
        }
    }
}

fn remove(state: &mut State, fragment: &Fragment) {
    for ip in &fragment.cluster_ips {
        count_down(&mut state.table_mut(Family::of(*ip)).cluster_ips, ip);
    }
    for (family, part) in Family::ALL.into_iter().zip(&fragment.parts) {
        let Some(part) = part else { continue };
        let table = state.table_mut(family);
        for (spot, class) in &part.services {
            table.services.remove(spot);
            table.drop_chain(&ChainId::Class(*class));
        }
        if let Some((protocol, port, class)) = part.node_port {
            table.node_ports.remove(&(protocol, port));
            table.drop_chain(&ChainId::Class(class));
        }
        for turn in turns(part) {
            table.drop_chain(&ChainId::Turn(turn));
        }
        for (spot, _) in &part.allowed {
            table.allowed.remove(spot);
        }
        table.backings.remove(&part.id);
        for ip in addresses(part) {
            count_down(&mut table.hairpins, &ip);
        }
    }
}
