//! `loadbalance`: the order of addresses in answers of others; our own names rotate by themselves.

use crate::corefile::plugin::LoadBalance;
use crate::message::{Message, Record, address};
use crate::wire::rtype;

/// Aliases come first, addresses and mail servers in any order, addresses of preferred networks before others.
pub(super) fn balance(options: &LoadBalance, message: &mut Message) {
    if matches!(message.question.rtype, rtype::AXFR | rtype::IXFR) {
        return;
    }
    for records in [&mut message.answers, &mut message.additionals] {
        shuffle(records);
    }
    if !options.prefer.is_empty() {
        message.answers.sort_by_key(|record| rank(options, record));
    }
}

fn is_movable(record: &Record) -> bool {
    matches!(record.rtype, rtype::A | rtype::AAAA | rtype::MX)
}

fn shuffle(records: &mut Vec<Record>) {
    let all = std::mem::take(records);
    let (aliases, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|record| record.rtype == rtype::CNAME);
    let (mut movable, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_movable);
    fastrand::shuffle(&mut movable);
    records.extend(aliases);
    records.extend(others);
    records.extend(movable);
}

/// Aliases stay first, then what is in the first network, and so on.
fn rank(options: &LoadBalance, record: &Record) -> usize {
    let Some(address) = address(record) else {
        return 0;
    };
    let place = options.prefer.iter().position(|net| net.contains(&address));
    1 + place.unwrap_or(options.prefer.len())
}
