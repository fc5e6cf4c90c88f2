//! A table of its own that resets connections, and stands only while there are some: packets of other connections pay
//! nothing in between.
//!
//! ```text
//!   prerouting, output, before conntrack:
//!     client . port . destination . port in @connections?
//!       a SYN: the client is done with the old connection, forget it
//!       anything else: answer with a reset, which has the right numbers because the packet has them
//!   output only: packets the other way round (our provocations and resets) go past conntrack
//! ```
//!
//! A client that is silent is provoked: one bare ACK with numbers that are not its own makes it answer with an ACK that
//! has them (RFC 9293, 3.10.7.4), and that one is answered with a reset.
//!
//! The table belongs to our socket (`NFT_TABLE_F_OWNER`, Linux 5.12): it is gone when the process is, however that ends.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_dataplane::nftables::{Field, Reg};
use portolan_model::{ApplyError, Family};

use super::numbers::*;
use super::rules::{expr, load, reg};
use super::side::*;
use crate::nfnetlink::socket::Nfnetlink;
use crate::nfnetlink::wire::{APPEND, CREATE, Writer};

/// The name of the table.
const NAME: &str = "portolan-resets";
const SET: &str = "connections";
/// More than may be reset at a time: elements live a little longer than we count them.
const SET_SIZE: u32 = 65_536;
/// Connections in one message: each has less than 100 bytes of the 65 535 that an attribute can have.
const ELEMENTS_MAX: usize = 500;
/// Before conntrack (-200), and before anybody's `raw` (-300).
const PRIORITY: i32 = -310;

const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];

/// A client and where it connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client, as the node sees it.
    pub client: SocketAddr,
    /// Address and port of the Service.
    pub destination: SocketAddr,
}

/// The table in one network namespace.
pub struct ResetTable {
    socket: Nfnetlink,
    stands: [bool; 2],
}

impl ResetTable {
    /// Opens nf_tables of the network namespace that the calling thread is in; makes nothing yet.
    pub fn open() -> Result<Self, ApplyError> {
        Ok(ResetTable {
            socket: Nfnetlink::open()?,
            stands: [false; 2],
        })
    }

    /// From now on packets of these connections are answered with a reset, for `time`.
    pub fn add(&mut self, all: &[Ends], time: Duration) -> Result<(), ApplyError> {
        for family in Family::ALL {
            let of = |ends: &&Ends| Family::of(ends.client.ip()) == family;
            let all: Vec<Ends> = all.iter().filter(of).copied().collect();
            if all.is_empty() {
                continue;
            }
            let stood = self.stands[family as usize];
            transact(
                &mut self.socket,
                "cannot add the rules that reset connections",
                |out| {
                    if !stood {
                        write_table(out, family);
                    }
                    for part in all.chunks(ELEMENTS_MAX) {
                        write_elements(out, family, part, time);
                    }
                },
            )?;
            self.stands[family as usize] = true;
        }
        Ok(())
    }

    /// Takes the table away.
    pub fn remove(&mut self) -> Result<(), ApplyError> {
        for family in Family::ALL {
            if self.stands[family as usize] {
                transact(
                    &mut self.socket,
                    "cannot delete the rules that reset connections",
                    |out| {
                        message(out, NAME, MSG_DELTABLE, 0, family, |_| {});
                    },
                )?;
                self.stands[family as usize] = false;
            }
        }
        Ok(())
    }
}

fn write_table(out: &mut Writer, family: Family) {
    write_owned_table(out, NAME, family);
    let address = address_type(family);
    message(out, NAME, MSG_NEWSET, CREATE, family, |out| {
        out.text(SET_NAME, SET);
        out.number(SET_ID, 1);
        out.number(SET_FLAGS, SET_FLAG_TIMEOUT | SET_FLAG_EVAL);
        // The type in nft's own numbers: address . inet_service, twice.
        out.number(
            SET_KEY_TYPE,
            (address << 6 | TYPE_PORT) << 12 | address << 6 | TYPE_PORT,
        );
        out.number(SET_KEY_LEN, (u32::from(width(family)) + 1) * 8);
        out.nest(SET_DESC, |out| out.number(SET_DESC_SIZE, SET_SIZE));
    });
    for (name, hook) in HOOKS {
        write_chain(out, NAME, family, name, ("filter", hook, PRIORITY));
        rule(out, family, name, |out| {
            write_only_syn(out);
            write_key(out, family, false);
            expr(out, "dynset", |out| {
                out.text(1, SET);
                out.number(3, DYNSET_DELETE);
                reg(out, 4, Reg(0));
            });
        });
        rule(out, family, name, |out| {
            write_member(out, family, false);
            expr(out, "reject", |out| out.number(1, REJECT_TCP_RESET));
        });
    }
    rule(out, family, "output", |out| {
        write_member(out, family, true);
        expr(out, "notrack", |_| {});
    });
}

fn rule(out: &mut Writer, family: Family, chain: &str, write: impl FnOnce(&mut Writer)) {
    message(out, NAME, MSG_NEWRULE, CREATE | APPEND, family, |out| {
        out.text(RULE_CHAIN, chain);
        out.nest(RULE_EXPRESSIONS, |out| {
            // TCP only.
            load(out, family, Field::Protocol, Reg(0));
            compare(out, EQUAL, &[libc::IPPROTO_TCP as u8]);
            write(out);
        });
    });
}

/// Of the flags SYN, RST and ACK only SYN is set.
fn write_only_syn(out: &mut Writer) {
    payload(out, TRANSPORT, 13, 1, Reg(0));
    expr(out, "bitwise", |out| {
        reg(out, 1, Reg(0));
        reg(out, 2, Reg(0));
        out.number(3, 1);
        out.nest(4, |out| out.raw(DATA_VALUE, &[0x16]));
        out.nest(5, |out| out.raw(DATA_VALUE, &[0]));
    });
    compare(out, EQUAL, &[0x02]);
}

/// Loads what is looked for in the set; `reversed` for packets towards the client.
fn write_key(out: &mut Writer, family: Family, reversed: bool) {
    let width = width(family);
    let at = match reversed {
        false => [0, width, width + 1, 2 * width + 1],
        true => [width + 1, 2 * width + 1, 0, width],
    };
    load(out, family, Field::Source, Reg(at[0]));
    payload(out, TRANSPORT, 0, 2, Reg(at[1]));
    load(out, family, Field::Destination, Reg(at[2]));
    load(out, family, Field::Port, Reg(at[3]));
}

fn write_member(out: &mut Writer, family: Family, reversed: bool) {
    write_key(out, family, reversed);
    expr(out, "lookup", |out| {
        out.text(1, SET);
        reg(out, 2, Reg(0));
    });
}

fn write_elements(out: &mut Writer, family: Family, all: &[Ends], time: Duration) {
    let timeout = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    message(out, NAME, MSG_NEWSETELEM, CREATE, family, |out| {
        out.text(SET_ELEM_LIST_SET, SET);
        out.nest(SET_ELEM_LIST_ELEMENTS, |out| {
            for ends in all {
                out.nest(LIST_ELEM, |out| {
                    out.nest(SET_ELEM_KEY, |out| out.raw(DATA_VALUE, &key(ends)));
                    out.wide(SET_ELEM_TIMEOUT, timeout);
                });
            }
        });
    });
}

fn key(ends: &Ends) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    for end in [ends.client, ends.destination] {
        match end.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
        bytes.extend(end.port().to_be_bytes());
        bytes.extend([0, 0]);
    }
    bytes
}
