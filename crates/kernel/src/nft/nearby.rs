//! The table that leads queries for names to an answerer of the node itself: past conntrack, and past every translation
//! that stands behind conntrack.
//!
//! ```text
//!   query   client → ADDRESS:53     notrack, destination port = the answerer's
//!   answer  ADDRESS:port → client   notrack, source port = 53
//! ```
//!
//! The answerer waits at a port of its own, so that neither a virtual server of IPVS at ADDRESS:53 nor rules of anybody
//! else have a part in it. Queries and answers have a table each: an answerer that takes no more queries still answers.
//! A table belongs to its socket: it is gone when the process that made it is.

use std::net::IpAddr;

use portolan_dataplane::nftables::{Expr, Field, Reg};
use portolan_model::{ApplyError, Family};

use super::numbers::*;
use super::rules::{expr, load, reg, write_expr};
use super::side::{compare, message, payload, transact, write_chain, write_owned_table};
use crate::nfnetlink::socket::Nfnetlink;
use crate::nfnetlink::wire::{APPEND, CREATE, Writer};

/// Where clients send queries to.
const PORT: u16 = 53;
/// Hooks by number: packets that come in, and those that the node sends.
const PREROUTING: (&str, u32) = ("prerouting", 0);
const OUTPUT: (&str, u32) = ("output", 3);
/// NF_IP_PRI_RAW: in front of conntrack.
const PRIORITY: i32 = -300;
/// Of TCP and UDP, with the place of the checksum in the header.
const PROTOCOLS: [(i32, u32); 2] = [(libc::IPPROTO_UDP, 6), (libc::IPPROTO_TCP, 16)];
/// Places of ports in either header.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
/// NFT_PAYLOAD_CSUM_INET.
const CHECKSUM_INET: u32 = 1;

/// Which packets a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From clients to the answerer.
    Queries,
    /// Back.
    Answers,
}

impl Way {
    const fn table(self) -> &'static str {
        match self {
            Way::Queries => "portolan-queries",
            Way::Answers => "portolan-answers",
        }
    }

    /// Clients are other namespaces or processes of the node; answers are the node's own packets.
    const fn hooks(self) -> &'static [(&'static str, u32)] {
        match self {
            Way::Queries => &[PREROUTING, OUTPUT],
            Way::Answers => &[OUTPUT],
        }
    }
}

/// A table of one network namespace; dropping it takes it away.
pub struct NearbyTable {
    _socket: Nfnetlink,
}

impl NearbyTable {
    /// Between clients that ask these addresses, and the answerer at `port` of the same addresses.
    pub fn new(way: Way, addresses: &[IpAddr], port: u16) -> Result<Self, ApplyError> {
        let mut socket = Nfnetlink::open()?;
        transact(
            &mut socket,
            "cannot write the rules that lead queries to this node's answerer (they need Linux 5.12 and CAP_NET_ADMIN)",
            |out| {
                for family in Family::ALL {
                    let of = |ip: &&IpAddr| Family::of(**ip) == family;
                    let addresses: Vec<IpAddr> = addresses.iter().filter(of).copied().collect();
                    if !addresses.is_empty() {
                        write_table(out, way, family, &addresses, port);
                    }
                }
            },
        )?;
        Ok(NearbyTable { _socket: socket })
    }
}

fn write_table(out: &mut Writer, way: Way, family: Family, addresses: &[IpAddr], port: u16) {
    write_owned_table(out, way.table(), family);
    for (chain, hook) in way.hooks() {
        let place = ("filter", *hook, PRIORITY);
        write_chain(out, way.table(), family, chain, place);
        for address in addresses {
            for protocol in PROTOCOLS {
                let flags = CREATE | APPEND;
                message(out, way.table(), MSG_NEWRULE, flags, family, |out| {
                    out.text(RULE_CHAIN, chain);
                    out.nest(RULE_EXPRESSIONS, |out| {
                        rule(out, way, *address, protocol, port);
                    });
                });
            }
        }
    }
}

/// Packets of the way get the other port, and conntrack does not see them.
fn rule(out: &mut Writer, way: Way, address: IpAddr, (protocol, checksum): (i32, u32), port: u16) {
    let family = Family::of(address);
    let (field, port_at, from, to) = match way {
        Way::Queries => (Field::Destination, DESTINATION_PORT, PORT, port),
        Way::Answers => (Field::Source, SOURCE_PORT, port, PORT),
    };
    load(out, family, Field::Protocol, Reg(0));
    compare(out, EQUAL, &[protocol as u8]);
    load(out, family, field, Reg(0));
    match address {
        IpAddr::V4(ip) => compare(out, EQUAL, &ip.octets()),
        IpAddr::V6(ip) => compare(out, EQUAL, &ip.octets()),
    }
    payload(out, TRANSPORT, port_at, 2, Reg(0));
    compare(out, EQUAL, &from.to_be_bytes());
    expr(out, "notrack", |_| {});
    let bytes = to.to_be_bytes().to_vec();
    let into = Reg(0);
    write_expr(out, family, &Expr::Value { into, bytes });
    expr(out, "payload", |out| {
        out.number(2, TRANSPORT);
        out.number(3, port_at);
        out.number(4, 2);
        reg(out, 5, into);
        out.number(6, CHECKSUM_INET);
        out.number(7, checksum);
    });
}
