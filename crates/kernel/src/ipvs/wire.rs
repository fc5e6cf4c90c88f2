//! IPVS in generic netlink: virtual servers and real servers as attributes, in both directions.
//!
//! The numbers are those of include/uapi/linux/ip_vs.h,
//! <https://github.com/torvalds/linux/blob/v6.1/include/uapi/linux/ip_vs.h>; which of them the kernel wants is in
//! `ip_vs_genl_parse_service` and `ip_vs_genl_parse_dest` of
//! <https://github.com/torvalds/linux/blob/v6.1/net/netfilter/ipvs/ip_vs_ctl.c>.
//! Ports and IPv4 netmasks are in network order, every other number in the machine's.

use std::net::{IpAddr, SocketAddr};

use portolan_dataplane::ipvs::Server;
use portolan_dataplane::nftables::Spot;
use portolan_model::{Family, Protocol, Scheduler};

use crate::nfnetlink::wire::{Attributes, Writer, read_u16, read_u32};

/// The name of the family.
pub(super) const FAMILY: &str = "IPVS";

pub(super) const NEW_SERVICE: u8 = 1;
pub(super) const SET_SERVICE: u8 = 2;
pub(super) const DEL_SERVICE: u8 = 3;
pub(super) const GET_SERVICE: u8 = 4;
pub(super) const NEW_DEST: u8 = 5;
pub(super) const SET_DEST: u8 = 6;
pub(super) const DEL_DEST: u8 = 7;
pub(super) const GET_DEST: u8 = 8;
pub(super) const SET_CONFIG: u8 = 12;

const ATTR_SERVICE: u16 = 1;
const ATTR_DEST: u16 = 2;
const ATTR_TIMEOUT_TCP: u16 = 4;
const ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const ATTR_TIMEOUT_UDP: u16 = 6;

const SVC_AF: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDR: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_FWMARK: u16 = 5;
const SVC_SCHED_NAME: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;

const DEST_ADDR: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_FWD_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_U_THRESH: u16 = 5;
const DEST_L_THRESH: u16 = 6;
const DEST_ACTIVE_CONNS: u16 = 7;
const DEST_INACT_CONNS: u16 = 8;

/// The connection keeps its source; only the destination is rewritten.
const FORWARD_NAT: u32 = 0;

const FLAG_PERSISTENT: u32 = 1;
/// Set by the kernel itself.
const FLAG_HASHED: u32 = 2;
/// For `mh` and `sh`: the client's port counts too (what kube-proxy asks for with `mh`).
const FLAG_PORT: u32 = 0x10;
/// The third flag for schedulers, which none has: a virtual server with it is ours. `ipvsadm` shows `flag-3`.
const FLAG_OURS: u32 = 0x20;

/// The whole address of a client is remembered.
const NETMASK_V4: [u8; 4] = [0xff; 4];
const PREFIX_V6: u32 = 128;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A virtual server as the kernel tells it, without its real servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub spot: Spot,
    /// `None` for one that we have no name for.
    pub scheduler: Option<Scheduler>,
    pub affinity_s: u32,
    pub ours: bool,
}

/// A real server as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Real {
    pub address: SocketAddr,
    pub weight: u32,
    /// Established connections.
    pub active: u32,
    /// Connections in any other condition.
    pub inactive: u32,
}

/// Writes which virtual server is meant.
pub(super) fn write_spot(out: &mut Writer, spot: &Spot) {
    out.nest(ATTR_SERVICE, |out| place(out, spot));
}

/// Writes a whole virtual server.
pub(super) fn write_head(out: &mut Writer, spot: &Spot, server: &Server) {
    let mut flags = FLAG_OURS;
    if server.affinity_s > 0 {
        flags |= FLAG_PERSISTENT;
    }
    if server.scheduler == Scheduler::MaglevHash {
        flags |= FLAG_PORT;
    }
    out.nest(ATTR_SERVICE, |out| {
        place(out, spot);
        out.text(SVC_SCHED_NAME, server.scheduler.as_str());
        let both = [flags, !FLAG_HASHED];
        out.raw(SVC_FLAGS, both.map(u32::to_ne_bytes).as_flattened());
        out.raw(SVC_TIMEOUT, &server.affinity_s.to_ne_bytes());
        match spot.address {
            IpAddr::V4(_) => out.raw(SVC_NETMASK, &NETMASK_V4),
            IpAddr::V6(_) => out.raw(SVC_NETMASK, &PREFIX_V6.to_ne_bytes()),
        }
    });
}

