//! From what was read back from the kernel to a State, so that a new process goes on where a killed one stopped.
//!
//! Elements are the truth. Chains are recognised by the digests that their rules carry as comments: a chain whose
//! rules are not the expected ones has another digest, and `diff` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use portolan_model::Family;

use super::class::List;
use super::diff::endpoints;
use super::element::{Element, Spot};
use super::expr::digest_of;
use super::layout::{BaseChain, ChainId};
use super::state::{Backing, ChainUse, Entry, State, Table, Uses};

/// One table as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readback {
    /// Every chain with the digests of its rules, in order; 0 for a rule that carries none.
    pub chains: Vec<(String, Vec<u64>)>,
    /// Every element of every set, without those of the memory of affinity.
    pub elements: Vec<Element>,
}

/// The State of two tables (IPv4, IPv6) that were found; `None` if they are not of our making throughout.
pub fn adopt(found: &[Readback; 2]) -> Option<State> {
    let mut state = State::default();
    for (family, found) in Family::ALL.into_iter().zip(found) {
        *state.table_mut(family) = table(found)?;
    }
    Some(state)
}

fn table(found: &Readback) -> Option<Table> {
    let mut table = Table::default();
    let mut parts = Parts::default();
    for element in &found.elements {
        parts.take(&mut table, element);
    }
    parts.backings(&mut table);
    table.allowed = parts.allowed();
    table.chains = chains(found, &parts.led)?;
    Some(table)
}

/// Elements that only make sense together.
#[derive(Default)]
struct Parts {
    /// Chains that elements lead to, by name.
    led: BTreeMap<String, ChainId>,
    /// Slots and members of each identity.
    behind: BTreeMap<Spot, Vec<Element>>,
    allowed: BTreeMap<Spot, Vec<IpNet>>,
}

impl Parts {
    fn take(&mut self, table: &mut Table, element: &Element) {
        let mark = |map: &mut OrdMap<IpAddr, Uses>, ip: &IpAddr| {
            map.insert(*ip, Uses(1));
        };
        match element {
            Element::Service(spot, class, id) => {
                let (class, id) = (*class, *id);
                table.services.insert(*spot, Entry { class, id });
            }
            Element::NodePort(protocol, port, class, id) => {
                let (class, id) = (*class, *id);
                table
                    .node_ports
                    .insert((*protocol, *port), Entry { class, id });
            }
            Element::Class(_, class) => self.lead(ChainId::Class(*class)),
            Element::Turn(turn) => self.lead(ChainId::Turn(*turn)),
            Element::Endpoint(id, ..)
            | Element::StickyEndpoint(id, ..)
            | Element::Member(_, id, _) => self.behind.entry(*id).or_default().push(*element),
            Element::Allowed(spot, range) => self.allowed.entry(*spot).or_default().push(*range),
            Element::ClusterIp(ip) => mark(&mut table.cluster_ips, ip),
            Element::Hairpin(ip) => mark(&mut table.hairpins, ip),
            Element::NodePortIp(ip) => {
                table.node_port_ips.insert(*ip, ());
            }
            Element::PodCidr(range) => {
                table.pod_cidrs.insert(*range, ());
            }
            Element::ServiceCidr(range) => {
                table.service_cidrs.insert(*range, ());
            }
        }
    }

    fn lead(&mut self, chain: ChainId) {
        self.led.insert(chain.to_string(), chain);
    }

    /// What does not make a list of slots and its members, as when a process was killed between two transactions, goes.
    fn backings(&mut self, table: &mut Table) {
        let mut all = Vec::new();
        for (id, mut found) in std::mem::take(&mut self.behind) {
            found.sort_unstable();
            let backing = backing(&found);
            let mut made = Vec::with_capacity(found.len());
            endpoints(id, &backing, &mut |element| made.push(element));
            made.sort_unstable();
            match made == found {
                true => all.push((id, Arc::new(backing))),
                false => table.strays.extend(found),
            }
        }
        table.backings = all.into_iter().collect();
    }

    fn allowed(&self) -> OrdMap<Spot, Arc<[IpNet]>> {
        let sorted = |(spot, ranges): (&Spot, &Vec<IpNet>)| {
            let mut ranges = ranges.clone();
            ranges.sort_unstable();
            (*spot, Arc::from(ranges))
        };
        self.allowed.iter().map(sorted).collect()
    }
}

/// Whoever has these slots, which are in order.
fn backing(found: &[Element]) -> Backing {
    let mut backing = Backing::default();
    let mut lists = [const { Vec::new() }; 2];
    for element in found {
        let (Element::Endpoint(_, slot, to) | Element::StickyEndpoint(_, slot, to)) = element
        else {
            continue;
        };
        backing.remembers |= matches!(element, Element::StickyEndpoint(..));
        lists[List::of(*slot) as usize].push(*to);
    }
    for (list, slots) in [List::Main, List::Other].into_iter().zip(lists) {
        let (endpoints, table) = table_of(slots);
        backing.set(list, &endpoints, table);
    }
    backing
}

/// The endpoints of these slots, and which of them each slot has; no table if slot i has endpoint i.
fn table_of(slots: Vec<SocketAddr>) -> (Vec<SocketAddr>, Vec<u16>) {
    if slots.is_sorted_by(|a, b| a < b) {
        return (slots, Vec::new());
    }
    let endpoints: BTreeSet<SocketAddr> = slots.iter().copied().collect();
    let endpoints: Vec<SocketAddr> = endpoints.into_iter().collect();
    let index = |to: &SocketAddr| endpoints.binary_search(to).unwrap_or_default() as u16;
    let table = slots.iter().map(index).collect();
    (endpoints, table)
}

/// Chains and the elements that lead to them must belong together, one to one.
fn chains(found: &Readback, led: &BTreeMap<String, ChainId>) -> Option<OrdMap<ChainId, ChainUse>> {
    let mut all = OrdMap::new();
    for (name, rules) in &found.chains {
        let base = BaseChain::ALL.into_iter().map(ChainId::Base);
        let base = base.into_iter().find(|chain| chain.to_string() == *name);
        let chain = base.or_else(|| led.get(name).copied())?;
        let digest = digest_of(rules.iter().copied());
        let uses = Uses(1);
        all.insert(chain, ChainUse { uses, digest });
    }
    (all.len() == BaseChain::ALL.len() + led.len()).then_some(all)
}
