//! What stands whatever Services there are: which chains, what is in them, and how packets get there.
//!
//! A fixed chain has *lines*, which belong to Services and stand in any order, and behind them a *tail*, which belongs
//! to the node. Lines come and go one by one, so that a change of one Service never rewrites those of others.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{Family, LocalPods, NodeFacts};

use super::Iptables;
use super::name::{Chain, Fixed, Table};
use super::rule::{Match, Rule, State, Target, comment};

/// A chain of the kernel in which our jumps stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets for the node itself.
    Input,
    /// Packets for others.
    Forward,
    /// Packets of the node's own processes.
    Output,
    /// Packets that leave.
    Postrouting,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 5] = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Prerouting => "PREROUTING",
            Hook::Input => "INPUT",
            Hook::Forward => "FORWARD",
            Hook::Output => "OUTPUT",
            Hook::Postrouting => "POSTROUTING",
        }
    }

    /// The hook with this name.
    pub fn named(name: &str) -> Option<Self> {
        Hook::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How rules recognise pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pods {
    /// Nobody is a pod.
    #[default]
    Nobody,
    /// Everything that arrives comes from pods.
    Everybody,
    /// A source in one of these ranges; they do not overlap, and there is at least one.
    Cidrs(Vec<IpNet>),
    /// Packets from an interface; a `+` at the end stands for any rest of a name.
    Interface(Arc<str>),
}

/// The longest interface name (IFNAMSIZ without the final zero).
const NAME_MAX: usize = 15;

impl Pods {
    fn of(pods: &LocalPods, family: Family) -> Self {
        match pods {
            LocalPods::Unknown => Pods::Nobody,
            LocalPods::Cidrs(cidrs) => match disjoint(cidrs, family) {
                cidrs if cidrs.is_empty() => Pods::Nobody,
                cidrs if cidrs.iter().any(|cidr| cidr.prefix_len() == 0) => Pods::Everybody,
                cidrs => Pods::Cidrs(cidrs),
            },
            LocalPods::InterfacePrefix(prefix) if prefix.is_empty() => Pods::Everybody,
            LocalPods::Interface(name) | LocalPods::InterfacePrefix(name) if !can_be(name) => {
                Pods::Nobody
            }
            LocalPods::Interface(name) => Pods::Interface(name.clone()),
            LocalPods::InterfacePrefix(prefix) if prefix.len() == NAME_MAX => {
                Pods::Interface(prefix.clone())
            }
            LocalPods::InterfacePrefix(prefix) => Pods::Interface(format!("{prefix}+").into()),
        }
    }
}

/// Whether an interface can have a name that is or starts so, and rules can ask for it: a `+` at the end would stand
/// for more, and quotes would end the word.
fn can_be(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\'' | '\\' | '+');
    (1..=NAME_MAX).contains(&name.len()) && !name.starts_with(['!', '-']) && name.chars().all(fine)
}

/// The ranges of one family, without overlaps, in order.
pub(crate) fn disjoint<'a>(
    ranges: impl IntoIterator<Item = &'a IpNet>,
    family: Family,
) -> Vec<IpNet> {
    let ours = |range: &&IpNet| Family::of(range.network()) == family;
    let ours: Vec<IpNet> = ranges.into_iter().filter(ours).map(IpNet::trunc).collect();
    let mut all = IpNet::aggregate(&ours);
    all.sort_unstable();
    all
}

/// What the rules of one family have to know of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ground {
    pub pods: Pods,
    /// Where NodePorts answer.
    pub node_ports: BTreeSet<IpAddr>,
    pub service_cidrs: Vec<IpNet>,
    /// Whether rules carry words for people.
    pub comments: bool,
    /// What users have chosen.
    pub options: Iptables,
}

impl Ground {
    pub fn of(options: Iptables, node: &NodeFacts, family: Family, comments: bool) -> Self {
        let ours = |ip: &&IpAddr| Family::of(**ip) == family;
        Ground {
            pods: Pods::of(&node.local_pods, family),
            node_ports: node
                .node_port_addresses
                .iter()
                .filter(ours)
                .copied()
                .collect(),
            service_cidrs: disjoint(&node.service_cidrs, family),
            comments,
            options,
        }
    }

    /// The chains that always stand.
    pub fn chains(&self) -> Vec<(Table, Fixed)> {
        let nat = [
            Fixed::MarkMasq,
            Fixed::Postrouting,
            Fixed::Services,
            Fixed::NodePorts,
        ];
        let filter = [
            Fixed::Services,
            Fixed::NodePorts,
            Fixed::ExternalServices,
            Fixed::Firewall,
            Fixed::Forward,
            Fixed::RefusedNodePorts,
            Fixed::Reject,
            Fixed::ClusterIps,
            Fixed::ClusterBlocks,
        ];
        let mut all: Vec<(Table, Fixed)> = Table::ALL.map(|t| (t, Fixed::Canary)).into();
        all.extend(nat.map(|chain| (Table::Nat, chain)));
        if matches!(&self.pods, Pods::Cidrs(cidrs) if cidrs.len() > 1) {
            all.push((Table::Nat, Fixed::MarkForeign));
        }
        all.extend(filter.map(|chain| (Table::Filter, chain)));
        all
    }

