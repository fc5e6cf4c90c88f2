//! Writing: names are compressed, and what does not fit is left out as RFC 2181, section 9, wants it.

use std::collections::HashMap;

use super::data::layout;
use super::{Message, Record};
use crate::wire::{HEADER_BYTES, MESSAGE_BYTES_MAX, Name, Query, class, opcode, rtype};

/// Pointers have 14 bits (RFC 1035, section 4.1.4).
const POINTER_MAX: usize = 0x3fff;
/// The option that tells why (RFC 8914).
pub(super) const EXTENDED_ERROR: u16 = 15;

/// OPT as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opt {
    /// The largest datagram that is taken.
    pub payload: u16,
    /// DO.
    pub dnssec_ok: bool,
    /// Options as they are on the wire.
    pub options: Vec<u8>,
}

/// The answer to a query, as its client may have it: number, flags and name of the query, OPT if it had one, and at most
/// `bytes_max` bytes.
pub fn encoded_for(query: &Query<'_>, message: &Message, bytes_max: usize) -> Vec<u8> {
    let mut message = message.clone();
    message.id = query.id;
    message.recursion_desired = query.recursion_desired;
    message.checking_disabled = query.checking_disabled;
    message.authentic_data &= query.authentic_data || query.edns.is_some_and(|edns| edns.dnssec_ok);
    message.question = super::Question::of(query);
    let opt = query.edns.map(|edns| Opt {
        payload: edns.payload,
        dnssec_ok: edns.dnssec_ok,
        options: extended_error(&message),
    });
    message.encoded(opt.as_ref(), bytes_max)
}

fn extended_error(message: &Message) -> Vec<u8> {
    let Some((code, text)) = &message.error else {
        return Vec::new();
    };
    let text = &text.as_bytes()[..text.len().min(512)];
    let length = (text.len() as u16 + 2).to_be_bytes();
    [
        &EXTENDED_ERROR.to_be_bytes()[..],
        &length,
        &code.to_be_bytes(),
        text,
    ]
    .concat()
}

impl Message {
    /// The message on the wire, with OPT if there is one, in at most `bytes_max` bytes: additional records go silently,
    /// and where others do not fit TC is set.
    pub fn encoded(&self, opt: Option<&Opt>, bytes_max: usize) -> Vec<u8> {
        let reserved = opt.map_or(0, |opt| 11 + opt.options.len());
        let mut writer = Writer {
            out: vec![0; HEADER_BYTES],
            room: bytes_max.min(MESSAGE_BYTES_MAX).saturating_sub(reserved),
            names: HashMap::new(),
        };
        writer.name(&self.question.name);
        writer
            .out
            .extend_from_slice(&self.question.rtype.to_be_bytes());
        writer
            .out
            .extend_from_slice(&self.question.class.to_be_bytes());
        let (answers, first) = writer.section(&self.answers);
        let (authorities, second) = match first {
            true => writer.section(&self.authorities),
            false => (0, false),
        };
        let (mut additionals, _) = match second {
            true => writer.section(&self.additionals),
            false => (0, false),
        };
        let mut out = writer.out;
        if let Some(opt) = opt {
            write_opt(opt, self.rcode, &mut out);
            additionals += 1;
        }
        self.header([answers, authorities, additionals], !second, &mut out);
        out
    }

    fn header(&self, counts: [u16; 3], cut: bool, out: &mut [u8]) {
        let bit = |set: bool, place: u8| u8::from(set) << place;
        out[..2].copy_from_slice(&self.id.to_be_bytes());
        out[2] = bit(self.response, 7)
            | opcode::QUERY << 3
            | bit(self.authoritative, 2)
            | bit(self.truncated || cut, 1)
            | bit(self.recursion_desired, 0);
        out[3] = bit(self.recursion_available, 7)
            | bit(self.authentic_data, 5)
            | bit(self.checking_disabled, 4)
            | (self.rcode & 0xf) as u8;
        out[5] = 1;
        for (index, count) in counts.into_iter().enumerate() {
            out[6 + 2 * index..8 + 2 * index].copy_from_slice(&count.to_be_bytes());
        }
    }
}

fn write_opt(opt: &Opt, rcode: u16, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&rtype::OPT.to_be_bytes());
    out.extend_from_slice(&opt.payload.to_be_bytes());
    out.extend_from_slice(&[(rcode >> 4) as u8, 0, u8::from(opt.dnssec_ok) << 7, 0]);
    out.extend_from_slice(&(opt.options.len() as u16).to_be_bytes());
    out.extend_from_slice(&opt.options);
}

struct Writer {
    out: Vec<u8>,
    room: usize,
    /// Where names and their ends stand, in lower case.
    names: HashMap<Vec<u8>, usize>,
}

impl Writer {
    /// How many records were written, and whether all were.
    fn section(&mut self, records: &[Record]) -> (u16, bool) {
        let mut count = 0;
        for record in records {
            let start = self.out.len();
            if !self.record(record) {
                self.out.truncate(start);
                self.names.retain(|_, place| *place < start);
                return (count, false);
            }
            count += 1;
        }
        (count, true)
    }

    fn record(&mut self, record: &Record) -> bool {
        self.name(&record.name);
        self.out.extend_from_slice(&record.rtype.to_be_bytes());
        self.out.extend_from_slice(&record.class.to_be_bytes());
        self.out.extend_from_slice(&record.ttl.to_be_bytes());
        self.out.extend_from_slice(&[0, 0]);
        let start = self.out.len();
        self.data(record);
        let length = self.out.len() - start;
        self.out[start - 2..start].copy_from_slice(&(length as u16).to_be_bytes());
        self.out.len() <= self.room
    }

    fn data(&mut self, record: &Record) {
        let names =
            layout(record.rtype).filter(|layout| layout.compress && record.class == class::IN);
        let Some(layout) = names else {
            self.out.extend_from_slice(&record.data);
            return;
        };
        let mut at = layout.before.min(record.data.len());
        self.out.extend_from_slice(&record.data[..at]);
        for _ in 0..layout.names {
            let Some(end) = crate::wire::skip_name(&record.data, at) else {
                break;
            };
            match Name::from_wire(&record.data[at..end]) {
                Some(name) => self.name(&name),
                None => self.out.extend_from_slice(&record.data[at..end]),
            }
            at = end;
        }
        self.out.extend_from_slice(&record.data[at..]);
    }

    fn name(&mut self, name: &Name) {
        let wire = name.as_wire();
        let small = wire.to_ascii_lowercase();
        let mut at = 0;
        while wire[at] != 0 {
            if let Some(place) = self.names.get(&small[at..]) {
                self.out
                    .extend_from_slice(&(0xc000 | *place as u16).to_be_bytes());
                return;
            }
            if self.out.len() <= POINTER_MAX {
                self.names.insert(small[at..].to_vec(), self.out.len());
            }
            let end = at + 1 + usize::from(wire[at]);
            self.out.extend_from_slice(&wire[at..end]);
            at = end;
        }
        self.out.push(0);
    }
}