fn place(out: &mut Writer, spot: &Spot) {
    let family = match spot.address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    out.raw(SVC_AF, &family.to_ne_bytes());
    let protocol = u16::from(spot.protocol.number());
    out.raw(SVC_PROTOCOL, &protocol.to_ne_bytes());
    out.raw(SVC_ADDR, &address_bytes(spot.address));
    out.raw(SVC_PORT, &spot.port.to_be_bytes());
}

/// Writes which real server is meant.
pub(super) fn write_address(out: &mut Writer, to: SocketAddr) {
    out.nest(ATTR_DEST, |out| real_place(out, to));
}

/// Writes a whole real server.
pub(super) fn write_real(out: &mut Writer, to: SocketAddr, weight: u32) {
    out.nest(ATTR_DEST, |out| {
        real_place(out, to);
        for (kind, value) in [
            (DEST_FWD_METHOD, FORWARD_NAT),
            (DEST_WEIGHT, weight),
            (DEST_U_THRESH, 0),
            (DEST_L_THRESH, 0),
        ] {
            out.raw(kind, &value.to_ne_bytes());
        }
    });
}

fn real_place(out: &mut Writer, to: SocketAddr) {
    out.raw(DEST_ADDR, &address_bytes(to.ip()));
    out.raw(DEST_PORT, &to.port().to_be_bytes());
}

/// How long connections without packets are kept, in seconds; 0 leaves what is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections (`--ipvs-tcp-timeout`).
    pub tcp_s: u32,
    /// TCP connections after a FIN (`--ipvs-tcpfin-timeout`).
    pub tcp_fin_s: u32,
    /// UDP flows (`--ipvs-udp-timeout`).
    pub udp_s: u32,
}

/// Writes the timeouts of the namespace.
pub(super) fn write_timeouts(out: &mut Writer, timeouts: &Timeouts) {
    for (kind, value) in [
        (ATTR_TIMEOUT_TCP, timeouts.tcp_s),
        (ATTR_TIMEOUT_TCP_FIN, timeouts.tcp_fin_s),
        (ATTR_TIMEOUT_UDP, timeouts.udp_s),
    ] {
        out.raw(kind, &value.to_ne_bytes());
    }
}

/// The kernel has room for any address, and wants all of it.
fn address_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => {
            let mut all = [0; 16];
            all[..4].copy_from_slice(&ip.octets());
            all
        }
    }
}

fn address(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    Some(match family {
        Family::V4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        Family::V6 => IpAddr::from(*bytes.first_chunk::<16>()?),
    })
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk::<2>()?))
}

/// The virtual server of a message; `None` for one that stands for a firewall mark, or that makes no sense.
pub(super) fn read_head(message: Attributes<'_>) -> Option<Head> {
    let all = message.nested(ATTR_SERVICE)?;
    if all.find(SVC_FWMARK).is_some() {
        return None;
    }
    let family = match read_u16(all.find(SVC_AF)?, 0)? {
        AF_INET => Family::V4,
        AF_INET6 => Family::V6,
        _ => return None,
    };
    let number = read_u16(all.find(SVC_PROTOCOL)?, 0)?;
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let mut protocols = protocols.into_iter();
    let protocol = protocols.find(|protocol| u16::from(protocol.number()) == number)?;
    let flags = read_u32(all.find(SVC_FLAGS)?, 0)?;
    let timeout_s = read_u32(all.find(SVC_TIMEOUT)?, 0)?;
    Some(Head {
        spot: Spot {
            address: address(family, all.find(SVC_ADDR)?)?,
            protocol,
            port: port(all.find(SVC_PORT)?)?,
        },
        scheduler: all.text(SVC_SCHED_NAME)?.parse().ok(),
        affinity_s: match flags & FLAG_PERSISTENT {
            0 => 0,
            _ => timeout_s,
        },
        ours: flags & FLAG_OURS != 0,
    })
}

/// The real server of a message, of a virtual server of `family`.
pub(super) fn read_real(family: Family, message: Attributes<'_>) -> Option<Real> {
    let all = message.nested(ATTR_DEST)?;
    let number = |kind| read_u32(all.find(kind)?, 0);
    let count = |kind| number(kind).unwrap_or(0);
    let ip = address(family, all.find(DEST_ADDR)?)?;
    Some(Real {
        address: SocketAddr::new(ip, port(all.find(DEST_PORT)?)?),
        weight: number(DEST_WEIGHT)?,
        active: count(DEST_ACTIVE_CONNS),
        inactive: count(DEST_INACT_CONNS),
    })
}

#[cfg(test)]
mod tests;
