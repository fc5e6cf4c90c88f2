//! The chain of one counter: the next endpoint of one list of one Service port.
//!
//! Whoever leads here has done everything else: who may enter, who is masqueraded, which clients are known.

use portolan_model::Balance;

use super::super::bytes::identity;
use super::super::class::Turn;
use super::super::expr::{Expr, Field, Rule};
use super::{Registers, pick};

/// One rule counts. With affinity it also remembers, and a second rule serves when the memory is full.
/// The last one is that of every chain of a class.
pub(super) fn rules(at: &Registers, turn: &Turn) -> Vec<Rule> {
    let sticky = turn.affinity_s > 0;
    let places = [at.destination, at.port, at.protocol];
    let parts = places.into_iter().zip(identity(&turn.id));
    let of_service: Vec<Expr> = parts
        .map(|(into, bytes)| Expr::Value { into, bytes })
        .collect();
    let next = Expr::Next {
        modulus: turn.slots.into(),
        offset: turn.list.first_slot(),
        into: at.last,
    };
    let dnat = Expr::Dnat {
        address: at.endpoint,
        port: at.endpoint_port,
    };
    let nothing = Rule(vec![Expr::Drop]);
    let mut first = of_service.clone();
    first.push(next);
    first.extend(pick::endpoint(at, sticky));
    if !sticky {
        first.push(dnat);
        return vec![Rule(first), nothing];
    }
    first.push(Expr::Load(Field::Source, at.last));
    first.push(Expr::Remember {
        key: at.destination,
        data: at.pad,
        timeout_s: turn.affinity_s,
    });
    first.push(dnat.clone());
    let mut full = of_service;
    full.extend(pick::slot(at, Balance::RoundRobin, turn.slots, turn.list));
    full.extend(pick::endpoint(at, sticky));
    full.push(dnat);
    vec![Rule(first), Rule(full), nothing]
}
