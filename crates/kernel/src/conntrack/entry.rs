//! One entry of conntrack as netlink tells it (linux/netfilter/nfnetlink_conntrack.h); numbers are named as there,
//! without `CTA_` and `IPCTNL_`.

use std::net::{IpAddr, SocketAddr};

use portolan_model::health::{FlowKey, FlowState};
use portolan_model::reset::{Connection, Stage};
use portolan_model::{Flow, Protocol};

use crate::nfnetlink::wire::{Attributes, Writer};

pub(super) const MSG_NEW: u16 = 0;
pub(super) const MSG_GET: u16 = 1;
pub(super) const MSG_DELETE: u16 = 2;

pub(super) const TUPLE_ORIG: u16 = 1;
pub(super) const TUPLE_REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
pub(super) const ID: u16 = 12;
pub(super) const ZONE: u16 = 18;
pub(super) const FILTER: u16 = 25;
pub(super) const STATUS_MASK: u16 = 26;
/// Bits of linux/netfilter/nf_conntrack_common.h: `IPS_SEEN_REPLY`, `IPS_ASSURED`.
pub(super) const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
pub(super) const FILTER_ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_F_CTA_PROTO_NUM` of the kernel's net/netfilter/nf_internals.h.
pub(super) const FILTER_PROTO_NUM: u32 = 1 << 3;

pub(super) const TUPLE_IP: u16 = 1;
pub(super) const TUPLE_PROTO: u16 = 2;
pub(super) const IP_V4_SRC: u16 = 1;
pub(super) const IP_V4_DST: u16 = 2;
pub(super) const IP_V6_SRC: u16 = 3;
pub(super) const IP_V6_DST: u16 = 4;
pub(super) const PROTO_NUM: u16 = 1;
pub(super) const PROTO_SRC_PORT: u16 = 2;
pub(super) const PROTO_DST_PORT: u16 = 3;
const PROTOINFO_TCP: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS_REPLY: u16 = 5;
/// States of linux/netfilter/nf_conntrack_tcp.h: SYN_SENT, and the same from both sides at once.
const SYN_SENT: [u8; 2] = [1, 9];
/// From LAST_ACK to CLOSE: both have closed.
const CLOSED: std::ops::RangeInclusive<u8> = 6..=8;
/// LAST_ACK and TIME_WAIT: each side has closed in good order, so both processes live.
const FINISHED: std::ops::RangeInclusive<u8> = 6..=7;
const CLOSE: u8 = 8;
/// `IP_CT_TCP_FLAG_CLOSE_INIT`: this side has closed first.
const CLOSED_FIRST: u8 = 4;

/// An entry, with the bytes that name it again.
pub(super) struct Entry<'a> {
    pub flow: Flow,
    /// The attributes of the original tuple.
    pub tuple: &'a [u8],
    pub zone: Option<&'a [u8]>,
    pub id: Option<&'a [u8]>,
    /// Its `IPS_` bits.
    pub status: u32,
    /// What the protocol adds.
    pub info: Option<Attributes<'a>>,
}

impl<'a> Entry<'a> {
    /// Reads an entry of `protocol`; `None` for one of another protocol or one that makes no sense.
    pub fn read(attributes: Attributes<'a>, protocol: Protocol) -> Option<Self> {
        let original = attributes.nested(TUPLE_ORIG)?;
        let reply = attributes.nested(TUPLE_REPLY)?;
        let number = original.nested(TUPLE_PROTO)?.find(PROTO_NUM)?;
        if number != [protocol.number()] {
            return None;
        }
        let flow = Flow {
            protocol,
            destination: end(original, [IP_V4_DST, IP_V6_DST], PROTO_DST_PORT)?,
            replier: end(reply, [IP_V4_SRC, IP_V6_SRC], PROTO_SRC_PORT)?,
        };
        Some(Entry {
            flow,
            tuple: original.0,
            zone: attributes.find(ZONE),
            id: attributes.find(ID),
            status: attributes.number(STATUS).unwrap_or(0),
            info: attributes.nested(PROTOINFO),
        })
    }

    /// The original tuple of a connection of TCP.
    pub fn key(&self) -> Option<FlowKey> {
        let tuple = Attributes(self.tuple);
        Some(FlowKey {
            source: end(tuple, [IP_V4_SRC, IP_V6_SRC], PROTO_SRC_PORT)?,
            destination: self.flow.destination,
        })
    }

    /// What an entry of TCP tells about the process that it leads to.
    pub fn state(&self) -> FlowState {
        let answered = self.status & SEEN_REPLY != 0;
        let tcp = self.info.and_then(|info| info.nested(PROTOINFO_TCP));
        let state = tcp.and_then(|tcp| tcp.find(TCP_STATE)?.first().copied());
        match state {
            _ if !answered => FlowState::Unanswered,
            Some(state) if FINISHED.contains(&state) => FlowState::Finished,
            // Reset before there was a connection.
            Some(CLOSE) if self.status & ASSURED == 0 => FlowState::Unanswered,
            _ => FlowState::Quiet,
        }
    }

    /// The connection that an entry of TCP speaks of.
    pub fn connection(&self) -> Option<Connection> {
        let client = end(
            Attributes(self.tuple),
            [IP_V4_SRC, IP_V6_SRC],
            PROTO_SRC_PORT,
        )?;
        let tcp = self.info?.nested(PROTOINFO_TCP)?;
        let state = *tcp.find(TCP_STATE)?.first()?;
        let flags = tcp.find(TCP_FLAGS_REPLY).and_then(<[u8]>::first);
        let stage = match flags.is_some_and(|flags| flags & CLOSED_FIRST != 0) {
            _ if SYN_SENT.contains(&state) => Stage::Opening,
            _ if CLOSED.contains(&state) => Stage::Closing,
            true => Stage::Closing,
            false => Stage::Open,
        };
        let flow = self.flow;
        Some(Connection {
            client,
            flow,
            stage,
        })
    }

    /// Our rules set no zone. Somebody else's zone may see the same packets before they are translated: an entry
    /// there that is not translated is in order.
    pub fn is_of_interest(&self) -> bool {
        self.zone.is_none() || self.flow.is_translated()
    }
}

/// Writes a tuple, as the one who answers or asks sends it.
pub(super) fn write_tuple(
    out: &mut Writer,
    kind: u16,
    protocol: Protocol,
    source: SocketAddr,
    destination: SocketAddr,
) {
    let address = |out: &mut Writer, [v4, v6]: [u16; 2], ip: IpAddr| match ip {
        IpAddr::V4(ip) => out.raw(v4, &ip.octets()),
        IpAddr::V6(ip) => out.raw(v6, &ip.octets()),
    };
    out.nest(kind, |out| {
        out.nest(TUPLE_IP, |out| {
            address(out, [IP_V4_SRC, IP_V6_SRC], source.ip());
            address(out, [IP_V4_DST, IP_V6_DST], destination.ip());
        });
        out.nest(TUPLE_PROTO, |out| {
            out.raw(PROTO_NUM, &[protocol.number()]);
            out.raw(PROTO_SRC_PORT, &source.port().to_be_bytes());
            out.raw(PROTO_DST_PORT, &destination.port().to_be_bytes());
        });
    });
}

/// One end of a tuple.
fn end(tuple: Attributes<'_>, [v4, v6]: [u16; 2], port: u16) -> Option<SocketAddr> {
    let ip = tuple.nested(TUPLE_IP)?;
    let address: IpAddr = match ip.find(v4) {
        Some(bytes) => <[u8; 4]>::try_from(bytes).ok()?.into(),
        None => <[u8; 16]>::try_from(ip.find(v6)?).ok()?.into(),
    };
    let port = tuple.nested(TUPLE_PROTO)?.find(port)?;
    let port = u16::from_be_bytes(port.try_into().ok()?);
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use portolan_model::Family;
    use proptest::prelude::*;

    use super::*;
    use crate::nfnetlink::wire::{Message, nfproto};

    fn tuple(out: &mut Writer, kind: u16, source: [u8; 4], destination: [u8; 4], ports: [u16; 2]) {
        out.nest(kind, |out| {
            out.nest(TUPLE_IP, |out| {
                out.raw(IP_V4_SRC, &source);
                out.raw(IP_V4_DST, &destination);
            });
            out.nest(TUPLE_PROTO, |out| {
                out.raw(PROTO_NUM, &[17]);
                out.raw(PROTO_SRC_PORT, &ports[0].to_be_bytes());
                out.raw(PROTO_DST_PORT, &ports[1].to_be_bytes());
            });
        });
    }

    fn message(zone: Option<u16>) -> Vec<u8> {
        let mut out = Writer::new(1);
        out.begin_conntrack(0, 0, nfproto(Family::V4));
        let (client, vip, pod) = ([203, 0, 113, 2], [172, 30, 0, 1], [10, 1, 1, 2]);
        tuple(&mut out, TUPLE_ORIG, client, vip, [4000, 53]);
        tuple(&mut out, TUPLE_REPLY, pod, client, [5353, 4000]);
        if let Some(zone) = zone {
            out.raw(ZONE, &zone.to_be_bytes());
        }
        out.raw(ID, &[1, 2, 3, 4]);
        out.end();
        out.bytes
    }

    fn attributes(bytes: &[u8]) -> Attributes<'_> {
        Message::all(bytes).next().unwrap().attributes()
    }

    #[test]
    fn an_entry_is_read() {
        let bytes = message(Some(7));
        let entry = Entry::read(attributes(&bytes), Protocol::Udp).unwrap();
        let wanted = Flow {
            protocol: Protocol::Udp,
            destination: "172.30.0.1:53".parse().unwrap(),
            replier: "10.1.1.2:5353".parse().unwrap(),
        };
        assert_eq!(entry.flow, wanted);
        assert_eq!(
            (entry.zone, entry.id),
            (Some(&[0, 7][..]), Some(&[1, 2, 3, 4][..]))
        );
        assert!(entry.is_of_interest());
        assert!(Entry::read(attributes(&bytes), Protocol::Sctp).is_none());
    }

    proptest! {
        #[test]
        fn bytes_that_make_no_sense_do_no_harm(place in 0usize..160, value: u8, cut in 0usize..160) {
            let mut bytes = message(None);
            let length = bytes.len();
            bytes[place % length] = value;
            bytes.truncate(length.saturating_sub(cut));
            for message in Message::all(&bytes) {
                let _ = Entry::read(message.attributes(), Protocol::Udp);
            }
        }
    }
}
