//! A table of its own that counts new flows through Services, per destination and endpoint.
//!
//! ```text
//!   postrouting, input (nat, before masquerade): the first packet of each flow, already translated
//!     was its destination rewritten?
//!       update @flows: original destination . port . protocol . endpoint . port → one more
//! ```
//!
//! The kernel makes an element when a pair is first used, so that nothing has to be programmed for a Service, and the
//! hooks of type nat see the first packet of a flow only, so that packets of established flows pay nothing.

use std::net::{IpAddr, SocketAddr};

use portolan_dataplane::nftables::{Field, Reg};
use portolan_model::{ApplyError, Family, Flow, Protocol};

use super::numbers::*;
use super::rules::{expr, load, reg};
use super::side::*;
use crate::nfnetlink::socket::{Answer, Nfnetlink};
use crate::nfnetlink::wire::{APPEND, Attributes, CREATE, DUMP, Writer, nfproto};

const NAME: &str = "portolan-counts";
const SET: &str = "flows";
/// A pair that has had no new flow for a day is forgotten, so that endpoints of old do not fill the set.
const TIMEOUT_MS: u64 = 24 * 3600 * 1000;
/// Just before masquerade (100), in the hooks where the last packets of all paths come by.
const HOOKS: [(&str, u32); 2] = [("postrouting", 4), ("input", 1)];
const PRIORITY: i32 = 99;

const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const CT_DST_IP: u32 = 20;
const CT_DST_IP6: u32 = 22;
const DIRECTION_ORIGINAL: u8 = 0;
const STATUS_DNAT: u32 = 1 << 5;

/// The table in one network namespace; it stands as long as this value.
pub struct ConnectionCounts {
    socket: Nfnetlink,
}

impl ConnectionCounts {
    /// Makes the table in the network namespace that the calling thread is in, with room for `pairs_max` pairs of
    /// destination and endpoint in each family. When it is full, flows of further pairs are not counted.
    pub fn open(pairs_max: u32) -> Result<Self, ApplyError> {
        let mut socket = Nfnetlink::open()?;
        transact(
            &mut socket,
            "cannot add the rules that count flows",
            |out| {
                Family::ALL
                    .into_iter()
                    .for_each(|family| write_table(out, family, pairs_max));
            },
        )?;
        Ok(ConnectionCounts { socket })
    }

    /// How many flows each pair has had since it was made; `None` when somebody has deleted the table. While the set
    /// grows, the kernel may leave out a pair or tell one twice. Costs one step for each pair.
    pub fn read(&mut self) -> Result<Option<Vec<(Flow, u64)>>, ApplyError> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let question = |out: &mut Writer| {
                out.begin(MSG_GETSETELEM, DUMP, nfproto(family));
                out.text(TABLE, NAME);
                out.text(SET_ELEM_LIST_SET, SET);
            };
            let doing = "cannot read the counts of flows";
            let answer = self.socket.ask(doing, question, |message| {
                let list = message.nested(SET_ELEM_LIST_ELEMENTS);
                let elements = list.into_iter().flat_map(Attributes::all);
                all.extend(elements.filter_map(|(_, e)| read_element(family, Attributes(e))));
            })?;
            match answer {
                // What changed are other tables: packets alone fill this one.
                Answer::Whole | Answer::Interrupted => {}
                Answer::Nothing => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}

fn write_table(out: &mut Writer, family: Family, pairs_max: u32) {
    write_owned_table(out, NAME, family);
    let address = address_type(family);
    message(out, NAME, MSG_NEWSET, CREATE, family, |out| {
        out.text(SET_NAME, SET);
        out.number(SET_ID, 1);
        out.number(SET_FLAGS, SET_FLAG_TIMEOUT | SET_FLAG_EVAL);
        let parts = [address, TYPE_PORT, TYPE_PROTOCOL, address, TYPE_PORT];
        let types = parts.into_iter().fold(0, |all, part| all << 6 | part);
        out.number(SET_KEY_TYPE, types);
        out.number(SET_KEY_LEN, 4 * (2 * u32::from(width(family)) + 3));
        out.nest(SET_DESC, |out| out.number(SET_DESC_SIZE, pairs_max));
    });
    for (chain, hook) in HOOKS {
        write_chain(out, NAME, family, chain, ("nat", hook, PRIORITY));
        message(out, NAME, MSG_NEWRULE, CREATE | APPEND, family, |out| {
            out.text(RULE_CHAIN, chain);
            out.nest(RULE_EXPRESSIONS, |out| write_rule(out, family));
        });
    }
}

fn write_rule(out: &mut Writer, family: Family) {
    ct(out, CT_STATUS, None, Reg(0));
    expr(out, "bitwise", |out| {
        reg(out, 1, Reg(0));
        reg(out, 2, Reg(0));
        out.number(3, 4);
        let mask = STATUS_DNAT.to_ne_bytes();
        out.nest(4, |out| out.raw(DATA_VALUE, &mask));
        out.nest(5, |out| out.raw(DATA_VALUE, &[0; 4]));
    });
    compare(out, NOT_EQUAL, &[0; 4]);
    let width = width(family);
    let destination = match family {
        Family::V4 => CT_DST_IP,
        Family::V6 => CT_DST_IP6,
    };
    let original = Some(DIRECTION_ORIGINAL);
    ct(out, destination, original, Reg(0));
    ct(out, CT_PROTO_DST, original, Reg(width));
    load(out, family, Field::Protocol, Reg(width + 1));
    load(out, family, Field::Destination, Reg(width + 2));
    load(out, family, Field::Port, Reg(2 * width + 2));
    expr(out, "dynset", |out| {
        out.text(1, SET);
        out.number(3, DYNSET_UPDATE);
        reg(out, 4, Reg(0));
        out.wide(6, TIMEOUT_MS);
        out.nest(7, |out| {
            out.text(EXPR_NAME, "counter");
            out.nest(EXPR_DATA, |_| {});
        });
    });
}

fn ct(out: &mut Writer, key: u32, direction: Option<u8>, to: Reg) {
    expr(out, "ct", |out| {
        reg(out, 1, to);
        out.number(2, key);
        if let Some(direction) = direction {
            out.raw(3, &[direction]);
        }
    });
}

fn read_element(family: Family, element: Attributes<'_>) -> Option<(Flow, u64)> {
    let key = element.nested(SET_ELEM_KEY)?.find(DATA_VALUE)?;
    let counter = element.nested(SET_ELEM_EXPR)?.nested(EXPR_DATA)?;
    let packets = counter.find(COUNTER_PACKETS)?.first_chunk()?;
    let (destination, key) = read_end(family, key)?;
    let (protocol, key) = (key.first()?, key.get(4..)?);
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols.into_iter().find(|p| p.number() == *protocol)?;
    let (replier, _) = read_end(family, key)?;
    let flow = Flow {
        protocol,
        destination,
        replier,
    };
    Some((flow, u64::from_be_bytes(*packets)))
}

/// An address and a port, and what comes after them.
fn read_end(family: Family, bytes: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest): (IpAddr, &[u8]) = match family {
        Family::V4 => {
            let (ip, rest) = bytes.split_first_chunk::<4>()?;
            ((*ip).into(), rest)
        }
        Family::V6 => {
            let (ip, rest) = bytes.split_first_chunk::<16>()?;
            ((*ip).into(), rest)
        }
    };
    let port = u16::from_be_bytes(*rest.first_chunk()?);
    Some((SocketAddr::new(ip, port), rest.get(4..)?))
}
