//! Reading a query: header, one question, and OPT if there is one (RFC 6891).

use super::{
    HEADER_BYTES, MESSAGE_BYTES_MAX, PLAIN_BYTES_MAX, class, opcode, rcode, rtype, skip_name,
};

/// Records after the question that are looked through for OPT. A query has one or two (OPT, TSIG); IXFR has the SOA that
/// the client holds.
const RECORDS_MAX: u16 = 4;

/// A query as it was received; it borrows the message.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The client's number for it.
    pub id: u16,
    /// Kind of request ([`opcode`]).
    pub opcode: u8,
    /// RD: the client asks for recursion; goes back unchanged.
    pub recursion_desired: bool,
    /// CD: goes back unchanged (RFC 4035, section 3.1.6).
    pub checking_disabled: bool,
    /// AD: the client understands that bit (RFC 6840, section 5.7).
    pub authentic_data: bool,
    /// The name asked for as the client wrote it, uncompressed.
    pub name: &'a [u8],
    /// Type ([`rtype`]).
    pub rtype: u16,
    /// Class ([`class`]).
    pub class: u16,
    /// What OPT says.
    pub edns: Option<Edns<'a>>,
    /// The serial of the zone that a client of IXFR holds.
    pub serial: Option<u32>,
}

/// OPT (RFC 6891, section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns<'a> {
    /// The largest datagram that the client takes, as it wrote it.
    pub payload: u16,
    /// Version; we know 0.
    pub version: u8,
    /// DO: wants signatures; goes back unchanged.
    pub dnssec_ok: bool,
    /// Options as they are on the wire.
    pub options: &'a [u8],
}

/// A message that is no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Too short for a header, or an answer: nobody waits for one.
    Ignore,
    /// To be answered with this code and nothing else ([`rcode`]).
    Refuse(u16),
}

impl<'a> Query<'a> {
    /// Reads a message. Never panics and takes time proportional to its length at most.
    pub fn read(message: &'a [u8]) -> Result<Self, Unreadable> {
        let header = message.first_chunk::<HEADER_BYTES>();
        let header = header.ok_or(Unreadable::Ignore)?;
        if header[2] & 0x80 != 0 {
            return Err(Unreadable::Ignore);
        }
        let operation = header[2] >> 3 & 0xf;
        if !matches!(operation, opcode::QUERY | opcode::NOTIFY) {
            return Err(Unreadable::Refuse(rcode::NOTIMP));
        }
        let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        if count(4) != 1 {
            return Err(Unreadable::Refuse(rcode::FORMERR));
        }
        let malformed = Unreadable::Refuse(rcode::FORMERR);
        let end = skip_name(message, HEADER_BYTES).ok_or(malformed)?;
        let fixed = message[end..].first_chunk::<4>().ok_or(malformed)?;
        let mut query = Query {
            id: count(0),
            opcode: operation,
            recursion_desired: header[2] & 1 != 0,
            checking_disabled: header[3] & 0x10 != 0,
            authentic_data: header[3] & 0x20 != 0,
            name: &message[HEADER_BYTES..end],
            rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            edns: None,
            serial: None,
        };
        let records = [count(6), count(8), count(10)];
        query.read_records(message, end + 4, records)?;
        Ok(query)
    }

