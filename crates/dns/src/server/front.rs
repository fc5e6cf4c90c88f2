//! What every transport does with a message: read it, refuse what is none, and ask.

use super::{Answer, Client, Step};
use crate::wire::{Query, Unreadable, rcode, refuse, refuse_unread};

/// Answers `message` into `out`, or says what becomes of it.
pub(crate) fn ask<A: Answer>(
    answer: &A,
    message: &[u8],
    client: &Client,
    out: &mut Vec<u8>,
) -> Step {
    match Query::read(message) {
        Ok(query) if query.edns.is_some_and(|edns| edns.version != 0) => {
            refuse(&query, rcode::BADVERS, out);
            Step::Answered
        }
        Ok(query) => answer.at_once(&query, client, out),
        Err(Unreadable::Ignore) => Step::Drop,
        Err(Unreadable::Refuse(code)) => match refuse_unread(message, code, out) {
            true => Step::Answered,
            false => Step::Drop,
        },
    }
}
