//! Keys and values of the maps as bytes, as `ebpf/decide.h` lays them out.
//!
//! Addresses of IPv4 are written as IPv6 knows them (::ffff:a.b.c.d), so that one map serves both families, and sockets
//! of IPv6 that connect to IPv4 as well. Ports are in the order of the network, other numbers in that of the machine.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use portolan_model::{Family, Frontend, Place, Protocol};

use super::state::{Deed, Entry, ListKey, Pick};

/// Bytes of a key of @services: `struct frontend`.
pub const SERVICE_KEY_LEN: usize = 20;
/// Bytes of a value of @services: `struct service`.
pub const SERVICE_LEN: usize = 44;
/// Bytes of a key of @endpoints: `struct slot`.
pub const ENDPOINT_KEY_LEN: usize = 28;
/// Bytes of a value of @endpoints: `struct endpoint`.
pub const ENDPOINT_LEN: usize = 20;
/// Bytes of a key of @members: `struct member`.
pub const MEMBER_LEN: usize = 44;
/// Bytes of a key of @node_port_ips.
pub const NODE_PORT_IP_LEN: usize = 16;

/// A frontend with an address of its own; the others are those of NodePorts, by family.
const ADDRESS: u8 = 0;
const NODE_PORT: [u8; 2] = [4, 6];

/// The flag of [`Entry::host_unbound`].
const HOST_UNBOUND: u32 = 1;

/// `struct frontend`.
pub fn service_key_of(frontend: Frontend) -> [u8; SERVICE_KEY_LEN] {
    let (address, place) = match frontend.place {
        Place::Address(ip) => (ip_of(ip), ADDRESS),
        Place::NodePort(family) => ([0; 16], NODE_PORT[family as usize]),
    };
    let mut out = Writer::<SERVICE_KEY_LEN>::default();
    out.put(&address);
    out.put(&frontend.port.get().to_be_bytes());
    out.put(&[frontend.protocol.number(), place]);
    out.bytes
}

/// The frontend in a key of @services; `None` if no such key is ours.
pub fn read_service_key(bytes: &[u8; SERVICE_KEY_LEN]) -> Option<Frontend> {
    let mut rest = Reader(bytes);
    let (address, port) = (rest.ip()?, rest.port()?);
    let [protocol, place] = rest.take()?;
    let place = match place {
        ADDRESS => Place::Address(address),
        place if place == NODE_PORT[0] => Place::NodePort(Family::V4),
        place if place == NODE_PORT[1] => Place::NodePort(Family::V6),
        _ => return None,
    };
    let known = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    Some(Frontend {
        place,
        protocol: known.into_iter().find(|p| p.number() == protocol)?,
        port: NonZeroU16::new(port)?,
    })
}

/// `PICK_REFUSE` of ebpf/decide.h, beside no slots.
const REFUSE: u32 = 1;

/// `struct service`.
pub fn service_of(entry: &Entry) -> [u8; SERVICE_LEN] {
    let mut out = Writer::<SERVICE_LEN>::default();
    out.put(&service_key_of(entry.id));
    for deed in [entry.pod, entry.host] {
        let (list, slots) = match deed {
            Some(Deed::Pick(pick)) => (pick.list, pick.slots),
            Some(Deed::Refuse) => (REFUSE, 0),
            None => (0, 0),
        };
        out.put(&list.to_ne_bytes());
        out.put(&slots.to_ne_bytes());
    }
    let flags = match entry.host_unbound {
        true => HOST_UNBOUND,
        false => 0,
    };
    out.put(&flags.to_ne_bytes());
    out.put(&entry.affinity_s.map_or(0, NonZeroU32::get).to_ne_bytes());
    out.bytes
}

/// The entry in a value of @services.
pub fn read_service(bytes: &[u8; SERVICE_LEN]) -> Option<Entry> {
    let mut rest = Reader(bytes);
    let id = read_service_key(&rest.take()?)?;
    let mut deed = || {
        Some(match (rest.number()?, rest.number()?) {
            (0, 0) => None,
            (REFUSE, 0) => Some(Deed::Refuse),
            (_, 0) => return None,
            (list, slots) => Some(Deed::Pick(Pick { list, slots })),
        })
    };
    let (pod, host) = (deed()?, deed()?);
    Some(Entry {
        id,
        pod,
        host,
        host_unbound: rest.number()? & HOST_UNBOUND != 0,
        affinity_s: NonZeroU32::new(rest.number()?),
    })
}

/// `struct slot`.
pub fn endpoint_key_of(list: ListKey, slot: u32) -> [u8; ENDPOINT_KEY_LEN] {
    let mut out = Writer::<ENDPOINT_KEY_LEN>::default();
    out.put(&service_key_of(list.id));
    out.put(&list.hash.to_ne_bytes());
    out.put(&slot.to_ne_bytes());
    out.bytes
}

/// The list and the slot in a key of @endpoints.
pub fn read_endpoint_key(bytes: &[u8; ENDPOINT_KEY_LEN]) -> Option<(ListKey, u32)> {
    let mut rest = Reader(bytes);
    let id = read_service_key(&rest.take()?)?;
    let hash = rest.number()?;
    Some((ListKey { id, hash }, rest.number()?))
}

/// `struct member`.
pub fn member_of(list: ListKey, to: SocketAddr) -> [u8; MEMBER_LEN] {
    let mut out = Writer::<MEMBER_LEN>::default();
    out.put(&service_key_of(list.id));
    out.put(&list.hash.to_ne_bytes());
    out.put(&endpoint_of(to));
    out.bytes
}

/// The list and the endpoint in a key of @members.
pub fn read_member(bytes: &[u8; MEMBER_LEN]) -> Option<(ListKey, SocketAddr)> {
    let mut rest = Reader(bytes);
    let id = read_service_key(&rest.take()?)?;
    let hash = rest.number()?;
    Some((ListKey { id, hash }, read_endpoint(&rest.take()?)?))
}

/// `struct endpoint`.
pub fn endpoint_of(to: SocketAddr) -> [u8; ENDPOINT_LEN] {
    let mut out = Writer::<ENDPOINT_LEN>::default();
    out.put(&ip_of(to.ip()));
    out.put(&to.port().to_be_bytes());
    out.bytes
}

/// The address in a value of @endpoints.
pub fn read_endpoint(bytes: &[u8; ENDPOINT_LEN]) -> Option<SocketAddr> {
    let mut rest = Reader(bytes);
    Some(SocketAddr::new(rest.ip()?, rest.port()?))
}

/// An address of either family.
pub fn ip_of(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The address that [`ip_of`] wrote.
pub fn read_ip(bytes: &[u8; NODE_PORT_IP_LEN]) -> IpAddr {
    Ipv6Addr::from(*bytes).to_canonical()
}

pub(super) struct Writer<const N: usize> {
    pub(super) bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Default for Writer<N> {
    fn default() -> Self {
        Writer {
            bytes: [0; N],
            length: 0,
        }
    }
}

impl<const N: usize> Writer<N> {
    /// What is not written stays 0.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn ip(&mut self) -> Option<IpAddr> {
        self.take().map(|bytes| read_ip(&bytes))
    }

    pub(super) fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}
