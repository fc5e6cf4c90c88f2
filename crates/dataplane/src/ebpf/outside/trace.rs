//! What the programs do with a flow, on the values that stand in the maps; `ebpf/outside.h` does it on bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use portolan_model::balance::CLIENT_SEED;
use portolan_model::hash::{jhash, scale};
use portolan_model::{Balance, Family, Frontend, Packet, Place, Verdict};

use super::state::{By, Outside, Served};
use crate::ebpf::state::ListKey;

/// The slots among which the endpoint of a flow is drawn that comes in by a device of the programs: one, if a hash
/// chooses. `None` if it is left to the rules.
pub fn serves<'a>(outside: &'a Outside, packet: &Packet) -> Option<&'a [SocketAddr]> {
    served(outside, packet).map(|(_, list)| list)
}

pub(crate) fn trace(outside: &Outside, packet: &Packet) -> Option<Verdict> {
    let (served, list) = served(outside, packet)?;
    let source = packet.source.ip();
    let told = |to: &SocketAddr| (*to, served.masquerade || to.ip() == source);
    Some(Verdict::Deliver(list.iter().map(told).collect()))
}

pub(crate) fn shares(outside: &Outside, packet: &Packet) -> Option<BTreeMap<SocketAddr, u32>> {
    let mut all = BTreeMap::new();
    for to in serves(outside, packet)? {
        *all.entry(*to).or_default() += 1;
    }
    Some(all)
}

fn served<'a>(outside: &'a Outside, packet: &Packet) -> Option<(&'a Served, &'a [SocketAddr])> {
    packet.interface.as_ref()?;
    let served = find(outside, packet)?;
    let pick = served.pick?;
    let source = packet.source.ip();
    if !served.pods && outside.pods.keys().any(|range| range.contains(&source)) {
        return None;
    }
    let key = ListKey {
        id: served.id,
        hash: pick.list,
    };
    let list = outside.lists.get(&key)?.get(..pick.slots as usize)?;
    let balance = match served.by {
        By::Chance => return Some((served, list)),
        By::Address => Balance::SourceHash,
        By::Flow => Balance::Maglev,
    };
    let client = balance.key(packet.source)?;
    let slot = scale(jhash(&client, CLIENT_SEED), pick.slots) as usize;
    Some((served, list.get(slot..=slot)?))
}

fn find<'a>(outside: &'a Outside, packet: &Packet) -> Option<&'a Served> {
    let address = packet.destination.ip();
    let at = |place| {
        let frontend = Frontend {
            place,
            protocol: packet.protocol,
            port: NonZeroU16::new(packet.destination.port())?,
        };
        outside.services.get(&frontend)
    };
    at(Place::Address(address)).or_else(|| {
        let answers = outside.node_port_ips.contains_key(&address);
        answers.then(|| at(Place::NodePort(Family::of(address))))?
    })
}
