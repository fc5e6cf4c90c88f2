//! What an attacker must not guess.

use crate::message::{Message, Opt, Question};
use crate::wire::Name;

use super::{Ask, PAYLOAD};

/// Bits for the case of letters: a name has at most 253 of them.
const CASE_BYTES: usize = 32;

/// Random bytes of the kernel. Without them nothing that is asked could be believed.
pub(crate) fn bytes<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// A query on the wire with a random number, and with letters of random case if `mixed`; and what an answer must match.
pub(super) fn query(ask: &Ask, mixed: bool) -> std::io::Result<(Vec<u8>, u16, Question)> {
    let [high, low, case @ ..] = bytes::<{ 2 + CASE_BYTES }>()?;
    let mut question = ask.question.clone();
    if mixed {
        question.name = mix(&question.name, &case);
    }
    let mut message = Message::answer(question.clone(), 0);
    message.id = u16::from_be_bytes([high, low]);
    message.response = false;
    message.recursion_desired = ask.recursion_desired;
    message.checking_disabled = ask.checking_disabled;
    let opt = Opt {
        payload: PAYLOAD,
        dnssec_ok: ask.dnssec_ok,
        options: ask.options.clone(),
    };
    let wire = message.encoded(Some(&opt), usize::from(u16::MAX));
    Ok((wire, message.id, question))
}

/// Letters become small or capital by the bits of `case`. Length bytes are no letters: they are below 64.
fn mix(name: &Name, case: &[u8; CASE_BYTES]) -> Name {
    let mut wire = name.as_wire().to_vec();
    for (index, byte) in wire.iter_mut().enumerate() {
        if case[index / 8 % CASE_BYTES] >> (index % 8) & 1 == 1 {
            byte.make_ascii_uppercase();
        } else {
            byte.make_ascii_lowercase();
        }
    }
    Name::from_wire(&wire).unwrap_or_else(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{class, eq_names};

    #[test]
    fn numbers_and_letters_differ_from_query_to_query() {
        let name = Name::parse("a-long-name-with-many-letters.example.org").unwrap();
        let ask = Ask::of(Question {
            name: name.clone(),
            rtype: 1,
            class: class::IN,
        });
        let asked: Vec<_> = (0..8).map(|_| query(&ask, true).unwrap()).collect();
        let differ = |of: &dyn Fn(usize) -> Vec<u8>| {
            let mut all: Vec<_> = (0..asked.len()).map(of).collect();
            all.sort();
            all.dedup();
            all.len()
        };
        assert!(differ(&|i| asked[i].1.to_be_bytes().to_vec()) > 4);
        assert!(differ(&|i| asked[i].2.name.as_wire().to_vec()) > 4);
        for (wire, id, question) in &asked {
            assert!(eq_names(question.name.as_wire(), name.as_wire()));
            let read = Message::read(wire).unwrap();
            assert_eq!(
                (read.id, &read.question, read.response),
                (*id, question, false)
            );
        }
        assert_eq!(query(&ask, false).unwrap().2.name, name);
    }
}
