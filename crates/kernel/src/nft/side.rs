//! Small tables beside the main one. They belong to the socket that made them (`NFT_TABLE_F_OWNER`, Linux 5.12) and are
//! gone when it is, however the process ends.

use portolan_dataplane::nftables::Reg;
use portolan_model::{ApplyError, Family};

use super::numbers::*;
use super::rules::{expr, reg};
use super::told_first;
use crate::nfnetlink::socket::Nfnetlink;
use crate::nfnetlink::wire::{CREATE, Writer, nfproto};

const FLAG_OWNER: u32 = 2;

/// Runs a transaction; `doing` is what an error says.
pub(super) fn transact(
    socket: &mut Nfnetlink,
    doing: &str,
    write: impl Fn(&mut Writer),
) -> Result<(), ApplyError> {
    let mut out = Writer::new(socket.next_sequence());
    out.begin_batch(None);
    write(&mut out);
    out.acknowledge();
    out.end_batch();
    socket.room(out.bytes.len())?;
    let done = socket.transact(&out.bytes, out.sequence);
    done.map_err(|refusals| told_first(doing, &refusals))
}

pub(super) fn message(
    out: &mut Writer,
    table: &str,
    kind: u16,
    flags: u16,
    family: Family,
    inside: impl FnOnce(&mut Writer),
) {
    out.begin(kind, flags, nfproto(family));
    out.text(TABLE, table);
    inside(out);
    out.end();
}

pub(super) fn write_owned_table(out: &mut Writer, table: &str, family: Family) {
    message(out, table, MSG_NEWTABLE, CREATE, family, |out| {
        out.number(TABLE_FLAGS, FLAG_OWNER);
    });
}

/// A base chain with its type, hook and priority.
pub(super) fn write_chain(
    out: &mut Writer,
    table: &str,
    family: Family,
    name: &str,
    (kind, hook, priority): (&str, u32, i32),
) {
    message(out, table, MSG_NEWCHAIN, CREATE, family, |out| {
        out.text(CHAIN_NAME, name);
        out.nest(CHAIN_HOOK, |out| {
            out.number(HOOK_HOOKNUM, hook);
            out.number(HOOK_PRIORITY, priority as u32);
        });
        out.text(CHAIN_TYPE, kind);
    });
}

/// How many registers an address takes.
pub(super) const fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

/// nft's own number of the type of addresses.
pub(super) const fn address_type(family: Family) -> u32 {
    match family {
        Family::V4 => 7,
        Family::V6 => 8,
    }
}

/// Compares the first register.
pub(super) fn compare(out: &mut Writer, operation: u32, bytes: &[u8]) {
    expr(out, "cmp", |out| {
        reg(out, 1, Reg(0));
        out.number(2, operation);
        out.nest(3, |out| out.raw(DATA_VALUE, bytes));
    });
}

pub(super) fn payload(out: &mut Writer, base: u32, offset: u32, length: u32, to: Reg) {
    expr(out, "payload", |out| {
        reg(out, 1, to);
        out.number(2, base);
        out.number(3, offset);
        out.number(4, length);
    });
}
