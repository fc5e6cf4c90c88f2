//! From the model's decisions to fragments, and fragments into and out of a State.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{
    Action, Balance, Choices, Family, Frontend, FrontendKind, Origin, Place, PortKey, Problem,
    Protocol, ServicePort, Snapshot, TrafficPolicy, Treatment, decide,
};

use super::layout::{Ground, jump, source};
use super::name::{Chain, Fixed, Hash, Role, Table, port_name};
use super::part::{Choice, ClusterIp, Guarded, Part, Way, Ways};
use super::rule::{Match, Rule, Target, comment};
use super::state::{Fragment, Line, Share, Side, State};
use super::{Iptables, LARGE_CLUSTER};

pub(crate) fn compile(options: Iptables, snapshot: &Snapshot) -> (State, Vec<Problem>) {
    let mut state = State::default();
    let mut problems = Vec::new();
    for family in Family::ALL {
        let listed = snapshot
            .ports()
            .map(|port| listed(port, family))
            .sum::<usize>();
        let ground = Ground::of(options, snapshot.node(), family, listed <= LARGE_CLUSTER);
        *state.side_mut(family) = Side::of(family, ground);
    }
    for port in snapshot.ports() {
        problems.extend(snapshot.problems(port));
        let fragment = Arc::new(fragment(&state, snapshot, port, &mut problems));
        insert(&mut state, &fragment);
        state.fragments.insert(port.key.clone(), fragment);
    }
    (state, problems)
}

/// Takes out all old fragments before any new one goes in: a frontend may have moved from one port to another.
pub(crate) fn update(
    options: Iptables,
    state: &mut State,
    snapshot: &Snapshot,
    touched: &[PortKey],
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut changed = Vec::new();
    for key in touched {
        let new = snapshot.port(key).map(|port| {
            problems.extend(snapshot.problems(port));
            Arc::new(fragment(state, snapshot, port, &mut problems))
        });
        if state.fragments.get(key) == new.as_ref() {
            continue;
        }
        if let Some(old) = state.fragments.remove(key) {
            for (family, share) in Family::ALL.into_iter().zip(&old.shares) {
                state.side_mut(family).remove(share);
            }
        }
        changed.extend(new.map(|fragment| (key, fragment)));
    }
    for (key, fragment) in changed {
        insert(state, &fragment);
        state.fragments.insert(key.clone(), fragment);
    }
    let grown = |family| {
        let side = state.side(family);
        side.ground.comments != (side.endpoints <= LARGE_CLUSTER)
    };
    if Family::ALL.into_iter().any(grown) {
        // The words for people go, or come back, everywhere at once: rare, and then the cluster is of no great size.
        *state = compile(options, snapshot).0;
    }
    problems
}

fn insert(state: &mut State, fragment: &Fragment) {
    for (family, share) in Family::ALL.into_iter().zip(&fragment.shares) {
        state.side_mut(family).insert(family, share);
    }
}

fn listed(port: &ServicePort, family: Family) -> usize {
    let ours = |ip: IpAddr| Family::of(ip) == family;
    port.endpoints
        .iter()
        .filter(|e| ours(e.address.ip()))
        .count()
}

fn fragment(
    state: &State,
    snapshot: &Snapshot,
    port: &ServicePort,
    problems: &mut Vec<Problem>,
) -> Fragment {
    problems.extend(unsupported(port));
    let treatments = decide(snapshot.node(), port);
    let share = |family: Family| {
        let ours = |t: &&Treatment| t.frontend.place.family() == family;
        let reader = Reader {
            port,
            name: port_name(&port.key).into(),
            hash: Hash::of_port(&port.key),
            ground: &state.side(family).ground,
            pods_known: snapshot.node().local_pods.known(family),
            treatments: treatments.iter().filter(ours).collect(),
        };
        reader.share(family)
    };
    Fragment {
        shares: Family::ALL.map(share),
    }
}

/// iptables can choose by the client's address only with a memory; hashes as in the other modes are beyond it.
fn unsupported(port: &ServicePort) -> Option<Problem> {
    let hashed = matches!(port.balance, Balance::SourceHash | Balance::Maglev);
    hashed.then(|| Problem {
        service: port.key.service.clone(),
        reason: Problem::NOT_IN_THIS_MODE,
        message: format!(
            "portolan.dev/balance {} is not possible in proxy mode iptables, so port {} chooses at random; use mode nftables, or sessionAffinity ClientIP",
            port.balance, port.port
        ),
    })
}

