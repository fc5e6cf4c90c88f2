//! What the programs do with a socket, on the values that stand in the maps; `ebpf/decide.h` does it on bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use portolan_model::{Family, Frontend, Packet, Place, Verdict};

use super::state::{Entry, ListKey, Pick, Pods, Sockets};

/// The slots among which a socket's endpoint is drawn; `None` if the programs leave it alone.
/// `is_bound` says whether the socket is bound to an address.
pub fn connects<'a>(
    sockets: &'a Sockets,
    packet: &Packet,
    is_bound: bool,
) -> Option<&'a [SocketAddr]> {
    let (entry, pick) = picked(sockets, packet)?;
    if is_bound && packet.interface.is_none() && entry.host_unbound {
        return None;
    }
    let key = ListKey {
        id: entry.id,
        hash: pick.list,
    };
    let list = sockets.lists.get(&key)?;
    // A slot that is missing is left to the rules, and so are all others here: it is a State that no one compiles.
    list.get(..pick.slots as usize)
}

/// A process of the node as most are: its socket is not bound, so that the kernel chooses an address of the node.
const BOUND: bool = false;

pub(crate) fn trace(sockets: &Sockets, packet: &Packet) -> Option<Verdict> {
    let (entry, _) = picked(sockets, packet)?;
    let from_node = packet.interface.is_none() && entry.host_unbound;
    let source = packet.source.ip();
    let told = |to: &SocketAddr| (*to, from_node || to.ip() == source);
    let list = connects(sockets, packet, BOUND)?;
    Some(Verdict::Deliver(list.iter().map(told).collect()))
}

pub(crate) fn shares(sockets: &Sockets, packet: &Packet) -> Option<BTreeMap<SocketAddr, u32>> {
    let mut all = BTreeMap::new();
    for to in connects(sockets, packet, BOUND)? {
        *all.entry(*to).or_default() += 1;
    }
    Some(all)
}

fn picked<'a>(sockets: &'a Sockets, packet: &Packet) -> Option<(&'a Entry, Pick)> {
    let entry = find(sockets, packet)?;
    let pick = match packet.interface.is_none() {
        true => entry.host,
        false if is_pod(sockets, packet) => entry.pod,
        false => None,
    };
    Some((entry, pick?))
}

fn find<'a>(sockets: &'a Sockets, packet: &Packet) -> Option<&'a Entry> {
    let address = packet.destination.ip();
    let at = |place| {
        let frontend = Frontend {
            place,
            protocol: packet.protocol,
            port: NonZeroU16::new(packet.destination.port())?,
        };
        sockets.services.get(&frontend)
    };
    at(Place::Address(address)).or_else(|| {
        let answers = sockets.node_port_ips.contains_key(&address);
        answers.then(|| at(Place::NodePort(Family::of(address))))?
    })
}

fn is_pod(sockets: &Sockets, packet: &Packet) -> bool {
    let source = packet.source.ip();
    let ours = |family| Family::of(source) == family;
    match &sockets.pods {
        Pods::Anybody => true,
        Pods::Cidrs(cidrs) if !cidrs.iter().any(|cidr| ours(Family::of(cidr.addr()))) => true,
        Pods::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&source)),
    }
}
