//! From one State of the maps to another, in the order that keeps every frontend whole.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_model::Frontend;

use super::state::{Outside, Served};
use crate::ebpf::diff::{map, slots};
use crate::ebpf::state::ListKey;

/// One change of a map. What is put replaces what stood there.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Empties all maps but the tables of flows, @served first.
    Reset,
    /// The slot of a list has this endpoint.
    PutSlot(ListKey, u32, SocketAddr),
    /// NodePorts answer at this address.
    PutNodePortIp(IpAddr),
    /// Sources in this range are pods.
    PutPods(IpNet),
    /// What is found at this frontend.
    PutServed(Frontend, Served),
    /// Nothing is found at this frontend any more.
    RemoveServed(Frontend),
    /// NodePorts do not answer at this address any more.
    RemoveNodePortIp(IpAddr),
    /// Sources in this range are no pods any more.
    RemovePods(IpNet),
    /// Nobody leads to this slot any more.
    RemoveSlot(ListKey, u32),
}

/// New slots, then the entries that lead to them, then old slots.
pub(crate) fn diff(from: Option<&Outside>, to: &Outside) -> Vec<Op> {
    let nothing = Outside::default();
    let mut ops = match from {
        None => vec![Op::Reset],
        Some(_) => Vec::new(),
    };
    let from = from.unwrap_or(&nothing);
    let mut unused = Vec::new();
    for item in from.lists.diff(&to.lists) {
        slots(&item, Op::PutSlot, Op::RemoveSlot, &mut ops, &mut unused);
    }
    map(
        &from.node_port_ips,
        &to.node_port_ips,
        |ip, ()| Op::PutNodePortIp(*ip),
        |ip| Op::RemoveNodePortIp(*ip),
        &mut ops,
    );
    map(
        &from.pods,
        &to.pods,
        |range, ()| Op::PutPods(*range),
        |range| Op::RemovePods(*range),
        &mut ops,
    );
    map(
        &from.services,
        &to.services,
        |frontend, served| Op::PutServed(*frontend, served),
        |frontend| Op::RemoveServed(*frontend),
        &mut ops,
    );
    ops.extend(unused);
    ops
}
