//! From one State to another: what the kernel has to be told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use ipnet::IpNet;
use portolan_model::Family;

use super::class::List;
use super::element::{Element, Spot};
use super::expr::Rule;
use super::layout::{BaseChain, ChainId, SetName};
use super::state::{Backing, Entry, State, Table};

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes the table of the family stand with all its sets and nothing else.
    /// The memory of affinity stays if it stands already and looks as it should.
    Reset(Family),
    /// Makes a chain, without rules.
    AddChain(Family, ChainId),
    /// Removes all rules of a chain.
    FlushChain(Family, ChainId),
    /// Appends rules to a chain.
    AddRules(Family, ChainId, Vec<Rule>),
    /// Removes elements, all of one set, that others take the place of or nobody is led to.
    DeleteElements(Family, SetName, Vec<Element>),
    /// Adds elements, all of one set.
    AddElements(Family, SetName, Vec<Element>),
    /// Removes elements, all of one set, that nothing leads to any more, except packets that are on their way.
    ForgetElements(Family, SetName, Vec<Element>),
    /// Removes a chain with its rules; nothing leads to it any more.
    DeleteChain(Family, ChainId),
}

/// What is to be done, in order. Empty if nothing is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ops(pub Vec<Op>);

impl Ops {
    /// As transactions, one after the other: new chains, which nobody asks for yet; what changes; and what is needed no
    /// more. What stands after each of them can be read back, and led on from there.
    ///
    /// A packet walks through the rules of the generation in which it began, but finds elements of the generation in which
    /// it asks for them (`nft_do_chain`, `nft_genmask_cur` in net/netfilter). One that meets the end of a transaction
    /// - is led by a new element to a chain that is still empty for it, unless that one stood before;
    /// - has been led by an old element to a chain, a slot or another thing that is gone, unless that one goes later.
    ///
    /// It would leave without an endpoint, and conntrack would keep that for the whole flow.
    /// A table that is made anew has no old elements that led anywhere: that is one transaction.
    pub fn transactions(&self) -> Vec<Vec<&Op>> {
        let new = self.0.iter().filter_map(|op| match op {
            Op::AddChain(family, chain) => Some((*family as usize, *chain)),
            _ => None,
        });
        let new: BTreeSet<(usize, ChainId)> = new.collect();
        let anew = self.0.iter().any(|op| matches!(op, Op::Reset(_)));
        let mut all = [const { Vec::new() }; 3];
        for op in &self.0 {
            let turn = match op {
                _ if anew => 0,
                Op::AddChain(..) => 0,
                Op::AddRules(family, chain, _) if new.contains(&(*family as usize, *chain)) => 0,
                Op::AddElements(_, set, _) if set.has_verdicts() => 0,
                Op::ForgetElements(..) | Op::DeleteChain(..) => 2,
                _ => 1,
            };
            all[turn].push(op);
        }
        all.into_iter().filter(|ops| !ops.is_empty()).collect()
    }
}

pub(crate) fn diff(from: Option<&State>, to: &State) -> Ops {
    let nothing = State::default();
    let mut ops = Vec::new();
    for family in Family::ALL {
        if from.is_none() {
            ops.push(Op::Reset(family));
        }
        let from = from.unwrap_or(&nothing);
        tables(family, from.table(family), to.table(family), &mut ops);
    }
    Ops(ops)
}

/// Elements to remove, to add, and to remove later, by set.
#[derive(Default)]
struct Changes {
    removed: [Vec<Element>; SetName::ALL.len()],
    added: [Vec<Element>; SetName::ALL.len()],
    forgotten: [Vec<Element>; SetName::ALL.len()],
}

impl Changes {
    /// Another one with the same key takes its place, or packets on their way do well without it.
    fn remove(&mut self, element: Element) {
        self.removed[element.set() as usize].push(element);
    }

