//! The table that keeps rules which masquerade away from the source ports of the programs at devices: an answer to such
//! a port is the programs' to translate.
//!
//! Its chain stands in front of the one that masquerades, and does the same with other ports. It knows no Service, is
//! written once and stays as long as the programs do.

use std::ops::RangeInclusive;

use portolan_dataplane::nftables::{Expr, Field, MASQUERADE_MARK, Reg};
use portolan_model::{ApplyError, Family};

use super::numbers::*;
use super::rules::{expr, read_digest, reg, write_comment, write_expr};
use super::side::{message, transact, write_chain};
use crate::nfnetlink::socket::Nfnetlink;
use crate::nfnetlink::wire::{APPEND, CREATE, DUMP, Writer, nfproto};

const NAME: &str = "portolan-outside";
const CHAIN: &str = "postrouting";
const POSTROUTING: u32 = 4;
/// Just in front of the chain `postrouting` of nftables mode.
const PRIORITY: i32 = 99;

/// The lowest port that is given to a client whose own is not a privileged one.
const FIRST: u16 = 1024;

/// NF_NAT_RANGE_PROTO_RANDOM_FULLY, and NF_NAT_RANGE_PROTO_SPECIFIED: the kernel does not look at ports without it.
const FLAGS: u32 = 0x10 | 0x2;

/// Makes sure that rules leave `ports` to the programs.
pub(crate) fn keep(ports: &RangeInclusive<u16>) -> Result<(), ApplyError> {
    let mut socket = Nfnetlink::open()?;
    let others = beside(ports);
    match stands(&mut socket, &others)? {
        true => Ok(()),
        false => write(&mut socket, &others),
    }
}

/// The ports on the other side of it, for the rules.
fn beside(ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    match *ports.start() > FIRST {
        true => FIRST..=ports.start() - 1,
        false => ports.end().saturating_add(1)..=u16::MAX,
    }
}

/// What tells one rule from another.
fn digest(ports: &RangeInclusive<u16>) -> u64 {
    u64::from(*ports.start()) << 16 | u64::from(*ports.end())
}

fn stands(socket: &mut Nfnetlink, ports: &RangeInclusive<u16>) -> Result<bool, ApplyError> {
    for family in Family::ALL {
        let mut found = Vec::new();
        let question = |out: &mut Writer| {
            out.begin(MSG_GETRULE, DUMP, nfproto(family));
            out.text(TABLE, NAME);
        };
        socket.ask("cannot list the rule of source ports", question, |rule| {
            if rule.text(TABLE) == Some(NAME) {
                found.push(rule.find(RULE_USERDATA).map_or(0, read_digest));
            }
        })?;
        if found != [digest(ports)] {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write(socket: &mut Nfnetlink, ports: &RangeInclusive<u16>) -> Result<(), ApplyError> {
    transact(socket, "cannot write the rule of source ports", |out| {
        for family in Family::ALL {
            message(out, NAME, MSG_NEWTABLE, CREATE, family, |_| {});
            message(out, NAME, MSG_DELTABLE, 0, family, |_| {});
            message(out, NAME, MSG_NEWTABLE, CREATE, family, |_| {});
            let place = ("nat", POSTROUTING, PRIORITY);
            write_chain(out, NAME, family, CHAIN, place);
            let flags = CREATE | APPEND;
            message(out, NAME, MSG_NEWRULE, flags, family, |out| {
                out.text(RULE_CHAIN, CHAIN);
                out.nest(RULE_EXPRESSIONS, |out| masquerade(out, family, ports));
                write_comment(out, &format!("{:016x}", digest(ports)));
            });
        }
    })
}

/// Takes both tables away.
pub(crate) fn remove() -> Result<(), ApplyError> {
    let mut socket = Nfnetlink::open()?;
    transact(
        &mut socket,
        "cannot remove the rule of source ports",
        |out| {
            for family in Family::ALL {
                message(out, NAME, MSG_NEWTABLE, CREATE, family, |_| {});
                message(out, NAME, MSG_DELTABLE, 0, family, |_| {});
            }
        },
    )
}

/// Marked packets are masqueraded, with one of these ports.
fn masquerade(out: &mut Writer, family: Family, ports: &RangeInclusive<u16>) {
    let (first, last) = (Reg(0), Reg(1));
    let port = |into, port: u16| Expr::Value {
        into,
        bytes: port.to_be_bytes().to_vec(),
    };
    let bits = |mask, xor| Expr::Bits {
        reg: first,
        mask,
        xor,
    };
    let all = [
        Expr::Load(Field::Mark, first),
        bits(MASQUERADE_MARK, 0),
        Expr::Compare {
            reg: first,
            negate: false,
            bytes: MASQUERADE_MARK.to_ne_bytes().to_vec(),
        },
        Expr::Load(Field::Mark, first),
        bits(u32::MAX, MASQUERADE_MARK),
        Expr::SetMark(first),
        port(first, *ports.start()),
        port(last, *ports.end()),
    ];
    all.iter().for_each(|what| write_expr(out, family, what));
    expr(out, "masq", |out| {
        out.number(1, FLAGS);
        reg(out, 2, first);
        reg(out, 3, last);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_the_other_side() {
        assert_eq!(beside(&(1024..=29_999)), 30_000..=65_535);
        assert_eq!(beside(&(40_001..=65_535)), 1024..=40_000);
    }
}