    /// The same query about another name.
    pub fn about<'b>(&self, name: &'b [u8]) -> Query<'b>
    where
        'a: 'b,
    {
        Query { name, ..*self }
    }

    /// The same query about nothing, without EDNS.
    pub fn unborrowed(&self) -> Query<'static> {
        Query {
            id: self.id,
            opcode: self.opcode,
            recursion_desired: self.recursion_desired,
            checking_disabled: self.checking_disabled,
            authentic_data: self.authentic_data,
            name: &[0],
            rtype: self.rtype,
            class: self.class,
            edns: None,
            serial: self.serial,
        }
    }

    /// How many bytes the answer may have over UDP. EDNS may not ask for less than 512 (RFC 6891, section 6.2.3).
    pub fn datagram_bytes_max(&self) -> usize {
        let asked = self.edns.map_or(0, |edns| usize::from(edns.payload));
        asked.max(PLAIN_BYTES_MAX)
    }

    /// How many bytes the answer may have over a stream.
    pub fn stream_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MAX
    }

    fn read_records(
        &mut self,
        message: &'a [u8],
        mut at: usize,
        [answers, authorities, additionals]: [u16; 3],
    ) -> Result<(), Unreadable> {
        let malformed = Unreadable::Refuse(rcode::FORMERR);
        let total = answers
            .checked_add(authorities)
            .and_then(|sum| sum.checked_add(additionals))
            .filter(|total| *total <= RECORDS_MAX)
            .ok_or(malformed)?;
        for index in 0..total {
            let record = Record::read(message, at).ok_or(malformed)?;
            at = record.end;
            let additional = index >= answers + authorities;
            match record.rtype {
                rtype::OPT if additional => {
                    if self.edns.is_some() || !record.root {
                        return Err(malformed);
                    }
                    self.edns = Some(record.edns());
                }
                rtype::SOA if self.rtype == rtype::IXFR && !additional => {
                    self.serial = record.serial();
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A record after the question.
struct Record<'a> {
    root: bool,
    rtype: u16,
    class: u16,
    ttl: u32,
    data: &'a [u8],
    end: usize,
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let (root, after) = skip_owner(message, at)?;
        let fixed = message.get(after..)?.first_chunk::<10>()?;
        let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        let data = message.get(after + 10..after + 10 + length)?;
        Some(Record {
            root,
            rtype: u16::from_be_bytes([fixed[0], fixed[1]]),
            class: u16::from_be_bytes([fixed[2], fixed[3]]),
            ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            data,
            end: after + 10 + length,
        })
    }

    /// OPT keeps its facts in the fields of class and TTL.
    fn edns(&self) -> Edns<'a> {
        Edns {
            payload: self.class,
            version: (self.ttl >> 16) as u8,
            dnssec_ok: self.ttl & 0x8000 != 0,
            options: self.data,
        }
    }

    /// Two names, which may be compressed, and then the serial.
    fn serial(&self) -> Option<u32> {
        let (_, first) = skip_owner(self.data, 0)?;
        let (_, second) = skip_owner(self.data, first)?;
        let bytes = self.data.get(second..)?.first_chunk::<4>()?;
        (self.class == class::IN).then(|| u32::from_be_bytes(*bytes))
    }
}

/// Skips a name that may end with a pointer; says whether it is the root, and where it ends.
fn skip_owner(bytes: &[u8], at: usize) -> Option<(bool, usize)> {
    let mut position = at;
    // Every turn moves on by at least one byte, and a name has 255 at most.
    while position - at <= super::NAME_BYTES_MAX {
        match *bytes.get(position)? {
            0 => return Some((position == at, position + 1)),
            length @ 1..=63 => position += 1 + usize::from(length),
            0xc0..=0xff => return Some((false, position + 2)),
            _ => return None,
        }
    }
    None
}

/// The smallest TTL of the records of an answer, OPT apart; for an answer without records that of its SOA, and `None`
/// for one with none at all or that is no message.
pub fn smallest_ttl(message: &[u8]) -> Option<u32> {
    let header = message.first_chunk::<HEADER_BYTES>()?;
    let count = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let mut at = HEADER_BYTES;
    for _ in 0..count(4) {
        at = skip_owner(message, at)?.1 + 4;
    }
    let total: usize = [6, 8, 10].map(|at| usize::from(count(at))).iter().sum();
    let mut smallest: Option<u32> = None;
    // Every record moves on, so that this ends with the message.
    for _ in 0..total {
        let record = Record::read(message, at)?;
        at = record.end;
        if record.rtype != rtype::OPT {
            smallest = Some(smallest.map_or(record.ttl, |ttl| ttl.min(record.ttl)));
        }
    }
    smallest
}
