//! Keys and values as bytes, as `ebpf/outside.h` and `ebpf/tc_maps.h` lay them out; the rest is in `ebpf::bytes`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use portolan_model::{Flow, Protocol};

use super::state::{By, Served, Translation, Tuple};
use crate::ebpf::bytes::{Reader, Writer, ip_of, read_service_key, service_key_of};
use crate::ebpf::state::Pick;

/// Bytes of a value of @served: `struct served`.
pub const SERVED_LEN: usize = 32;
/// Bytes of a key of @pod_ranges: `struct range`.
pub const RANGE_LEN: usize = 20;
/// Bytes of a key of the tables of flows: `struct tuple`.
pub const TUPLE_LEN: usize = 40;
/// Bytes of a value of the tables of flows: `struct flow`.
pub const TRANSLATION_LEN: usize = 52;

const MASQUERADES: u32 = 1;
const TO_PODS: u32 = 2;
const BY_ADDRESS: u32 = 4;
const BY_FLOW: u32 = 8;

/// Bytes of a key of @pairs: `struct pair` of ebpf/tc_maps.h.
pub const PAIR_LEN: usize = 40;

/// Of ebpf/flows.h.
const WAY_SEND: u8 = 3;
const ANSWERED: u8 = 1;
const ENDED_THERE: u8 = 2;
const ENDED_BACK: u8 = 4;
const RESET: u8 = 8;

/// Bits in front of an address of IPv4 where it stands as one of IPv6.
const MAPPED: u32 = 96;

/// `struct served`.
pub fn served_of(served: &Served) -> [u8; SERVED_LEN] {
    let mut out = Writer::<SERVED_LEN>::default();
    out.put(&service_key_of(served.id));
    let (list, slots) = served.pick.map_or((0, 0), |pick| (pick.list, pick.slots));
    out.put(&list.to_ne_bytes());
    out.put(&slots.to_ne_bytes());
    let by = match served.by {
        By::Chance => 0,
        By::Address => BY_ADDRESS,
        By::Flow => BY_FLOW,
    };
    let set = |flag, bit| if flag { bit } else { 0 };
    let flags = by | set(served.masquerade, MASQUERADES) | set(served.pods, TO_PODS);
    out.put(&flags.to_ne_bytes());
    out.bytes
}

/// What stands in a value of @served; `None` if no such value is ours.
pub fn read_served(bytes: &[u8; SERVED_LEN]) -> Option<Served> {
    let mut rest = Reader(bytes);
    let id = read_service_key(&rest.take()?)?;
    let (list, slots, flags) = (rest.number()?, rest.number()?, rest.number()?);
    Some(Served {
        id,
        pick: (slots > 0).then_some(Pick { list, slots }),
        by: match flags & (BY_ADDRESS | BY_FLOW) {
            0 => By::Chance,
            BY_ADDRESS => By::Address,
            BY_FLOW => By::Flow,
            _ => return None,
        },
        masquerade: flags & MASQUERADES != 0,
        pods: flags & TO_PODS != 0,
    })
}

/// `struct range`.
pub fn range_of(range: IpNet) -> [u8; RANGE_LEN] {
    let length = match range {
        IpNet::V4(range) => MAPPED + u32::from(range.prefix_len()),
        IpNet::V6(range) => u32::from(range.prefix_len()),
    };
    let mut out = Writer::<RANGE_LEN>::default();
    out.put(&length.to_ne_bytes());
    out.put(&ip_of(range.network()));
    out.bytes
}

/// The range in a key of @pod_ranges.
pub fn read_range(bytes: &[u8; RANGE_LEN]) -> Option<IpNet> {
    let mut rest = Reader(bytes);
    let (length, ip) = (rest.number()?, rest.ip()?);
    let length = match ip {
        IpAddr::V4(_) => length.checked_sub(MAPPED)?,
        IpAddr::V6(_) => length,
    };
    IpNet::new(ip, u8::try_from(length).ok()?).ok()
}

/// `struct tuple`.
pub fn read_tuple(bytes: &[u8; TUPLE_LEN]) -> Option<Tuple> {
    let mut rest = Reader(bytes);
    let (from, to) = (rest.ip()?, rest.ip()?);
    let (from_port, to_port) = (rest.port()?, rest.port()?);
    let [protocol] = rest.take()?;
    Some(Tuple {
        protocol: Protocol::ALL.into_iter().find(|p| p.number() == protocol)?,
        from: SocketAddr::new(from, from_port),
        to: SocketAddr::new(to, to_port),
    })
}

/// The same.
pub fn tuple_of(tuple: &Tuple) -> [u8; TUPLE_LEN] {
    let mut out = Writer::<TUPLE_LEN>::default();
    out.put(&ip_of(tuple.from.ip()));
    out.put(&ip_of(tuple.to.ip()));
    out.put(&tuple.from.port().to_be_bytes());
    out.put(&tuple.to.port().to_be_bytes());
    out.put(&[tuple.protocol.number()]);
    out.bytes
}

/// `struct flow`.
pub fn read_translation(bytes: &[u8; TRANSLATION_LEN]) -> Option<Translation> {
    let mut rest = Reader(bytes);
    let becomes = read_tuple(&rest.take()?)?;
    let (_list, seen_s) = (rest.number()?, rest.number()?);
    let [way, state, is_back] = rest.take()?;
    let both = ENDED_THERE | ENDED_BACK;
    Some(Translation {
        becomes,
        seen_s,
        is_sent: way == WAY_SEND,
        is_back: is_back != 0,
        is_answered: state & ANSWERED != 0,
        has_ended: state & RESET != 0 || state & both == both,
    })
}

/// `struct pair`: a frontend, as it was asked for, and an endpoint.
pub fn read_pair(bytes: &[u8; PAIR_LEN]) -> Option<Flow> {
    let mut rest = Reader(bytes);
    let (address, port) = (rest.ip()?, rest.port()?);
    let [protocol, _place] = rest.take()?;
    Some(Flow {
        protocol: Protocol::ALL.into_iter().find(|p| p.number() == protocol)?,
        destination: SocketAddr::new(address, port),
        replier: SocketAddr::new(rest.ip()?, rest.port()?),
    })
}