/// Reads the treatments of one port in one family.
struct Reader<'a> {
    port: &'a ServicePort,
    name: Arc<str>,
    hash: Hash,
    ground: &'a Ground,
    pods_known: bool,
    treatments: Vec<&'a Treatment>,
}

impl Reader<'_> {
    fn share(&self, family: Family) -> Share {
        let mut lines = self.common_lines(family);
        for treatment in &self.treatments {
            match treatment.frontend.place {
                Place::Address(address) => self.address_lines(treatment, address, &mut lines),
                Place::NodePort(_) => self.node_port_lines(treatment, &mut lines),
            }
        }
        lines.sort_unstable();
        lines.dedup();
        let part = self.part();
        let part = (!part.chains().is_empty()).then(|| Arc::new(part));
        let endpoints = listed(self.port, family);
        Share {
            part,
            lines,
            endpoints,
        }
    }

    /// Which list a treatment chooses from: policies only give the chain its name, the list is the model's.
    fn list_of(&self, kind: FrontendKind, origin: Origin) -> Role {
        let external = self.port.external_policy;
        let policy = match (kind, origin) {
            (FrontendKind::ClusterIp, _) => self.port.internal_policy,
            (_, Origin::Outside) => external,
            (_, Origin::Pod) if !self.pods_known => external,
            _ => TrafficPolicy::Cluster,
        };
        match policy {
            TrafficPolicy::Cluster => Role::Cluster,
            TrafficPolicy::Local => Role::Local,
        }
    }

    fn ways(&self, treatment: &Treatment) -> Ways {
        let way = |origin| match treatment.action(origin) {
            Action::Reject => Way::Reject,
            Action::Drop => Way::Drop,
            Action::Balance { masquerade, .. } => Way::To {
                list: self.list_of(treatment.kind, origin),
                masquerade: *masquerade,
            },
        };
        Ways {
            pod: way(Origin::Pod),
            host: way(Origin::Host),
            outside: way(Origin::Outside),
        }
    }

    fn part(&self) -> Part {
        let (cluster, local) = (self.choices(Role::Cluster), self.choices(Role::Local));
        let both = [&cluster, &local].into_iter().flatten();
        let mut addresses: Vec<SocketAddr> =
            both.flat_map(|c| c.addresses.iter().copied()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let key = &self.port.key;
        let endpoints: Vec<(SocketAddr, Hash)> = addresses
            .into_iter()
            .map(|a| (a, Hash::of_endpoint(key, a)))
            .collect();
        let list = |choices: Option<&Choices>| {
            choices.map_or_else(Vec::new, |choices| self.list(choices, &endpoints))
        };
        let (cluster, local) = (list(cluster), list(local));
        let affinity = self
            .port
            .affinity
            .map_or(0, |affinity| affinity.timeout.as_secs().max(1));
        let mut part = Part {
            name: self.name.clone(),
            hash: self.hash,
            protocol: key.protocol,
            affinity_s: u32::try_from(affinity).unwrap_or(u32::MAX),
            in_turn: self.port.balance == Balance::RoundRobin,
            cluster,
            local,
            endpoints,
            cluster_ips: Vec::new(),
            external: None,
            guarded: Vec::new(),
        };
        for treatment in &self.treatments {
            self.add(&mut part, treatment);
        }
        part
    }

    fn add(&self, part: &mut Part, treatment: &Treatment) {
        let ways = self.ways(treatment);
        if !ways.lead() {
            return;
        }
        let Frontend { place, port, .. } = treatment.frontend;
        match (treatment.kind, place) {
            (FrontendKind::ClusterIp, Place::Address(address)) => {
                part.cluster_ips.push(ClusterIp {
                    address,
                    port: port.get(),
                    ways,
                });
            }
            _ => {
                debug_assert!(
                    part.external.is_none_or(|known| known == ways),
                    "the model treats all external frontends the same"
                );
                part.external = Some(ways);
            }
        }
        if let (Some(sources), Place::Address(address)) = (&treatment.sources, place) {
            let sources = super::layout::disjoint(sources, Family::of(address));
            part.guarded.push(Guarded { address, sources });
        }
    }

    /// Whom a list of this name chooses from.
    fn choices(&self, role: Role) -> Option<&Choices> {
        let mut found = None;
        for treatment in &self.treatments {
            for origin in [Origin::Pod, Origin::Host, Origin::Outside] {
                if let Action::Balance { endpoints, .. } = treatment.action(origin)
                    && self.list_of(treatment.kind, origin) == role
                {
                    debug_assert!(
                        found.is_none_or(|known| known == endpoints),
                        "the model decides with one list for each policy"
                    );
                    found = Some(endpoints);
                }
            }
        }
        found
    }

    fn list(&self, choices: &Choices, endpoints: &[(SocketAddr, Hash)]) -> Vec<Choice> {
        let choice = |address: &SocketAddr, share| {
            let found = endpoints.binary_search_by_key(address, |(known, _)| *known);
            Some(Choice {
                endpoint: u32::try_from(found.ok()?).ok()?,
                share,
            })
        };
        if self.port.balance == Balance::RoundRobin
            && let Some(slots) = choices.slots(Balance::RoundRobin)
        {
            let of_slot = |slot: &u16| choice(choices.addresses.get(usize::from(*slot))?, 1);
            return slots.iter().filter_map(of_slot).collect();
        }
        // The client does not matter to a random choice.
        let anybody = SocketAddr::from(([0, 0, 0, 0], 0));
        let shares = choices.shares(Balance::Random, anybody);
        shares
            .iter()
            .filter_map(|(address, share)| choice(address, *share))
            .collect()
    }

    /// Lines that belong to the Service as a whole.
    fn common_lines(&self, family: Family) -> Vec<Line> {
        let mut lines = Vec::new();
        for &ip in self
            .port
            .cluster_ips
            .iter()
            .filter(|ip| Family::of(**ip) == family)
        {
            let here = Match::Destination(IpNet::from(ip));
            let rule = Rule::new([here], Target::Goto(Chain::Fixed(Fixed::Reject)));
            lines.push(line(Table::Filter, Fixed::ClusterIps, rule));
            if !self
                .ground
                .service_cidrs
                .iter()
                .any(|range| range.contains(&ip))
            {
                let rule = Rule::new([Match::Destination(block(ip))], jump(Fixed::ClusterIps));
                lines.push(line(Table::Filter, Fixed::ClusterBlocks, rule));
            }
        }
        if let Some(port) = self.port.health_check_node_port
            && self.port.families.contains(family)
        {
            let to = [
                Match::Protocol(Protocol::Tcp),
                Match::Port(Protocol::Tcp, port.get()),
            ];
            // Without the port's name: all ports of a Service share this line.
            let words = self
                .ground
                .comments
                .then(|| comment(format!("{} health check node port", self.port.key.service)));
            let rule = Rule::new(to.into_iter().chain(words), Target::Accept);
            lines.push(line(Table::Filter, Fixed::NodePorts, rule));
        }
        lines
    }

    /// A rule for packets to one frontend.
    fn at(
        &self,
        frontend: &Frontend,
        from: Option<Match>,
        target: Target,
        words: impl FnOnce() -> String,
    ) -> Rule {
        let address = match frontend.place {
            Place::Address(address) => Some(Match::Destination(IpNet::from(address))),
            Place::NodePort(_) => None,
        };
        let words = self.ground.comments.then(|| comment(words()));
        let protocol = frontend.protocol;
        let port = Match::Port(protocol, frontend.port.get());
        let all = [Match::Protocol(protocol), port];
        Rule::new(
            all.into_iter().chain(address).chain(from).chain(words),
            target,
        )
    }

    fn address_lines(&self, treatment: &Treatment, address: IpAddr, lines: &mut Vec<Line>) {
        let Treatment {
            frontend,
            kind,
            sources,
            ..
        } = treatment;
        let ways = self.ways(treatment);
        let name = &self.name;
        // At an address where NodePorts answer too, a packet must not come to these after it has been here.
        let shared = self.ground.node_ports.contains(&address);
        let what = match kind {
            FrontendKind::ClusterIp => "cluster IP",
            FrontendKind::ExternalIp => "external IP",
            FrontendKind::LoadBalancer | FrontendKind::NodePort => "loadbalancer IP",
        };
        let words = || format!("{name} {what}");
        if ways.lead() {
            let role = match kind {
                FrontendKind::ClusterIp => self.list_of(*kind, Origin::Outside),
                _ if sources.is_some() => Role::Guard,
                _ => Role::External,
            };
            let chain = Chain::Service(role, self.hash);
            let target = match shared {
                true => Target::Goto(chain),
                false => Target::Jump(chain),
            };
            let rule = self.at(frontend, None, target, words);
            lines.push(line(Table::Nat, Fixed::Services, rule));
        } else if shared {
            let rule = self.at(frontend, None, Target::Return, words);
            lines.push(line(Table::Nat, Fixed::Services, rule));
        }
        if sources.is_some() {
            let words = || {
                format!(
                    "{name} traffic not accepted by {}{}",
                    Role::Guard.prefix(),
                    self.hash
                )
            };
            let rule = self.at(frontend, None, Target::Drop, words);
            lines.push(line(Table::Filter, Fixed::Firewall, rule));
        }
        let anybody = |range: &IpNet| range.prefix_len() == 0;
        if let Some(ranges) = sources
            && shared
            && !super::layout::disjoint(ranges, Family::of(address))
                .iter()
                .any(anybody)
        {
            // Whom the firewall will drop must not come to a NodePort that refuses. It stands behind the lines with
            // sources, since those come first in the order of rules.
            let rule = self.at(frontend, None, Target::Return, words);
            lines.push(line(Table::Filter, Fixed::ExternalServices, rule));
        }
        let Some(refusal) = ways.refusal() else {
            return;
        };
        let (target, why) = refuse(refusal, frontend.protocol);
        let chain = match kind {
            FrontendKind::ClusterIp if !shared => Fixed::Services,
            _ => Fixed::ExternalServices,
        };
        let froms: Vec<Option<Match>> = match (sources, refusal) {
            (None, _) => vec![None],
            // The firewall is as silent.
            (Some(_), Way::Drop) => Vec::new(),
            (Some(ranges), _) => super::layout::disjoint(ranges, Family::of(address))
                .into_iter()
                .map(|range| (range.prefix_len() > 0).then_some(source(range)))
                .collect(),
        };
        for from in froms {
            let rule = self.at(frontend, from, target, || format!("{name} {why}"));
            lines.push(line(Table::Filter, chain, rule));
        }
    }

    fn node_port_lines(&self, treatment: &Treatment, lines: &mut Vec<Line>) {
        let ways = self.ways(treatment);
        let name = &self.name;
        if ways.lead() {
            let external = Target::Jump(Chain::Service(Role::External, self.hash));
            let rule = self.at(&treatment.frontend, None, external, || name.to_string());
            lines.push(line(Table::Nat, Fixed::NodePorts, rule));
        }
        if let Some(refusal) = ways.refusal() {
            let (target, why) = refuse(refusal, treatment.frontend.protocol);
            let rule = self.at(&treatment.frontend, None, target, || {
                format!("{name} {why}")
            });
            lines.push(line(Table::Filter, Fixed::RefusedNodePorts, rule));
        }
    }
}

fn line(table: Table, chain: Fixed, rule: Rule) -> Line {
    Line { table, chain, rule }
}

/// How a refusal looks, and why it is.
fn refuse(way: Way, protocol: Protocol) -> (Target, &'static str) {
    match (way, protocol) {
        (Way::Reject, Protocol::Tcp) => (Target::Reset, "has no endpoints"),
        (Way::Reject, _) => (Target::Unreachable, "has no endpoints"),
        _ => (Target::Drop, "has no local endpoints"),
    }
}

/// The range around a ClusterIP that lies in no known Service range: packets to other ranges need not look through
/// all ClusterIPs.
fn block(ip: IpAddr) -> IpNet {
    let length = match ip {
        IpAddr::V4(_) => 16,
        IpAddr::V6(_) => 108,
    };
    let block = IpNet::new(ip, length).expect("invariant: the length fits the family");
    block.trunc()
}
