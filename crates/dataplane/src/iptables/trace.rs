//! What a kernel that holds a State does with the first packet of a flow.
//!
//! An interpreter of the rules as they are rendered, table by table and hook by hook; it knows nothing of Services or
//! decisions. Every random choice is followed. A packet has one of the node's addresses as its source exactly when a
//! process of the node has sent it: the kernel drops what arrives with such a source.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{Family, Packet, Verdict};

use super::fraction::{Fraction, lcm};
use super::layout::Hook;
use super::name::Table;
use super::rule::{CHANCE_ONE, Match, Rule, State as Flow, Target};
use super::state::{Side, State};

/// Follows `packet` through the hooks that it meets.
pub(crate) fn trace(state: &State, packet: &Packet) -> Verdict {
    let (world, entrance) = World::of(state, packet);
    // Where a packet that arrives goes on is for routes to say, and both ways must do the same.
    let gates: &[Hook] = match entrance {
        Hook::Output => &[Hook::Output],
        _ => &[Hook::Input, Hook::Forward],
    };
    let mut choices = BTreeMap::new();
    let mut others = Vec::new();
    for (_, machine) in world.hook(Table::Nat, entrance, Machine::of(packet)) {
        for gate in gates {
            for (end, machine) in world.hook(Table::Filter, *gate, machine.clone()) {
                match end {
                    End::Drop => others.push(Verdict::Drop),
                    End::Reject => others.push(Verdict::Reject),
                    _ if machine.rewritten => {
                        let to = machine.packet.destination;
                        choices.insert(to, world.masquerades(machine));
                    }
                    _ => others.push(Verdict::Pass),
                }
            }
        }
    }
    // Random branches that end in different ways: the worst of them counts.
    let worst = [Verdict::Pass, Verdict::Drop, Verdict::Reject];
    let worst = worst.into_iter().find(|verdict| others.contains(verdict));
    worst.unwrap_or(Verdict::Deliver(choices))
}

/// How likely each endpoint is, in the smallest whole numbers.
pub(crate) fn shares(state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
    let (world, entrance) = World::of(state, packet);
    let mut likely: BTreeMap<SocketAddr, Fraction> = BTreeMap::new();
    for (_, machine) in world.hook(Table::Nat, entrance, Machine::of(packet)) {
        if machine.rewritten {
            let known = likely
                .entry(machine.packet.destination)
                .or_insert(Fraction::ZERO);
            *known = known.plus(machine.likely);
        }
    }
    let whole = likely.values().fold(1, |all, one| lcm(all, one.below));
    let share = |one: Fraction| u32::try_from(one.above * (whole / one.below)).unwrap_or(u32::MAX);
    likely
        .into_iter()
        .map(|(endpoint, one)| (endpoint, share(one)))
        .collect()
}

/// How a chain ends for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing was decided: on in the chain that led here.
    Back,
    Accept,
    Drop,
    Reject,
    Dnat,
    Masquerade,
}

/// A packet on its way.
#[derive(Clone)]
struct Machine {
    packet: Packet,
    rewritten: bool,
    marked: bool,
    /// How likely the random choices are that led here.
    likely: Fraction,
}

impl Machine {
    fn of(packet: &Packet) -> Self {
        Machine {
            packet: packet.clone(),
            rewritten: false,
            marked: false,
            likely: Fraction::ONE,
        }
    }
}

struct World<'a> {
    side: &'a Side,
}

impl<'a> World<'a> {
    /// What `packet` meets, and where it begins.
    fn of(state: &'a State, packet: &Packet) -> (Self, Hook) {
        let side = state.side(Family::of(packet.destination.ip()));
        let entrance = match packet.interface {
            None => Hook::Output,
            Some(_) => Hook::Prerouting,
        };
        (World { side }, entrance)
    }

    fn masquerades(&self, machine: Machine) -> bool {
        let ends = self.hook(Table::Nat, Hook::Postrouting, machine);
        ends.iter().any(|(end, _)| *end == End::Masquerade)
    }

    /// Every way in which a packet can leave a hook: at its end it is accepted.
    fn hook(&self, table: Table, hook: Hook, machine: Machine) -> Vec<(End, Machine)> {
        match self.side.jumps.get(&(table, hook)) {
            Some(rules) => self.run(table, rules, machine),
            None => vec![(End::Back, machine)],
        }
    }

