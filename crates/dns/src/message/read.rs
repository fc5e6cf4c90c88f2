//! Reading: bounds are checked everywhere, pointers lead only backwards.

use super::data::layout;
use super::{Message, Question, RECORDS_MAX, Record};
use crate::wire::{HEADER_BYTES, NAME_BYTES_MAX, Name, rtype};

/// Pointers in one name: each leads backwards, and a name has at most 127 labels to be pointed at.
const JUMPS_MAX: usize = 127;

/// The bytes are no message with one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no DNS message with one question")]
pub struct Malformed;

impl Message {
    /// Reads a message. Never panics.
    pub fn read(bytes: &[u8]) -> Result<Message, Malformed> {
        read(bytes).ok_or(Malformed)
    }
}

fn read(bytes: &[u8]) -> Option<Message> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    if count(4) != 1 {
        return None;
    }
    let mut at = HEADER_BYTES;
    let question = Question {
        name: name(bytes, &mut at)?,
        rtype: number(bytes, &mut at)?,
        class: number(bytes, &mut at)?,
    };
    let mut message = Message {
        id: count(0),
        response: header[2] & 0x80 != 0,
        authoritative: header[2] & 4 != 0,
        truncated: header[2] & 2 != 0,
        recursion_desired: header[2] & 1 != 0,
        recursion_available: header[3] & 0x80 != 0,
        authentic_data: header[3] & 0x20 != 0,
        checking_disabled: header[3] & 0x10 != 0,
        rcode: u16::from(header[3] & 0xf),
        question,
        answers: Vec::new(),
        authorities: Vec::new(),
        additionals: Vec::new(),
        error: None,
    };
    let counts = [count(6), count(8), count(10)].map(usize::from);
    if counts.iter().sum::<usize>() > RECORDS_MAX {
        return None;
    }
    for (section, count) in counts.into_iter().enumerate() {
        for _ in 0..count {
            // A truncated message may end in the middle of a record: what came before is of no use either.
            let record = record(bytes, &mut at)?;
            match section {
                _ if record.rtype == rtype::OPT => option_record(&mut message, &record),
                0 => message.answers.push(record),
                1 => message.authorities.push(record),
                _ => message.additionals.push(record),
            }
        }
    }
    Some(message)
}

/// OPT has the high bits of the response code, and maybe an extended error (RFC 8914).
fn option_record(message: &mut Message, opt: &Record) {
    message.rcode |= ((opt.ttl >> 24) as u16) << 4;
    let mut rest: &[u8] = &opt.data;
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let code = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((data, after)) = after.split_at_checked(length) else {
            return;
        };
        if code == super::write::EXTENDED_ERROR && data.len() >= 2 {
            let text = String::from_utf8_lossy(&data[2..]).into_owned();
            message.error = Some((u16::from_be_bytes([data[0], data[1]]), text));
        }
        rest = after;
    }
}

fn record(bytes: &[u8], at: &mut usize) -> Option<Record> {
    let name = name(bytes, at)?;
    let rtype = number(bytes, at)?;
    let class = number(bytes, at)?;
    let high = number(bytes, at)?;
    let low = number(bytes, at)?;
    let length = usize::from(number(bytes, at)?);
    let end = at.checked_add(length).filter(|end| *end <= bytes.len())?;
    let data = data(bytes, *at, end, rtype)?;
    *at = end;
    Some(Record {
        name,
        rtype,
        class,
        ttl: u32::from(high) << 16 | u32::from(low),
        data,
    })
}

/// The data with its names written out.
fn data(bytes: &[u8], start: usize, end: usize, rtype: u16) -> Option<Box<[u8]>> {
    let Some(layout) = layout(rtype) else {
        return Some(bytes[start..end].into());
    };
    let mut at = start + layout.before;
    let mut out = bytes.get(start..at)?.to_vec();
    for _ in 0..layout.names {
        out.extend_from_slice(name(bytes, &mut at)?.as_wire());
    }
    let rest = bytes.get(at..end)?;
    out.extend_from_slice(rest);
    (rest.len() >= layout.after).then(|| out.into())
}

fn number(bytes: &[u8], at: &mut usize) -> Option<u16> {
    let number = bytes.get(*at..)?.first_chunk::<2>()?;
    *at += 2;
    Some(u16::from_be_bytes(*number))
}

/// A name that may be compressed; `at` moves behind it.
fn name(bytes: &[u8], at: &mut usize) -> Option<Name> {
    let mut wire = Vec::with_capacity(32);
    let mut position = *at;
    let mut behind = None;
    let mut jumps = 0;
    loop {
        let length = *bytes.get(position)?;
        match length {
            0 => {
                wire.push(0);
                *at = behind.unwrap_or(position + 1);
                return Name::from_wire(&wire);
            }
            1..=63 => {
                let end = position + 1 + usize::from(length);
                wire.extend_from_slice(bytes.get(position..end)?);
                position = end;
            }
            0xc0.. => {
                let low = *bytes.get(position + 1)?;
                behind.get_or_insert(position + 2);
                let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                jumps += 1;
                if to >= position || jumps > JUMPS_MAX {
                    return None;
                }
                position = to;
            }
            _ => return None,
        }
        if wire.len() > NAME_BYTES_MAX {
            return None;
        }
    }
}
