//! From one State of the maps to another, in the order that keeps every frontend whole.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use portolan_model::Frontend;

use super::outside;
use super::state::{Entry, ListKey, Sockets};
use crate::nftables;

/// One change of a map. What is put replaces what stood there.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Empties all maps, @services first.
    Reset,
    /// The slot of a list has this endpoint.
    PutEndpoint(ListKey, u32, SocketAddr),
    /// This endpoint is in a list with whom pods stay.
    PutMember(ListKey, SocketAddr),
    /// NodePorts answer at this address.
    PutNodePortIp(IpAddr),
    /// What is found at this frontend.
    PutService(Frontend, Entry),
    /// Nothing is found at this frontend any more.
    RemoveService(Frontend),
    /// NodePorts do not answer at this address any more.
    RemoveNodePortIp(IpAddr),
    /// Nobody leads to this slot any more.
    RemoveEndpoint(ListKey, u32),
    /// Nobody stays with this endpoint because of this list any more.
    RemoveMember(ListKey, SocketAddr),
}

/// The rules change first: where a program finds nothing, they are asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ops {
    /// One transaction of nf_tables.
    pub rules: nftables::Ops,
    /// Changes of maps, in this order.
    pub sockets: Vec<Op>,
    /// Changes of the maps of the programs at devices, in this order.
    pub outside: Vec<outside::Op>,
    /// What stands there afterwards: where no programs are, a target remembers it instead.
    pub outside_after: outside::Outside,
}

/// New slots, then the entries that lead to them, then old slots.
pub(crate) fn diff(from: Option<&Sockets>, to: &Sockets) -> Vec<Op> {
    let nothing = Sockets::default();
    let mut ops = match from {
        None => vec![Op::Reset],
        Some(_) => Vec::new(),
    };
    let from = from.unwrap_or(&nothing);
    let mut unused = Vec::new();
    for item in from.lists.diff(&to.lists) {
        let put = |key, slot, to| Op::PutEndpoint(key, slot, to);
        slots(&item, put, Op::RemoveEndpoint, &mut ops, &mut unused);
    }
    for item in from.members.diff(&to.members) {
        members(&item, &mut ops, &mut unused);
    }
    let put = |ip: &IpAddr, ()| Op::PutNodePortIp(*ip);
    let remove = |ip: &IpAddr| Op::RemoveNodePortIp(*ip);
    map(
        &from.node_port_ips,
        &to.node_port_ips,
        put,
        remove,
        &mut ops,
    );
    let put = |frontend: &Frontend, entry| Op::PutService(*frontend, entry);
    let remove = |frontend: &Frontend| Op::RemoveService(*frontend);
    map(&from.services, &to.services, put, remove, &mut ops);
    ops.extend(unused);
    ops
}

pub(super) fn map<K: Ord + Clone, V: PartialEq + Copy, O>(
    from: &OrdMap<K, V>,
    to: &OrdMap<K, V>,
    put: impl Fn(&K, V) -> O,
    remove: impl Fn(&K) -> O,
    ops: &mut Vec<O>,
) {
    ops.extend(from.diff(to).map(|item| match item {
        DiffItem::Add(key, value) => put(key, *value),
        DiffItem::Update { new, .. } => put(new.0, *new.1),
        DiffItem::Remove(key, _) => remove(key),
    }));
}

/// The slots that a list gains, and those that nobody leads to when all entries are changed.
pub(super) fn slots<O>(
    item: &DiffItem<'_, '_, ListKey, Arc<[SocketAddr]>>,
    put: impl Fn(ListKey, u32, SocketAddr) -> O,
    remove: impl Fn(ListKey, u32) -> O,
    ops: &mut Vec<O>,
    unused: &mut Vec<O>,
) {
    let (key, was, is): (ListKey, &[SocketAddr], &[SocketAddr]) = match item {
        DiffItem::Add(key, new) => (**key, &[], new),
        DiffItem::Remove(key, old) => (**key, old, &[]),
        DiffItem::Update { old, new } => (*old.0, old.1, new.1),
    };
    for (slot, to) in is.iter().enumerate() {
        if was.get(slot) != Some(to) {
            ops.push(put(key, slot as u32, *to));
        }
    }
    // From the end, so that what is left of a list at any moment is its beginning.
    let left = is.len()..was.len().max(is.len());
    unused.extend(left.rev().map(|slot| remove(key, slot as u32)));
}

/// As slots: who is new comes before the entries, who is gone goes after them.
fn members(
    item: &DiffItem<'_, '_, ListKey, Arc<[SocketAddr]>>,
    ops: &mut Vec<Op>,
    unused: &mut Vec<Op>,
) {
    let (key, was, is): (ListKey, &[SocketAddr], &[SocketAddr]) = match item {
        DiffItem::Add(key, new) => (**key, &[], new),
        DiffItem::Remove(key, old) => (**key, old, &[]),
        DiffItem::Update { old, new } => (*old.0, old.1, new.1),
    };
    let new = is.iter().filter(|to| was.binary_search(to).is_err());
    ops.extend(new.map(|to| Op::PutMember(key, *to)));
    let gone = was.iter().filter(|to| is.binary_search(to).is_err());
    unused.extend(gone.map(|to| Op::RemoveMember(key, *to)));
}