    /// Nothing takes its place.
    fn lose(&mut self, element: Element) {
        match element.set().is_asked_later() {
            true => self.forgotten[element.set() as usize].push(element),
            false => self.remove(element),
        }
    }

    fn add(&mut self, element: Element) {
        self.added[element.set() as usize].push(element);
    }

    /// Compares two maps whose entries are elements.
    fn map<K: Ord + Clone, V: PartialEq + Clone>(
        &mut self,
        from: &OrdMap<K, V>,
        to: &OrdMap<K, V>,
        element: impl Fn(&K, &V) -> Element,
    ) {
        for item in from.diff(to) {
            match item {
                DiffItem::Add(key, value) => self.add(element(key, value)),
                DiffItem::Remove(key, value) => self.lose(element(key, value)),
                DiffItem::Update { old, new } => {
                    self.remove(element(old.0, old.1));
                    self.add(element(new.0, new.1));
                }
            }
        }
    }
}

/// New chains come first, since elements lead to them; chains that nobody needs go last.
fn tables(family: Family, from: &Table, to: &Table, ops: &mut Vec<Op>) {
    let mut unused = Vec::new();
    let mut changes = Changes::default();
    for item in from.chains.diff(&to.chains) {
        match item {
            DiffItem::Add(chain, _) => {
                ops.push(Op::AddChain(family, *chain));
                ops.push(Op::AddRules(family, *chain, to.rules(family, chain)));
                chain
                    .element(family)
                    .into_iter()
                    .for_each(|e| changes.add(e));
            }
            DiffItem::Remove(chain, _) => {
                unused.push(Op::DeleteChain(family, *chain));
                let element = chain.element(family);
                element.into_iter().for_each(|e| changes.lose(e));
            }
            DiffItem::Update {
                new: (chain, _), ..
            } => {
                ops.push(Op::FlushChain(family, *chain));
                ops.push(Op::AddRules(family, *chain, to.rules(family, chain)));
            }
        }
    }
    debug_assert!(
        BaseChain::ALL
            .iter()
            .all(|c| to.chains.contains_key(&ChainId::Base(*c)))
    );
    elements(from, to, &mut changes);
    type Make = fn(Family, SetName, Vec<Element>) -> Op;
    let steps: [(_, Make); 3] = [
        (changes.removed, Op::DeleteElements),
        (changes.added, Op::AddElements),
        (changes.forgotten, Op::ForgetElements),
    ];
    for (all, make) in steps {
        let all = SetName::ALL.into_iter().zip(all);
        let all = all.filter(|(_, elements)| !elements.is_empty());
        ops.extend(all.map(|(set, elements)| make(family, set, elements)));
    }
    ops.extend(unused);
}

fn elements(from: &Table, to: &Table, changes: &mut Changes) {
    let service = |spot: &Spot, e: &Entry| Element::Service(*spot, e.class, e.id);
    changes.map(&from.services, &to.services, service);
    changes.map(&from.node_ports, &to.node_ports, |(protocol, port), e| {
        Element::NodePort(*protocol, *port, e.class, e.id)
    });
    changes.map(&from.cluster_ips, &to.cluster_ips, |ip, _| {
        Element::ClusterIp(*ip)
    });
    changes.map(&from.hairpins, &to.hairpins, |ip, _| Element::Hairpin(*ip));
    changes.map(&from.node_port_ips, &to.node_port_ips, |ip, ()| {
        Element::NodePortIp(*ip)
    });
    changes.map(&from.pod_cidrs, &to.pod_cidrs, |net, ()| {
        Element::PodCidr(*net)
    });
    changes.map(&from.service_cidrs, &to.service_cidrs, |net, ()| {
        Element::ServiceCidr(*net)
    });
    for item in from.allowed.diff(&to.allowed) {
        match item {
            DiffItem::Add(spot, new) => sources(*spot, &[], new, changes),
            DiffItem::Remove(spot, old) => old
                .iter()
                .for_each(|range| changes.lose(Element::Allowed(*spot, *range))),
            DiffItem::Update { old, new } => sources(*old.0, old.1, new.1, changes),
        }
    }
    strays(from, to, changes);
    for item in from.backings.diff(&to.backings) {
        match item {
            DiffItem::Add(id, new) => endpoints(*id, new, &mut |e| changes.add(e)),
            DiffItem::Remove(id, old) => endpoints(*id, old, &mut |e| changes.lose(e)),
            DiffItem::Update { old, new } => backings(*old.0, old.1, new.1, changes),
        }
    }
}

