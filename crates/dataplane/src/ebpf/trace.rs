//! What the programs do with a socket, on the values that stand in the maps; `ebpf/decide.h` does it on bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use portolan_model::{Family, Frontend, Packet, Place, Verdict};

use super::state::{Deed, Entry, ListKey, Pods, Sockets};

/// What the programs do with a socket or a datagram that they do not leave alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It goes to the endpoint of one of these slots, at random if its client is not remembered.
    Connect(&'a [SocketAddr]),
    /// It gets ECONNREFUSED.
    Refuse,
}

/// `None` if the programs leave it to the rules. `is_bound` says whether the socket is bound to an address.
pub fn decides<'a>(sockets: &'a Sockets, packet: &Packet, is_bound: bool) -> Option<Decision<'a>> {
    let (entry, deed) = found(sockets, packet)?;
    let Deed::Pick(pick) = deed else {
        return Some(Decision::Refuse);
    };
    if is_bound && packet.interface.is_none() && entry.host_unbound {
        return None;
    }
    let key = ListKey {
        id: entry.id,
        hash: pick.list,
    };
    let list = sockets.lists.get(&key)?;
    // A slot that is missing is left to the rules, and so are all others here: it is a State that no one compiles.
    list.get(..pick.slots as usize).map(Decision::Connect)
}

/// The slots among which a socket's endpoint is drawn; `None` if it is connected to none.
pub fn connects<'a>(
    sockets: &'a Sockets,
    packet: &Packet,
    is_bound: bool,
) -> Option<&'a [SocketAddr]> {
    match decides(sockets, packet, is_bound)? {
        Decision::Connect(list) => Some(list),
        Decision::Refuse => None,
    }
}

/// A process of the node as most are: its socket is not bound, so that the kernel chooses an address of the node.
const BOUND: bool = false;

pub(crate) fn trace(sockets: &Sockets, packet: &Packet) -> Option<Verdict> {
    let Decision::Connect(list) = decides(sockets, packet, BOUND)? else {
        return Some(Verdict::Reject);
    };
    let (entry, _) = found(sockets, packet)?;
    let from_node = packet.interface.is_none() && entry.host_unbound;
    let source = packet.source.ip();
    let told = |to: &SocketAddr| (*to, from_node || to.ip() == source);
    Some(Verdict::Deliver(list.iter().map(told).collect()))
}

pub(crate) fn shares(sockets: &Sockets, packet: &Packet) -> Option<BTreeMap<SocketAddr, u32>> {
    let mut all = BTreeMap::new();
    if let Decision::Connect(list) = decides(sockets, packet, BOUND)? {
        for to in list {
            *all.entry(*to).or_default() += 1;
        }
    }
    Some(all)
}

fn found<'a>(sockets: &'a Sockets, packet: &Packet) -> Option<(&'a Entry, Deed)> {
    let entry = find(sockets, packet)?;
    let deed = match packet.interface.is_none() {
        true => entry.host,
        false if is_pod(sockets, packet) => entry.pod,
        false => None,
    };
    Some((entry, deed?))
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
