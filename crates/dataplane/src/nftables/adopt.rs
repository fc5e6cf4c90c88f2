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
    table.backings = parts.backings()?;
    table.allowed = parts.allowed();
    table.chains = chains(found, &parts.led)?;
    Some(table)
}

/// Elements that only make sense together.
#[derive(Default)]
struct Parts {
    /// Chains that elements lead to, by name.
    led: BTreeMap<String, ChainId>,
    /// Endpoints, and whether they are sticky.
    slots: BTreeMap<(Spot, u32), (SocketAddr, bool)>,
    members: BTreeMap<(Spot, List), BTreeSet<SocketAddr>>,
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
            Element::Endpoint(id, slot, to) | Element::StickyEndpoint(id, slot, to) => {
                let sticky = matches!(element, Element::StickyEndpoint(..));
                self.slots.insert((*id, *slot), (*to, sticky));
            }
            Element::Member(list, id, to) => {
                self.members.entry((*id, *list)).or_default().insert(*to);
            }
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

    /// Slots must follow each other without a gap, and members be exactly the endpoints, or none.
    fn backings(&self) -> Option<OrdMap<Spot, Arc<Backing>>> {
        let mut all: BTreeMap<Spot, Backing> = BTreeMap::new();
        let mut lists: BTreeMap<(Spot, List), Vec<SocketAddr>> = BTreeMap::new();
        for ((id, slot), (to, sticky)) in &self.slots {
            let list = match *slot < List::Other.first_slot() {
                true => List::Main,
                false => List::Other,
            };
            let backing = all.entry(*id).or_insert_with(|| Backing {
                remembers: *sticky,
                ..Backing::default()
            });
            if backing.remembers != *sticky {
                return None;
            }
            let slots = lists.entry((*id, list)).or_default();
            if *slot != list.first_slot() + slots.len() as u32 {
                return None;
            }
            slots.push(*to);
        }
        for ((id, list), slots) in lists {
            let (endpoints, table) = table_of(slots);
            all.get_mut(&id)?.set(list, &endpoints, table);
        }
        if !self.members.keys().all(|(id, _)| all.contains_key(id)) {
            return None;
        }
        for (id, backing) in &all {
            for list in [List::Main, List::Other] {
                let wanted = match backing.remembers {
                    true => backing.list(list).iter().collect(),
                    false => BTreeSet::new(),
                };
                let found = self.members.get(&(*id, list));
                if found.cloned().unwrap_or_default() != wanted {
                    return None;
                }
            }
        }
        let shared = |(id, backing)| (id, Arc::new(backing));
        Some(all.into_iter().map(shared).collect())
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
