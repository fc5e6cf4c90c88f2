//! The rules of the chains of one Service port.

use std::net::SocketAddr;

use ipnet::IpNet;
use portolan_model::Origin;

use super::layout::{Ground, Pods, jump, source};
use super::name::{Chain, Fixed, Hash, Role};
use super::part::{Choice, ClusterIp, Part, Way, Ways};
use super::rule::{CHANCE_ONE, Match, Rule, Target, comment};

/// The rules of `chain`, which is one of [`Part::chains`].
pub(crate) fn rules(part: &Part, ground: &Ground, chain: Chain) -> Vec<Rule> {
    let render = Render { part, ground };
    match chain {
        Chain::Fixed(_) => Vec::new(),
        Chain::Service(Role::Endpoint, hash) => render.endpoint(hash),
        Chain::Service(role @ (Role::Cluster | Role::Local), _) => render.list(role),
        Chain::Service(Role::External, _) => render.external(),
        Chain::Service(Role::Guard, _) => render.guard(),
    }
}

struct Render<'a> {
    part: &'a Part,
    ground: &'a Ground,
}

const MARK: Target = jump(Fixed::MarkMasq);

impl Render<'_> {
    /// A rule with words, if rules carry them.
    fn rule(
        &self,
        matches: impl IntoIterator<Item = Match>,
        target: Target,
        words: impl FnOnce(&str) -> String,
    ) -> Rule {
        let words = self
            .ground
            .comments
            .then(|| comment(words(&self.part.name)));
        Rule::new(matches.into_iter().chain(words), target)
    }

    fn endpoint(&self, hash: Hash) -> Vec<Rule> {
        let found = self.part.endpoints.iter().find(|(_, known)| *known == hash);
        let Some((address, _)) = found else {
            return Vec::new();
        };
        let itself = source(IpNet::from(address.ip()));
        let remember = (self.part.affinity_s > 0).then_some(Match::Remember(hash));
        let protocol = Match::Protocol(self.part.protocol);
        let to = Target::Dnat(*address);
        vec![
            self.rule([itself], MARK, str::to_owned),
            self.rule([protocol].into_iter().chain(remember), to, str::to_owned),
        ]
    }

    fn list(&self, role: Role) -> Vec<Rule> {
        let list = self.part.list(role);
        let mut rules = Vec::new();
        for ip in &self.part.cluster_ips {
            if matches!(ip.ways.outside, Way::To { list, .. } if list == role) {
                rules.extend(self.marks(ip));
            }
        }
        if self.part.affinity_s > 0 {
            let mut seen: Vec<u32> = list.iter().map(|choice| choice.endpoint).collect();
            seen.sort_unstable();
            seen.dedup();
            rules.extend(seen.into_iter().map(|endpoint| self.same_again(endpoint)));
        }
        match self.part.in_turn {
            true => rules.extend(self.in_turn(list)),
            false => rules.extend(self.at_random(list)),
        }
        rules
    }

    /// Masquerades whoever has to be on the way to a ClusterIP.
    fn marks(&self, ip: &ClusterIp) -> Vec<Rule> {
        let to_it = [
            Match::Destination(IpNet::from(ip.address)),
            Match::Protocol(self.part.protocol),
            Match::Port(self.part.protocol, ip.port),
        ];
        let words = |name: &str| format!("{name} cluster IP");
        let mark = |from: Option<Match>, target| {
            self.rule(to_it.iter().cloned().chain(from), target, words)
        };
        debug_assert!(
            ip.ways.host == ip.ways.outside,
            "the model tells pods from all others here"
        );
        if !ip.ways.outside.masquerades() {
            return Vec::new();
        }
        if ip.ways.pod.masquerades() {
            return vec![mark(None, MARK)];
        }
        let host = || mark(Some(Match::LocalSource { not: false }), MARK);
        match &self.ground.pods {
            Pods::Nobody => vec![mark(None, MARK)],
            Pods::Everybody => vec![host()],
            Pods::Interface(name) => {
                let name = name.clone();
                vec![mark(Some(Match::Interface { not: true, name }), MARK)]
            }
            Pods::Cidrs(cidrs) => match cidrs.as_slice() {
                [range] => {
                    let range = *range;
                    let others = Match::Source { not: true, range };
                    vec![mark(Some(others), MARK), host()]
                }
                _ => vec![mark(None, jump(Fixed::MarkForeign))],
            },
        }
    }

    fn same_again(&self, endpoint: u32) -> Rule {
        let (address, hash) = self.part.endpoints[endpoint as usize];
        let seconds = self.part.affinity_s;
        let remembered = Match::Remembered {
            endpoint: hash,
            seconds,
        };
        self.pick([remembered], address, hash)
    }

    fn pick(&self, when: impl IntoIterator<Item = Match>, address: SocketAddr, hash: Hash) -> Rule {
        let target = Target::Jump(Chain::Service(Role::Endpoint, hash));
        self.rule(when, target, |name| format!("{name} -> {address}"))
    }

    /// Whoever comes to a rule has been passed over by those before it, so its chance is its share of what is left.
    fn at_random<'a>(&'a self, list: &'a [Choice]) -> impl Iterator<Item = Rule> + 'a {
        let mut left: u64 = list.iter().map(|choice| u64::from(choice.share)).sum();
        list.iter().enumerate().map(move |(index, choice)| {
            let share = f64::from(choice.share) / left.max(1) as f64;
            left -= u64::from(choice.share);
            let chance = Match::Chance((share * CHANCE_ONE as f64).round() as u32);
            let (address, hash) = self.part.endpoints[choice.endpoint as usize];
            self.pick((index + 1 < list.len()).then_some(chance), address, hash)
        })
    }

    /// The first of n rules takes every n-th packet, the next every (n-1)-th of the others, and so on.
    fn in_turn<'a>(&'a self, list: &'a [Choice]) -> impl Iterator<Item = Rule> + 'a {
        list.iter().enumerate().map(|(index, choice)| {
            let left = (list.len() - index) as u32;
            let (address, hash) = self.part.endpoints[choice.endpoint as usize];
            self.pick((left > 1).then_some(Match::Turn(left)), address, hash)
        })
    }

    fn external(&self) -> Vec<Rule> {
        let Some(ways) = &self.part.external else {
            return Vec::new();
        };
        let mut rules = Vec::new();
        for (origin, way) in order(ways) {
            let from: Vec<Option<Match>> = match (origin, &self.ground.pods) {
                (None, _) | (Some(Origin::Outside), _) | (Some(Origin::Pod), Pods::Nobody) => {
                    vec![None]
                }
                (Some(Origin::Host), _) => vec![Some(Match::LocalSource { not: false })],
                (Some(Origin::Pod), Pods::Everybody) => {
                    vec![Some(Match::LocalSource { not: true })]
                }
                (Some(Origin::Pod), Pods::Interface(name)) => {
                    let (not, name) = (false, name.clone());
                    vec![Some(Match::Interface { not, name })]
                }
                (Some(Origin::Pod), Pods::Cidrs(cidrs)) => {
                    cidrs.iter().map(|range| Some(source(*range))).collect()
                }
            };
            if origin == Some(Origin::Pod) && self.ground.pods == Pods::Nobody {
                continue;
            }
            for from in from {
                rules.extend(self.way(origin, from, way));
            }
        }
        rules
    }

    /// Where flows of one origin go.
    fn way(&self, origin: Option<Origin>, from: Option<Match>, way: Way) -> Vec<Rule> {
        let (mark, lead) = match origin {
            None | Some(Origin::Outside) => ("masquerade traffic", "traffic"),
            Some(Origin::Host) => ("masquerade LOCAL traffic", "route LOCAL traffic"),
            Some(Origin::Pod) => ("masquerade pod traffic", "pod traffic"),
        };
        let words = |what: &'static str| {
            move |name: &str| format!("{what} for {name} external destinations")
        };
        let Way::To { list, masquerade } = way else {
            // Whoever else gets nowhere comes to the end of the chain.
            let back = from.map(|from| self.rule([from], Target::Return, words(lead)));
            return back.into_iter().collect();
        };
        let mut rules = Vec::new();
        if masquerade {
            rules.push(self.rule(from.clone(), MARK, words(mark)));
        }
        let target = Target::Jump(self.part.chain(list));
        match from {
            Some(from) => rules.push(self.rule([from], target, words(lead))),
            // As kube-proxy: the last rule needs no words.
            None => rules.push(Rule::new([], target)),
        }
        rules
    }

    /// Ranges that may use every guarded address, then those that may use one of them.
    fn guard(&self) -> Vec<Rule> {
        let external = Target::Jump(self.part.chain(Role::External));
        let words = |name: &str| format!("{name} loadbalancer IP");
        let guarded = &self.part.guarded;
        let everywhere = |range: &IpNet| guarded.iter().all(|other| other.sources.contains(range));
        let from = |range: &IpNet| (range.prefix_len() > 0).then_some(source(*range));
        let mut rules = Vec::new();
        for (index, one) in guarded.iter().enumerate() {
            for range in &one.sources {
                let to = match everywhere(range) {
                    true if index > 0 => continue,
                    true => None,
                    false => Some(Match::Destination(IpNet::from(one.address))),
                };
                rules.push(self.rule(from(range).into_iter().chain(to), external, words));
            }
        }
        rules
    }
}

/// In which order the origins are asked for; `None` is everybody. The node's own processes come before pods, since
/// they may send from an address in the pods' ranges.
fn order(ways: &Ways) -> Vec<(Option<Origin>, Way)> {
    match ways.pod == ways.host && ways.host == ways.outside {
        true => vec![(None, ways.outside)],
        false => [Origin::Host, Origin::Pod, Origin::Outside]
            .into_iter()
            .zip([ways.host, ways.pod, ways.outside])
            .map(|(origin, way)| (Some(origin), way))
            .collect(),
    }
}