    /// The tail of a chain.
    pub fn tail(&self, table: Table, chain: Fixed) -> Vec<Rule> {
        match (table, chain) {
            (Table::Nat, Fixed::MarkMasq) => vec![Rule::new([], Target::Mark(self.options.mark))],
            (Table::Nat, Fixed::MarkForeign) => self.mark_foreign(),
            (Table::Nat, Fixed::Postrouting) => postrouting(self.options.mark),
            (Table::Nat, Fixed::Services) => {
                let why =
                    "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
                self.at_node_ports(why, Fixed::NodePorts)
            }
            (Table::Filter, Fixed::ExternalServices) => {
                self.at_node_ports("node ports that refuse", Fixed::RefusedNodePorts)
            }
            (Table::Filter, Fixed::Services) => self.unknown_cluster_ips(),
            (Table::Filter, Fixed::Forward) => forward(self.options),
            (Table::Filter, Fixed::Reject) => vec![
                Rule::new(
                    [Match::Protocol(portolan_model::Protocol::Tcp)],
                    Target::Reset,
                ),
                Rule::new([], Target::Unreachable),
            ],
            _ => Vec::new(),
        }
    }

    /// The node's own processes are no pods, also when they send from an address in the pods' ranges.
    fn mark_foreign(&self) -> Vec<Rule> {
        let mark = jump(Fixed::MarkMasq);
        let mut rules = vec![Rule::new([Match::LocalSource { not: false }], mark)];
        if let Pods::Cidrs(cidrs) = &self.pods {
            let pods = |&range: &IpNet| Rule::new([source(range)], Target::Return);
            rules.extend(cidrs.iter().map(pods));
        }
        rules.push(Rule::new([], mark));
        rules
    }

    fn at_node_ports(&self, why: &str, chain: Fixed) -> Vec<Rule> {
        let at = |ip: &IpAddr| {
            let words = comment(why.to_owned());
            Rule::new([Match::Destination(IpNet::from(*ip)), words], jump(chain))
        };
        self.node_ports.iter().map(at).collect()
    }

    fn unknown_cluster_ips(&self) -> Vec<Rule> {
        let to = |range: &IpNet, target| match range.prefix_len() {
            0 => Rule::new([], target),
            _ => Rule::new([Match::Destination(*range)], target),
        };
        let known = |range| to(range, jump(Fixed::ClusterIps));
        let mut rules = vec![Rule::new([], jump(Fixed::ClusterBlocks))];
        rules.extend(self.service_cidrs.iter().map(known));
        rules.extend(
            self.service_cidrs
                .iter()
                .map(|range| to(range, Target::Drop)),
        );
        rules
    }
}

/// A jump to a fixed chain.
pub(crate) const fn jump(chain: Fixed) -> Target {
    Target::Jump(Chain::Fixed(chain))
}

/// The condition that the source lies in `range`, which is not that of all addresses.
pub(crate) const fn source(range: IpNet) -> Match {
    Match::Source { not: false, range }
}

fn postrouting(mark: u32) -> Vec<Rule> {
    let words = comment("kubernetes service traffic requiring SNAT".to_owned());
    vec![
        Rule::new([Match::Marked { not: true, mark }], Target::Return),
        Rule::new([], Target::Unmark(mark)),
        Rule::new([words], Target::Masquerade),
    ]
}

fn forward(options: Iptables) -> Vec<Rule> {
    let words = |words: &str| comment(words.to_owned());
    let marked = [
        words("kubernetes forwarding rules"),
        Match::Marked {
            not: false,
            mark: options.mark,
        },
    ];
    let known = [
        words("kubernetes forwarding conntrack rule"),
        Match::State(State::Known),
    ];
    let invalid = Rule::new([Match::State(State::Invalid)], Target::Drop);
    let mut rules: Vec<Rule> = options
        .drop_invalid
        .then_some(invalid)
        .into_iter()
        .collect();
    rules.push(Rule::new(marked, Target::Accept));
    rules.push(Rule::new(known, Target::Accept));
    rules
}

/// Our jumps in the kernel's chains, in order. The order of the last three matters: an address of its own comes before
/// a NodePort, a guard before an address that nobody has. What has been sent to an endpoint is nobody's business here.
pub(crate) fn jumps(table: Table, hook: Hook) -> Vec<Rule> {
    let portals = "kubernetes service portals";
    let always = |words: &str, chain| Rule::new([comment(words.to_owned())], jump(chain));
    let refusing = || {
        let new = |words: &str, chain| {
            let states = [Match::State(State::New), Match::State(State::NotDnat)];
            Rule::new(
                states.into_iter().chain([comment(words.to_owned())]),
                jump(chain),
            )
        };
        [
            new(
                "kubernetes externally-visible service portals",
                Fixed::ExternalServices,
            ),
            new("kubernetes load balancer firewall", Fixed::Firewall),
            new(portals, Fixed::Services),
        ]
    };
    let first = match (table, hook) {
        (Table::Nat, Hook::Prerouting | Hook::Output) => {
            return vec![always(portals, Fixed::Services)];
        }
        (Table::Nat, Hook::Postrouting) => {
            return vec![always("kubernetes postrouting rules", Fixed::Postrouting)];
        }
        (Table::Filter, Hook::Input) => Some(always(
            "kubernetes health check service ports",
            Fixed::NodePorts,
        )),
        (Table::Filter, Hook::Forward) => {
            Some(always("kubernetes forwarding rules", Fixed::Forward))
        }
        (Table::Filter, Hook::Output) => None,
        _ => return Vec::new(),
    };
    first.into_iter().chain(refusing()).collect()
}

/// Every hook of every table with jumps of ours.
pub(crate) fn hooks() -> impl Iterator<Item = (Table, Hook)> {
    let of = |table| Hook::ALL.into_iter().map(move |hook| (table, hook));
    Table::ALL
        .into_iter()
        .flat_map(of)
        .filter(|(table, hook)| !jumps(*table, *hook).is_empty())
}
