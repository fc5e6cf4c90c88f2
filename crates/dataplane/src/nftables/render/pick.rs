//! How a chain comes from a Service port to an endpoint: a slot is chosen, and a map says who has it.

use portolan_model::Balance;

use super::super::class::List;
use super::super::expr::{Expr, Field, Reg};
use super::super::layout::SetName;
use super::{Registers, decoy};

/// Chooses one of `slots` slots of a list. For round robin this is the choice when the memory of clients is full;
/// the counter is in a chain of its own.
pub(super) fn slot(at: &Registers, balance: Balance, slots: u16, list: List) -> Vec<Expr> {
    let (modulus, offset, into) = (slots.into(), list.first_slot(), at.last);
    // Nothing lies in the first registers yet; an address and a port fit in front of the identity.
    let key = Reg(0);
    let hash = |length| Expr::Hash {
        key,
        length,
        modulus,
        offset,
        into,
    };
    let client = Expr::Load(Field::Source, key);
    let width = at.address_width;
    match balance {
        Balance::Random | Balance::RoundRobin => vec![Expr::Random {
            modulus,
            offset,
            into,
        }],
        Balance::SourceHash => vec![client, hash(4 * width)],
        Balance::Maglev => {
            let port = Expr::Load(Field::SourcePort, Reg(width));
            vec![client, port, hash(4 * width + 4)]
        }
    }
}

/// Finds the endpoint of the slot that was chosen, of the identity that was loaded.
pub(super) fn endpoint(at: &Registers, sticky: bool) -> Vec<Expr> {
    match sticky {
        true => found(at, SetName::StickyEndpoints),
        false => vec![Expr::Find {
            map: SetName::Endpoints,
            key: at.destination,
            into: at.endpoint,
        }],
    }
}

/// Finds an endpoint in a map with a pad, in such a way that it can be part of keys after that.
pub(super) fn found(at: &Registers, map: SetName) -> Vec<Expr> {
    vec![
        decoy(Field::Source, at.endpoint),
        decoy(Field::Port, at.endpoint_port),
        Expr::Find {
            map,
            key: at.destination,
            into: at.pad,
        },
        Expr::Load(Field::Mark, at.pad),
    ]
}
