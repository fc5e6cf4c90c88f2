//! Rules as netlink attributes: one kernel expression for each of ours.

use portolan_dataplane::nftables::{Expr, Field, Reg, Rejection, Rule};
use portolan_model::Family;
use portolan_model::balance::CLIENT_SEED;

use super::numbers::*;
use crate::nfnetlink::wire::{Writer, nfproto};

/// Writes `rule` (expressions and digest comment) into the current message.
pub(super) fn write_rule(out: &mut Writer, family: Family, rule: &Rule) {
    out.nest(RULE_EXPRESSIONS, |out| {
        for expr in &rule.0 {
            write_expr(out, family, expr);
        }
    });
    write_comment(out, &comment(rule, family));
}

/// A comment as nft keeps it: type 0, length with the final zero, text. At most 128 bytes, which is the limit of the
/// `nft` tool; it begins with a digest in 16 hexadecimal digits.
pub(super) fn write_comment(out: &mut Writer, comment: &str) {
    let comment = format!("{COMMENT}{comment}");
    let mut userdata = vec![0, comment.len() as u8 + 1];
    userdata.extend(comment.as_bytes());
    userdata.push(0);
    out.raw(RULE_USERDATA, &userdata);
}

/// Every comment starts so; a digest in 16 hexadecimal digits and perhaps a note follow.
const COMMENT: &str = "portolan ";

fn comment(rule: &Rule, family: Family) -> String {
    let (digest, note) = (rule.digest(family), rule.note());
    match note.is_empty() {
        true => format!("{digest:016x}"),
        false => format!("{digest:016x}: {note}"),
    }
}

/// The digest out of a rule's user data; 0 if there is none.
pub(super) fn read_digest(userdata: &[u8]) -> u64 {
    let digest = || {
        let (head, text) = userdata.split_at_checked(2)?;
        let text = text.get(..usize::from(head[1]))?;
        let text = std::str::from_utf8(text).ok()?.strip_prefix(COMMENT)?;
        u64::from_str_radix(text.get(..16)?, 16).ok()
    };
    digest().unwrap_or(0)
}

pub(super) fn reg(out: &mut Writer, kind: u16, reg: Reg) {
    out.number(kind, REG32_00 + u32::from(reg.0));
}

fn numgen(out: &mut Writer, kind: u32, into: Reg, modulus: u32, offset: u32) {
    expr(out, "numgen", |out| {
        reg(out, 1, into);
        out.number(2, modulus);
        out.number(3, kind);
        out.number(4, offset);
    });
}

pub(super) fn expr(out: &mut Writer, name: &str, inside: impl FnOnce(&mut Writer)) {
    out.nest(LIST_ELEM, |out| {
        out.text(EXPR_NAME, name);
        out.nest(EXPR_DATA, inside);
    });
}

fn verdict(out: &mut Writer, code: i32, chain: Option<String>) {
    expr(out, "immediate", |out| {
        out.number(1, REG_VERDICT);
        out.nest(2, |out| {
            out.nest(DATA_VERDICT, |out| {
                out.number(VERDICT_CODE, code as u32);
                if let Some(chain) = chain {
                    out.text(VERDICT_CHAIN, &chain);
                }
            });
        });
    });
}

