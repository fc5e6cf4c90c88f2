//! The chain of one class: who may enter, who is masqueraded, which endpoint it goes to.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{Balance, Origin};

use super::super::class::{Class, List, Via, Way};
use super::super::expr::{Expr, Field, Reg, Rule};
use super::super::layout::SetName;
use super::{Pods, Registers, SCRATCH, pick, rejections, set_mark, to_server};

/// The chain of one class.
pub(super) struct Chain<'a> {
    pub at: Registers,
    pub class: &'a Class,
    pub pods: &'a Pods,
    pub doors: &'a [(SocketAddr, Origin)],
}

impl Chain<'_> {
    /// Whoever finds nothing where there is something (see `Ops::transactions`) is dropped at the end: the client asks
    /// again, in a flow of its own. One that passed would be translated by nobody for as long as it lives.
    pub fn rules(&self) -> Vec<Rule> {
        let class = self.class;
        let mut rules = Vec::new();
        if class.guarded {
            rules.push(self.guard());
        }
        let ways = [Origin::Host, Origin::Pod, Origin::Outside].map(|o| (o, class.way(o)));
        self.serve_all(&ways, &mut rules);
        if ways.iter().any(|(_, way)| matches!(way, Way::Pick { .. })) {
            rules.push(Rule(vec![Expr::Drop]));
        }
        rules
    }

    fn serve_all(&self, ways: &[(Origin, Way); 3], rules: &mut Vec<Rule>) {
        let class = self.class;
        let one = ways
            .iter()
            .all(|(_, way)| way.target() == class.host.target() && !self.is_relayed(*way));
        if !one {
            for (origin, way) in *ways {
                let condition = match origin {
                    Origin::Outside => Vec::new(),
                    _ => self.condition(origin),
                };
                match self.is_relayed(way) {
                    true => rules.extend(self.relay(&condition, origin)),
                    false => self.serve(&condition, way, way.masquerades(), rules),
                }
            }
            return;
        }
        let all = ways.iter().all(|(_, way)| way.masquerades());
        if !all {
            for (origin, _) in ways.iter().filter(|(_, way)| way.masquerades()) {
                let mut rule = self.condition(*origin);
                rule.extend(set_mark());
                rules.push(Rule(rule));
            }
        }
        self.serve(&[], class.host, all, rules);
    }

    /// Drops whoever may not enter.
    fn guard(&self) -> Rule {
        let at = &self.at;
        Rule(vec![
            Expr::Load(Field::Destination, at.destination),
            Expr::Load(Field::Port, at.port),
            Expr::Load(Field::Protocol, at.protocol),
            Expr::Load(Field::Source, at.last),
            Expr::Member {
                set: SetName::Allowed,
                key: at.destination,
                negate: true,
            },
            Expr::Drop,
        ])
    }

    /// Matches packets of `origin` only.
    fn condition(&self, origin: Origin) -> Vec<Expr> {
        let host = origin == Origin::Host;
        let mut all = vec![
            Expr::Load(Field::Interface, SCRATCH),
            Expr::Compare {
                reg: SCRATCH,
                negate: !host,
                bytes: vec![0; 4],
            },
        ];
        if host {
            return all;
        }
        let negate = origin == Origin::Outside;
        let name = |bytes: Vec<u8>| {
            [
                Expr::Load(Field::InterfaceName, SCRATCH),
                Expr::Compare {
                    reg: SCRATCH,
                    negate,
                    bytes,
                },
            ]
        };
        // What can never be true, for "no packet comes from a pod" and "no packet comes from elsewhere".
        let never = Expr::Compare {
            reg: SCRATCH,
            negate: false,
            bytes: vec![0; 4],
        };
        match self.pods {
            Pods::Unknown if negate => {}
            Pods::Unknown => all.push(never),
            Pods::Cidrs => all.extend([
                Expr::Load(Field::Source, self.at.last),
                Expr::Member {
                    set: SetName::PodCidrs,
                    key: self.at.last,
                    negate,
                },
            ]),
            Pods::Interface(interface) => {
                let mut bytes = interface.as_bytes().to_vec();
                bytes.resize(16, 0);
                all.extend(name(bytes));
            }
            Pods::InterfacePrefix(prefix) if prefix.is_empty() => {
                all.extend(negate.then_some(never));
            }
            Pods::InterfacePrefix(prefix) => all.extend(name(prefix.as_bytes().to_vec())),
        }
        all
    }

    /// Whether a relay serves: each origin has a door of its own.
    fn is_relayed(&self, way: Way) -> bool {
        matches!(way, Way::Server { .. }) && !self.doors.is_empty()
    }

    /// To the door of `origin`; without one there is no rule, and the packet passes.
    fn relay(&self, condition: &[Expr], origin: Origin) -> Option<Rule> {
        let (door, _) = self.doors.iter().find(|(_, of)| *of == origin)?;
        let address = match door.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let (at, port) = (&self.at, door.port().to_be_bytes().to_vec());
        let goal = [
            Expr::Value {
                into: at.endpoint,
                bytes: address,
            },
            Expr::Value {
                into: at.endpoint_port,
                bytes: port,
            },
            Expr::Dnat {
                address: at.endpoint,
                port: at.endpoint_port,
            },
        ];
        Some(Rule([condition, &goal].concat()))
    }

    fn serve(&self, condition: &[Expr], way: Way, masquerade: bool, rules: &mut Vec<Rule>) {
        match way {
            Way::Reject => rules.extend(rejections(&self.at, condition)),
            Way::Drop => {
                let mut rule = condition.to_vec();
                rule.push(Expr::Drop);
                rules.push(Rule(rule));
            }
            Way::Server { .. } => {
                let mut rule = condition.to_vec();
                if masquerade {
                    rule.extend(set_mark());
                }
                rule.extend(to_server());
                rules.push(Rule(rule));
            }
            Way::Pick { list, .. } => {
                let mut goal: Vec<Expr> = Vec::new();
                if masquerade {
                    goal.extend(set_mark());
                }
                goal.push(Expr::Dnat {
                    address: self.at.endpoint,
                    port: self.at.endpoint_port,
                });
                if self.class.affinity_s > 0 {
                    self.known(condition, list, &goal, rules);
                }
                if self.class.balance == Balance::RoundRobin {
                    let mark = match masquerade {
                        true => &goal[..goal.len() - 1],
                        false => &[],
                    };
                    let parts = [condition, mark, &self.identity(), &self.turn(list)];
                    return rules.push(Rule(parts.concat()));
                }
                if self.class.affinity_s > 0 {
                    self.new_client(condition, list, &goal, rules);
                }
                let parts = [condition, &self.identity(), &self.pick(list), &goal];
                rules.push(Rule(parts.concat()));
            }
        }
    }

    /// Loads the identity of the Service port.
    fn identity(&self) -> Vec<Expr> {
        let at = &self.at;
        let mut all = vec![
            Expr::Load(Field::Destination, at.destination),
            Expr::Load(Field::Port, at.port),
            Expr::Load(Field::Protocol, at.protocol),
        ];
        let into = at.class_pad;
        match self.class.via {
            Via::Direct => {}
            Via::Alias => all.push(Expr::Find {
                map: SetName::Services,
                key: at.destination,
                into,
            }),
            Via::NodePort => all.push(Expr::Find {
                map: SetName::NodePorts,
                key: at.port,
                into,
            }),
        }
        all
    }

    /// Chooses an endpoint of a list.
    fn pick(&self, list: List) -> Vec<Expr> {
        let class = self.class;
        let mut all = pick::slot(&self.at, class.balance, class.slots(list), list);
        all.extend(pick::endpoint(&self.at, class.affinity_s > 0));
        all
    }

    /// Goes to the counter of a list; the identity is loaded.
    fn turn(&self, list: List) -> [Expr; 3] {
        let at = &self.at;
        let [number, affinity_s] = self.class.turn_numbers(list);
        let value = |into, number: u32| Expr::Value {
            into,
            bytes: number.to_ne_bytes().to_vec(),
        };
        let dispatch = Expr::Dispatch {
            map: SetName::Turns,
            key: at.destination,
        };
        [
            value(at.last, number),
            value(Reg(at.last.0 + 1), affinity_s),
            dispatch,
        ]
    }

    /// Two rules for clients that are remembered: whoever's endpoint is still there goes to it; if it is gone, the client
    /// is forgotten.
    fn known(&self, condition: &[Expr], list: List, goal: &[Expr], rules: &mut Vec<Rule>) {
        let at = &self.at;
        let source = [Expr::Load(Field::Source, at.last)];
        let client = [condition, &self.identity(), &source].concat();
        let set = match list {
            List::Main => SetName::Members,
            List::Other => SetName::OtherMembers,
        };
        let there = [Expr::Member {
            set,
            key: at.endpoint,
            negate: false,
        }];
        let known = pick::found(at, SetName::Affinity);
        let forget = [Expr::Forget {
            key: at.destination,
            data: at.pad,
        }];
        rules.push(Rule(
            [&client, &known, &there[..], &self.remember(), goal].concat(),
        ));
        rules.push(Rule([&client, &known, &forget[..]].concat()));
    }

    /// A client that is not known is balanced and remembered. (The rule after this serves when the memory is full.)
    fn new_client(&self, condition: &[Expr], list: List, goal: &[Expr], rules: &mut Vec<Rule>) {
        let source = [Expr::Load(Field::Source, self.at.last)];
        let (identity, pick) = (self.identity(), self.pick(list));
        rules.push(Rule(
            [condition, &identity, &pick, &source, &self.remember(), goal].concat(),
        ));
    }

    fn remember(&self) -> [Expr; 1] {
        [Expr::Remember {
            key: self.at.destination,
            data: self.at.pad,
            timeout_s: self.class.affinity_s,
        }]
    }
}
