//! What a kernel that holds a State does with the first packet of a flow.
//!
//! An interpreter of the rules as they are rendered, register by register, hook by hook; it knows nothing of Services
//! or decisions. Every random choice is followed.

mod lookup;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portolan_model::balance::CLIENT_SEED;
use portolan_model::hash::{jhash, scale};
use portolan_model::{Family, Packet, Verdict};

use super::bytes::Reader;
use super::expr::{Expr, Field, Reg};
use super::layout::{BaseChain, ChainId, SetName};
use super::render::STATUS_DNAT;
use super::state::Table;
use super::{SERVER_MARK, State};

/// Follows `packet` through the hooks that it meets. `server` tells the endpoints of the virtual server that a packet is
/// handed to, and how many of its choices lead to each.
pub(crate) fn trace(
    state: &State,
    packet: &Packet,
    server: &dyn Fn(&Packet) -> Vec<(SocketAddr, u32)>,
) -> Verdict {
    let world = World::of(state, packet);
    let mut choices = BTreeMap::new();
    let mut others = Vec::new();
    for (end, machine) in world.enter(packet) {
        match end {
            End::Dnat(to) => {
                choices.insert(to, world.masquerades(machine, to));
            }
            End::Accept if machine.flow_mark & SERVER_MARK != 0 => {
                for (to, _) in server(packet) {
                    choices.insert(to, world.masquerades(machine.clone(), to));
                }
            }
            End::Reject => others.push(Verdict::Reject),
            End::Drop => others.push(Verdict::Drop),
            End::Accept | End::Through | End::Masquerade => others.push(Verdict::Pass),
        }
    }
    // Random branches that end in different ways: the worst of them counts.
    let worst = [Verdict::Pass, Verdict::Drop, Verdict::Reject];
    let worst = worst.into_iter().find(|verdict| others.contains(verdict));
    worst.unwrap_or(Verdict::Deliver(choices))
}

/// How many of the random choices lead to each endpoint. A rule chooses once, so all of them are equally likely.
pub(crate) fn shares(
    state: &State,
    packet: &Packet,
    server: &dyn Fn(&Packet) -> Vec<(SocketAddr, u32)>,
) -> BTreeMap<SocketAddr, u32> {
    let mut all = BTreeMap::new();
    for (end, machine) in World::of(state, packet).enter(packet) {
        match end {
            End::Dnat(to) => *all.entry(to).or_default() += 1,
            End::Accept if machine.flow_mark & SERVER_MARK != 0 => all.extend(server(packet)),
            _ => {}
        }
    }
    all
}

/// How a chain ends for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Dnat(SocketAddr),
    Masquerade,
    Reject,
    Drop,
    Accept,
    /// The end of the base chain: accepted.
    Through,
}

/// A packet on its way, and the registers.
#[derive(Clone)]
struct Machine {
    registers: [u8; 64],
    source: IpAddr,
    source_port: u16,
    destination: IpAddr,
    port: u16,
    protocol: u8,
    interface: Option<String>,
    mark: u32,
    flow_mark: u32,
    status: u32,
}

/// What registers hold before a rule has written them: nothing that anybody may count on.
const UNKNOWN: [u8; 64] = [0xa5; 64];

impl Machine {
    fn of(packet: &Packet) -> Self {
        Machine {
            registers: UNKNOWN,
            source: packet.source.ip(),
            source_port: packet.source.port(),
            destination: packet.destination.ip(),
            port: packet.destination.port(),
            protocol: packet.protocol.number(),
            interface: packet.interface.as_deref().map(str::to_owned),
            mark: 0,
            flow_mark: 0,
            status: 0,
        }
    }

    fn from(&self, reg: Reg) -> &[u8] {
        self.registers.get(usize::from(reg.0) * 4..).unwrap_or(&[])
    }

