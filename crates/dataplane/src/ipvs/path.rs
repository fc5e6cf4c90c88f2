//! The way of packets to virtual servers and from there to endpoints, which is always the same: nothing in it depends on
//! Services.
//!
//! ```text
//!  nat chains, -100: a new flow that a virtual server shall have gets SERVER_MARK in its conntrack mark
//!  arrive (prerouting -99), start (output -99, type route): its packets get SERVER_MARK ─▶ routed to this node
//!  IPVS (input 99, output -98) rewrites the destination; for an endpoint elsewhere the packet starts anew at output:
//!  pass (output -101): TRANSLATED_MARK instead, before conntrack's NAT (-100) routes it once more
//!  land (input 150), leave (postrouting 150): no mark any more, or tunnels would route their own packets by it
//! ```
//!
//! These chains stand in a table of their own. A connection goes on through them when its Service is gone, and also
//! when another mode has taken over, as long as its virtual server drains.

use crate::nftables::{Expr, Field, Reg, Rule, SERVER_MARK, STATUS_DNAT};

/// The name of the table, in family `ip` and in family `ip6`.
pub const PATH_TABLE: &str = "portolan-ipvs";

/// The bit of the mark of packets that a virtual server has sent on.
pub const TRANSLATED_MARK: u32 = 0x1000;

/// A base chain of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathChain {
    /// Its name.
    pub name: &'static str,
    /// `filter`, or `route`, which makes the kernel route a packet again when its mark changes.
    pub kind: &'static str,
    /// Netfilter's number of the hook.
    pub hook: u32,
    /// Its priority there.
    pub priority: i32,
}

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

const fn chain(name: &'static str, kind: &'static str, hook: u32, priority: i32) -> PathChain {
    PathChain {
        name,
        kind,
        hook,
        priority,
    }
}

/// Every chain with its rule.
pub fn path() -> [(PathChain, Rule); 5] {
    let reg = Reg(0);
    let bits = |mask, xor| Expr::Bits { reg, mask, xor };
    let compare = |negate, bytes: &[u8]| Expr::Compare {
        reg,
        negate,
        bytes: bytes.to_vec(),
    };
    let has = |bit| [bits(bit, 0), compare(true, &[0; 4])];
    // A new mark: these bits go, and then this one comes.
    let marks = |gone: u32, new: u32| {
        [
            Expr::Load(Field::Mark, reg),
            bits(!(gone | new), new),
            Expr::SetMark(reg),
        ]
    };
    // A flow that somebody else leads to an endpoint is not for a virtual server: rules of another mode may stand for a
    // moment beside ours, and see a flow that we have accepted.
    let of_server = [
        vec![
            Expr::Load(Field::Direction, reg),
            compare(false, &[0]),
            Expr::Load(Field::Status, reg),
            bits(STATUS_DNAT, 0),
            compare(false, &[0; 4]),
            Expr::Load(Field::FlowMark, reg),
        ],
        has(SERVER_MARK).into(),
    ]
    .concat();
    let untranslated = [
        vec![Expr::Load(Field::Mark, reg), bits(TRANSLATED_MARK, 0)],
        vec![compare(false, &[0; 4])],
    ]
    .concat();
    let marked = |bit| [vec![Expr::Load(Field::Mark, reg)], has(bit).into()].concat();
    let both = SERVER_MARK | TRANSLATED_MARK;
    let clear = || Rule([marked(both), marks(both, 0).into()].concat());
    let to_server = marks(0, SERVER_MARK).to_vec();
    [
        (
            chain("arrive", "filter", PREROUTING, -99),
            Rule([of_server.clone(), to_server.clone()].concat()),
        ),
        (chain("land", "filter", INPUT, 150), clear()),
        (
            chain("pass", "filter", OUTPUT, -101),
            Rule(
                [
                    marked(SERVER_MARK),
                    marks(SERVER_MARK, TRANSLATED_MARK).into(),
                ]
                .concat(),
            ),
        ),
        (
            chain("start", "route", OUTPUT, -99),
            Rule([of_server, untranslated, to_server].concat()),
        ),
        (chain("leave", "filter", POSTROUTING, 150), clear()),
    ]
}