/// They go at once where something else takes their place.
fn strays(from: &Table, to: &Table, changes: &mut Changes) {
    for stray in &from.strays {
        let (Element::Endpoint(id, slot, _) | Element::StickyEndpoint(id, slot, _)) = stray else {
            changes.remove(*stray);
            continue;
        };
        let list = List::of(*slot);
        let index = (slot - list.first_slot()) as usize;
        let sticky = matches!(stray, Element::StickyEndpoint(..));
        let is_taken =
            |new: &Arc<Backing>| new.remembers == sticky && new.slot(list, index).is_some();
        match to.backings.get(id).is_some_and(is_taken) {
            true => changes.remove(*stray),
            false => changes.lose(*stray),
        }
    }
}

fn sources(spot: Spot, was: &[IpNet], is: &[IpNet], changes: &mut Changes) {
    for range in was.iter().filter(|range| !is.contains(range)) {
        changes.remove(Element::Allowed(spot, *range));
    }
    for range in is.iter().filter(|range| !was.contains(range)) {
        changes.add(Element::Allowed(spot, *range));
    }
}

/// Every element of one identity.
pub(crate) fn endpoints(id: Spot, backing: &Backing, tell: &mut impl FnMut(Element)) {
    for list in [List::Main, List::Other] {
        let slots = (0..backing.slot_count(list)).filter_map(|index| backing.slot(list, index));
        for (slot, to) in (list.first_slot()..).zip(slots) {
            tell(in_slot(id, slot, to, backing.remembers));
        }
        if backing.remembers {
            let members = backing.list(list).iter();
            members.for_each(|to| tell(Element::Member(list, id, to)));
        }
    }
}

const fn in_slot(id: Spot, slot: u32, to: SocketAddr, sticky: bool) -> Element {
    match sticky {
        false => Element::Endpoint(id, slot, to),
        true => Element::StickyEndpoint(id, slot, to),
    }
}

fn backings(id: Spot, old: &Backing, new: &Backing, changes: &mut Changes) {
    if old.remembers != new.remembers {
        endpoints(id, old, &mut |element| changes.lose(element));
        endpoints(id, new, &mut |element| changes.add(element));
        return;
    }
    for list in [List::Main, List::Other] {
        for index in 0..old.slot_count(list).max(new.slot_count(list)) {
            let (was, is) = (old.slot(list, index), new.slot(list, index));
            if was == is {
                continue;
            }
            let slot = list.first_slot() + index as u32;
            let element = |to: SocketAddr| in_slot(id, slot, to, new.remembers);
            match (was, is) {
                (Some(was), None) => changes.lose(element(was)),
                (was, is) => {
                    was.into_iter().for_each(|to| changes.remove(element(to)));
                    is.into_iter().for_each(|to| changes.add(element(to)));
                }
            }
        }
        if new.remembers {
            members(id, list, old, new, changes);
        }
    }
}

/// Both lists are sorted, so members that stay are found by search.
fn members(id: Spot, list: List, old: &Backing, new: &Backing, changes: &mut Changes) {
    let (was, is) = (old.list(list), new.list(list));
    for to in was.iter().filter(|to| !is.contains(*to)) {
        changes.remove(Element::Member(list, id, to));
    }
    for to in is.iter().filter(|to| !was.contains(*to)) {
        changes.add(Element::Member(list, id, to));
    }
}