    /// Writes bytes, with zeros up to the end of the last register.
    fn put(&mut self, reg: Reg, bytes: &[u8]) {
        let start = usize::from(reg.0) * 4;
        let end = start + bytes.len().next_multiple_of(4);
        let room = &mut self.registers[start..end];
        room.fill(0);
        room[..bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, field: Field, reg: Reg) {
        let address = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let bytes = match field {
            Field::Source => address(self.source),
            Field::Destination => address(self.destination),
            Field::Protocol => vec![self.protocol],
            Field::Port => self.port.to_be_bytes().to_vec(),
            Field::SourcePort => self.source_port.to_be_bytes().to_vec(),
            Field::Interface => u32::from(self.interface.is_some()).to_ne_bytes().to_vec(),
            Field::InterfaceName => {
                let mut name = self.interface.clone().unwrap_or_default().into_bytes();
                name.resize(16, 0);
                name
            }
            Field::Mark => self.mark.to_ne_bytes().to_vec(),
            Field::FlowMark => self.flow_mark.to_ne_bytes().to_vec(),
            // The first packet of a flow goes its way.
            Field::Direction => vec![0],
            Field::Status => self.status.to_ne_bytes().to_vec(),
        };
        self.put(reg, &bytes);
    }

    fn number(&self, reg: Reg) -> u32 {
        let bytes = self.from(reg).first_chunk::<4>();
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// What one expression does to the course of a rule.
enum Step {
    /// The next expression.
    Next,
    /// This rule does not match.
    NoMatch,
    /// The same rule goes on once for each of these.
    Branch(Vec<Machine>),
    /// Another chain, and back after it.
    Jump(ChainId),
    /// Another chain, and not back.
    Goto(ChainId),
    End(End),
}

struct World<'a> {
    family: Family,
    table: &'a Table,
}

impl<'a> World<'a> {
    fn of(state: &'a State, packet: &Packet) -> Self {
        let family = Family::of(packet.destination.ip());
        let table = state.table(family);
        World { family, table }
    }

    /// Every way in which a packet can leave the first hook that it meets.
    fn enter(&self, packet: &Packet) -> Vec<(End, Machine)> {
        let entrance = match packet.interface {
            None => BaseChain::Output,
            Some(_) => BaseChain::Prerouting,
        };
        self.run(&ChainId::Base(entrance), Machine::of(packet))
    }

    /// Whether postrouting rewrites the source of a packet that goes to `to`.
    fn masquerades(&self, mut machine: Machine, to: SocketAddr) -> bool {
        machine.destination = to.ip();
        machine.port = to.port();
        if machine.flow_mark & SERVER_MARK == 0 {
            machine.status |= STATUS_DNAT;
        }
        let ends = self.run(&ChainId::Base(BaseChain::Postrouting), machine);
        ends.iter().any(|(end, _)| *end == End::Masquerade)
    }

    /// Every way in which a packet can leave `chain`.
    fn run(&self, chain: &ChainId, machine: Machine) -> Vec<(End, Machine)> {
        let mut ends = Vec::new();
        let mut packets = vec![machine];
        for rule in self.table.rules(self.family, chain) {
            let mut fallen = Vec::new();
            for mut machine in packets {
                machine.registers = UNKNOWN;
                self.rule(&rule.0, machine, &mut fallen, &mut ends);
            }
            packets = fallen;
        }
        ends.extend(packets.into_iter().map(|machine| (End::Through, machine)));
        ends
    }

    /// Runs the rest of a rule; packets that go on to the next rule are put into `fallen`.
    fn rule(
        &self,
        exprs: &[Expr],
        mut machine: Machine,
        fallen: &mut Vec<Machine>,
        ends: &mut Vec<(End, Machine)>,
    ) {
        for (index, expr) in exprs.iter().enumerate() {
            match self.step(expr, &mut machine) {
                Step::Next => {}
                Step::NoMatch => return fallen.push(machine),
                Step::Branch(machines) => {
                    for machine in machines {
                        self.rule(&exprs[index + 1..], machine, fallen, ends);
                    }
                    return;
                }
                Step::Jump(chain) => {
                    for (end, machine) in self.run(&chain, machine) {
                        match end {
                            End::Through => fallen.push(machine),
                            end => ends.push((end, machine)),
                        }
                    }
                    return;
                }
                Step::Goto(chain) => return ends.extend(self.run(&chain, machine)),
                Step::End(end) => return ends.push((end, machine)),
            }
        }
        fallen.push(machine);
    }

    fn step(&self, expr: &Expr, machine: &mut Machine) -> Step {
        let matched = |yes: bool| if yes { Step::Next } else { Step::NoMatch };
        match expr {
            Expr::Load(field, reg) => machine.load(*field, *reg),
            Expr::Value { into, bytes } => machine.put(*into, bytes),
            Expr::Bits { reg, mask, xor } => {
                let value = machine.number(*reg) & mask ^ xor;
                machine.put(*reg, &value.to_ne_bytes());
            }
            Expr::Compare { reg, negate, bytes } => {
                return matched(machine.from(*reg).starts_with(bytes) != *negate);
            }
            Expr::Member { set, key, negate } => {
                let found = self.find(*set, machine.from(*key)).is_some();
                return matched(found != *negate);
            }
            Expr::Find { map, key, into } => match self.find(*map, machine.from(*key)) {
                Some(data) => machine.put(*into, &data),
                None => return Step::NoMatch,
            },
            Expr::Dispatch { map, key } => {
                let mut reader = self.reader(machine.from(*key));
                let chain = match map {
                    SetName::Turns => reader.turn().map(ChainId::Turn),
                    _ => reader.class().map(ChainId::Class),
                };
                return match chain.filter(|chain| self.table.chains.contains_key(chain)) {
                    Some(chain) => Step::Goto(chain),
                    None => Step::NoMatch,
                };
            }
            Expr::Random {
                modulus,
                offset,
                into,
            }
            | Expr::Next {
                modulus,
                offset,
                into,
            } => {
                let branch = |number: u32| {
                    let mut machine = machine.clone();
                    machine.put(*into, &number.to_ne_bytes());
                    machine
                };
                return Step::Branch((*offset..offset + modulus).map(branch).collect());
            }
            Expr::Hash {
                key,
                length,
                modulus,
                offset,
                into,
            } => {
                let bytes = machine.from(*key).get(..usize::from(*length));
                let hash = jhash(bytes.unwrap_or_default(), CLIENT_SEED);
                let number = offset + scale(hash, *modulus);
                machine.put(*into, &number.to_ne_bytes());
            }
            Expr::Remember { .. } | Expr::Forget { .. } => {}
            Expr::SetMark(reg) => machine.mark = machine.number(*reg),
            Expr::SetFlowMark(reg) => machine.flow_mark = machine.number(*reg),
            Expr::Dnat { address, port } => {
                let ip = self.reader(machine.from(*address)).address();
                let port = self.reader(machine.from(*port)).port();
                if let (Some(ip), Some(port)) = (ip, port) {
                    return Step::End(End::Dnat(SocketAddr::new(ip, port)));
                }
            }
            Expr::Masquerade => return Step::End(End::Masquerade),
            Expr::Reject(_) => return Step::End(End::Reject),
            Expr::Drop => return Step::End(End::Drop),
            Expr::Accept => return Step::End(End::Accept),
            Expr::Jump(chain) => return Step::Jump(*chain),
        }
        Step::Next
    }

    fn reader<'b>(&self, rest: &'b [u8]) -> Reader<'b> {
        let family = self.family;
        Reader { family, rest }
    }
}

#[cfg(test)]
mod tests;