pub(super) fn write_expr(out: &mut Writer, family: Family, what: &Expr) {
    match what {
        Expr::Load(field, to) => load(out, family, *field, *to),
        Expr::Value { into, bytes } => expr(out, "immediate", |out| {
            reg(out, 1, *into);
            out.nest(2, |out| out.raw(DATA_VALUE, bytes));
        }),
        Expr::Bits { reg: r, mask, xor } => expr(out, "bitwise", |out| {
            reg(out, 1, *r);
            reg(out, 2, *r);
            out.number(3, 4);
            out.nest(4, |out| out.raw(DATA_VALUE, &mask.to_ne_bytes()));
            out.nest(5, |out| out.raw(DATA_VALUE, &xor.to_ne_bytes()));
        }),
        Expr::Compare {
            reg: r,
            negate,
            bytes,
        } => expr(out, "cmp", |out| {
            reg(out, 1, *r);
            out.number(2, u32::from(*negate));
            out.nest(3, |out| out.raw(DATA_VALUE, bytes));
        }),
        Expr::Member { set, key, negate } => expr(out, "lookup", |out| {
            out.text(1, set.name());
            reg(out, 2, *key);
            if *negate {
                out.number(5, 1);
            }
        }),
        Expr::Find { map, key, into } => expr(out, "lookup", |out| {
            out.text(1, map.name());
            reg(out, 2, *key);
            reg(out, 3, *into);
        }),
        Expr::Dispatch { map, key } => expr(out, "lookup", |out| {
            out.text(1, map.name());
            reg(out, 2, *key);
            out.number(3, REG_VERDICT);
        }),
        Expr::Random {
            modulus,
            offset,
            into,
        } => numgen(out, NUMGEN_RANDOM, *into, *modulus, *offset),
        Expr::Next {
            modulus,
            offset,
            into,
        } => numgen(out, NUMGEN_INCREMENTAL, *into, *modulus, *offset),
        Expr::Hash {
            key,
            length,
            modulus,
            offset,
            into,
        } => expr(out, "hash", |out| {
            reg(out, 1, *key);
            reg(out, 2, *into);
            out.number(3, u32::from(*length));
            out.number(4, *modulus);
            out.number(5, CLIENT_SEED);
            out.number(6, *offset);
            out.number(7, HASH_JENKINS);
        }),
        Expr::Remember {
            key,
            data,
            timeout_s,
        } => dynset(out, 1, *key, *data, Some(*timeout_s)),
        Expr::Forget { key, data } => dynset(out, 2, *key, *data, None),
        Expr::SetMark(from) => expr(out, "meta", |out| {
            out.number(2, META_MARK);
            reg(out, 3, *from);
        }),
        Expr::Dnat { address, port } => expr(out, "nat", |out| {
            out.number(1, 1);
            out.number(2, u32::from(nfproto(family)));
            reg(out, 3, *address);
            reg(out, 5, *port);
        }),
        // NF_NAT_RANGE_PROTO_RANDOM_FULLY
        Expr::Masquerade => expr(out, "masq", |out| out.number(1, 0x10)),
        Expr::Reject(rejection) => expr(out, "reject", |out| match (rejection, family) {
            (Rejection::TcpReset, _) => out.number(1, 1),
            (Rejection::PortUnreachable, Family::V4) => {
                out.number(1, 0);
                out.raw(2, &[3]);
            }
            (Rejection::PortUnreachable, Family::V6) => {
                out.number(1, 0);
                out.raw(2, &[4]);
            }
        }),
        Expr::SetFlowMark(from) => expr(out, "ct", |out| {
            out.number(2, CT_MARK);
            reg(out, 4, *from);
        }),
        Expr::Drop => verdict(out, VERDICT_DROP, None),
        Expr::Accept => verdict(out, VERDICT_ACCEPT, None),
        Expr::Jump(chain) => verdict(out, VERDICT_JUMP, Some(chain.to_string())),
    }
}

const META_MARK: u32 = 3;
const CT_MARK: u32 = 3;
const VERDICT_ACCEPT: i32 = 1;
const NUMGEN_INCREMENTAL: u32 = 0;
const NUMGEN_RANDOM: u32 = 1;
const HASH_JENKINS: u32 = 0;

/// Loads from the network header (base 1), the transport header (base 2), packet facts (meta) or conntrack.
pub(super) fn load(out: &mut Writer, family: Family, field: Field, to: Reg) {
    let mut payload = |base: u32, offset: u32, length: u32| {
        expr(out, "payload", |out| {
            reg(out, 1, to);
            out.number(2, base);
            out.number(3, offset);
            out.number(4, length);
        });
    };
    let (name, key) = match (field, family) {
        (Field::Source, Family::V4) => return payload(1, 12, 4),
        (Field::Source, Family::V6) => return payload(1, 8, 16),
        (Field::Destination, Family::V4) => return payload(1, 16, 4),
        (Field::Destination, Family::V6) => return payload(1, 24, 16),
        (Field::SourcePort, _) => return payload(2, 0, 2),
        (Field::Port, _) => return payload(2, 2, 2),
        (Field::Protocol, _) => ("meta", 16),
        (Field::Interface, _) => ("meta", 4),
        (Field::InterfaceName, _) => ("meta", 6),
        (Field::Mark, _) => ("meta", META_MARK),
        (Field::Status, _) => ("ct", 2),
        (Field::FlowMark, _) => ("ct", CT_MARK),
        (Field::Direction, _) => ("ct", 1),
    };
    expr(out, name, |out| {
        reg(out, 1, to);
        out.number(2, key);
    });
}

fn dynset(out: &mut Writer, operation: u32, key: Reg, data: Reg, timeout_s: Option<u32>) {
    expr(out, "dynset", |out| {
        out.text(1, portolan_dataplane::nftables::SetName::Affinity.name());
        out.number(3, operation);
        reg(out, 4, key);
        reg(out, 5, data);
        if let Some(seconds) = timeout_s {
            out.wide(6, u64::from(seconds) * 1000);
        }
    });
}