    fn run(&self, table: Table, rules: &[Rule], machine: Machine) -> Vec<(End, Machine)> {
        let mut ends = Vec::new();
        let mut packets = vec![machine];
        for rule in rules {
            let mut fallen = Vec::new();
            for machine in packets {
                match meets(rule, &machine) {
                    Meets::No => fallen.push(machine),
                    Meets::Yes => self.go(table, rule.target, machine, &mut fallen, &mut ends),
                    Meets::Perhaps(chance) => {
                        let with = |likely| Machine {
                            likely,
                            ..machine.clone()
                        };
                        fallen.push(with(machine.likely.times(chance.rest())));
                        let machine = with(machine.likely.times(chance));
                        self.go(table, rule.target, machine, &mut fallen, &mut ends);
                    }
                }
            }
            packets = fallen;
        }
        ends.extend(packets.into_iter().map(|machine| (End::Back, machine)));
        ends
    }

    fn go(
        &self,
        table: Table,
        target: Target,
        mut machine: Machine,
        fallen: &mut Vec<Machine>,
        ends: &mut Vec<(End, Machine)>,
    ) {
        let end = match target {
            Target::Jump(chain) => {
                for (end, machine) in self.run(table, &self.side.rules(table, chain), machine) {
                    match end {
                        End::Back => fallen.push(machine),
                        end => ends.push((end, machine)),
                    }
                }
                return;
            }
            Target::Goto(chain) => {
                return ends.extend(self.run(table, &self.side.rules(table, chain), machine));
            }
            Target::Mark(_) | Target::Unmark(_) => {
                machine.marked = matches!(target, Target::Mark(_));
                return fallen.push(machine);
            }
            Target::Return => End::Back,
            Target::Accept => End::Accept,
            Target::Drop => End::Drop,
            Target::Reset | Target::Unreachable => End::Reject,
            Target::Masquerade => End::Masquerade,
            Target::Dnat(to) => {
                machine.packet.destination = to;
                machine.rewritten = true;
                End::Dnat
            }
        };
        ends.push((end, machine));
    }
}

enum Meets {
    No,
    Perhaps(Fraction),
    Yes,
}

fn meets(rule: &Rule, machine: &Machine) -> Meets {
    let mut all = Meets::Yes;
    for one in &rule.matches {
        match condition(one, machine) {
            Meets::Yes => {}
            Meets::Perhaps(chance) => all = Meets::Perhaps(chance),
            Meets::No => return Meets::No,
        }
    }
    all
}

fn condition(one: &Match, machine: &Machine) -> Meets {
    let Packet {
        source,
        destination,
        protocol,
        interface,
    } = &machine.packet;
    let yes = match one {
        Match::Source { not, range } => range.contains(&source.ip()) != *not,
        Match::Destination(range) => range.contains(&destination.ip()),
        Match::Interface { not, name } => {
            let arrived = interface.as_deref().unwrap_or_default();
            let same = match name.strip_suffix('+') {
                Some(start) => arrived.starts_with(start),
                None => arrived == &**name,
            };
            same != *not
        }
        Match::Protocol(of) => of == protocol,
        Match::Port(of, port) => of == protocol && *port == destination.port(),
        Match::LocalSource { not } => interface.is_none() != *not,
        Match::State(Flow::New) => true,
        Match::State(Flow::NotDnat) => !machine.rewritten,
        Match::State(Flow::Invalid | Flow::Known) => false,
        Match::Marked { not, .. } => machine.marked != *not,
        // Nobody is remembered when the first packet comes.
        Match::Remembered { .. } => false,
        Match::Comment(_) | Match::Remember(_) => true,
        Match::Chance(0) => false,
        Match::Chance(chance) if u64::from(*chance) < CHANCE_ONE => {
            return Meets::Perhaps(Fraction::of_chance(*chance));
        }
        Match::Chance(_) => true,
        Match::Turn(every) => {
            return Meets::Perhaps(Fraction {
                above: 1,
                below: u128::from(*every),
            });
        }
    };
    match yes {
        true => Meets::Yes,
        false => Meets::No,
    }
}
