//! Writing an answer into a buffer of the caller, record by record, within the room that the client has.
//!
//! What does not fit is left out as RFC 2181, section 9, and RFC 1035, section 4.1.1, want it: additional records go
//! silently; when an answer or authority record does not fit, TC is set and nothing more is written.

use super::{HEADER_BYTES, MESSAGE_BYTES_MAX, Query, class, rcode, rtype};

/// OPT without options: root, type, class, TTL, length.
const OPT_BYTES: usize = 11;

/// Pointers have 14 bits (RFC 1035, section 4.1.4).
const POINTER_MAX: usize = 0x3fff;

/// The sections after the question, in the order in which they must be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who is responsible.
    Authority,
    /// What may be useful, too.
    Additional,
}

/// An answer that is being written. Nothing of it is valid before [`Builder::finish`].
#[derive(Debug)]
pub struct Builder<'o> {
    out: &'o mut Vec<u8>,
    /// Bytes that records may reach to; OPT has its own behind them.
    room: usize,
    counts: [u16; 3],
    section: Section,
    /// A record did not fit: no other may follow, or the order would say something else.
    full: bool,
    truncated: bool,
    authoritative: bool,
    recursion_available: bool,
    rcode: u16,
    /// Payload, DO: what OPT goes back with.
    edns: Option<(u16, bool)>,
    opcode: u8,
    copied: [u8; 2],
}

impl<'o> Builder<'o> {
    /// Begins the answer to `query` in `out`, which is emptied. `bytes_max` is what the client and the transport allow.
    pub fn new(query: &Query<'_>, out: &'o mut Vec<u8>, bytes_max: usize) -> Self {
        out.clear();
        out.extend_from_slice(&query.id.to_be_bytes());
        out.extend_from_slice(&[0; HEADER_BYTES - 2]);
        out.extend_from_slice(query.name);
        out.extend_from_slice(&query.rtype.to_be_bytes());
        out.extend_from_slice(&query.class.to_be_bytes());
        let opt = query.edns.map_or(0, |_| OPT_BYTES);
        Builder {
            room: bytes_max.min(MESSAGE_BYTES_MAX).saturating_sub(opt),
            out,
            counts: [0; 3],
            section: Section::Answer,
            full: false,
            truncated: false,
            authoritative: false,
            recursion_available: false,
            rcode: rcode::NOERROR,
            edns: query.edns.map(|edns| (edns.payload, edns.dnssec_ok)),
            opcode: query.opcode,
            copied: [
                u8::from(query.recursion_desired),
                u8::from(query.checking_disabled) << 4,
            ],
        }
    }

    /// For records that are copied elsewhere: there is no end of room, and the message is not finished.
    pub(crate) fn scratch(query: &Query<'_>, out: &'o mut Vec<u8>) -> Self {
        let mut builder = Builder::new(query, out, 0);
        builder.room = usize::MAX;
        builder
    }

    /// Sets AA: the answer comes from whoever is responsible for the name.
    pub fn set_authoritative(&mut self) {
        self.authoritative = true;
    }

    /// Sets RA: whoever answers would ask others, too.
    pub fn set_recursion_available(&mut self) {
        self.recursion_available = true;
    }

    /// Sets the code ([`rcode`]).
    pub fn set_rcode(&mut self, code: u16) {
        self.rcode = code;
    }

    /// Records go into `section` from now on, which is not before the present one.
    pub fn begin(&mut self, section: Section) {
        debug_assert!(section >= self.section, "sections have an order");
        self.section = section;
        // Additional records that do not fit stop no other; nothing follows one of the others.
        self.full = self.truncated;
    }

    /// Where the next byte goes: the place of a name that a pointer may lead to.
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// What has been written.
    pub fn written(&self) -> &[u8] {
        self.out
    }

    /// How many records the section has.
    pub fn count(&self, section: Section) -> u16 {
        self.counts[section as usize]
    }

    /// Writes a record whose owner is the name at `owner` of this message. Says whether it fitted.
    pub fn record(&mut self, owner: usize, rtype: u16, ttl: u32, data: &[u8]) -> bool {
        self.record_with(owner, rtype, ttl, |out| out.extend_from_slice(data))
    }

    /// As [`Builder::record`]; `data` writes the data and nothing else.
    pub fn record_with(
        &mut self,
        owner: usize,
        rtype: u16,
        ttl: u32,
        data: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.entry(rtype, ttl, |out| point(out, owner), data)
    }

    /// Writes a record whose owner is written out as `owner`, uncompressed.
    pub fn record_of(&mut self, owner: &[u8], rtype: u16, ttl: u32, data: &[u8]) -> bool {
        let name = |out: &mut Vec<u8>| out.extend_from_slice(owner);
        self.entry(rtype, ttl, name, |out| out.extend_from_slice(data))
    }

    /// Writes a record; `name` writes its owner, `data` its data. Says whether it fitted.
    pub fn entry(
        &mut self,
        rtype: u16,
        ttl: u32,
        name: impl FnOnce(&mut Vec<u8>),
        data: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if self.full {
            return false;
        }
        let start = self.out.len();
        name(self.out);
        let mut fixed = [0; 10];
        fixed[..2].copy_from_slice(&rtype.to_be_bytes());
        fixed[2..4].copy_from_slice(&class::IN.to_be_bytes());
        fixed[4..8].copy_from_slice(&ttl.to_be_bytes());
        self.out.extend_from_slice(&fixed);
        let begin = self.out.len();
        data(self.out);
        let length = self.out.len() - begin;
        if self.out.len() > self.room || length > usize::from(u16::MAX) {
            self.out.truncate(start);
            self.full = true;
            self.truncated |= self.section != Section::Additional;
            return false;
        }
        self.out[begin - 2..begin].copy_from_slice(&(length as u16).to_be_bytes());
        let count = &mut self.counts[self.section as usize];
        *count = count.saturating_add(1);
        true
    }

    /// Leaves only the question: what was written does not count.
    pub fn restart(&mut self) {
        let question = super::skip_name(self.out, HEADER_BYTES).map_or(HEADER_BYTES, |end| end + 4);
        self.out.truncate(question);
        (self.counts, self.section) = ([0; 3], Section::Answer);
        (self.full, self.truncated) = (false, false);
        self.rcode = rcode::NOERROR;
    }

    /// Completes the message.
    pub fn finish(self) {
        let out = self.out;
        if let Some((payload, dnssec_ok)) = self.edns {
            let high = (self.rcode >> 4) as u8;
            out.push(0);
            out.extend_from_slice(&rtype::OPT.to_be_bytes());
            out.extend_from_slice(&payload.to_be_bytes());
            out.extend_from_slice(&[high, 0, u8::from(dnssec_ok) << 7, 0]);
            out.extend_from_slice(&[0, 0]);
        }
        let [recursion, checking] = self.copied;
        let (aa, tc) = (
            u8::from(self.authoritative) << 2,
            u8::from(self.truncated) << 1,
        );
        out[2] = 0x80 | self.opcode << 3 | aa | tc | recursion;
        out[3] = u8::from(self.recursion_available) << 7 | checking | (self.rcode & 0xf) as u8;
        let additional = self.counts[2] + u16::from(self.edns.is_some());
        for (at, count) in [
            (4, 1),
            (6, self.counts[0]),
            (8, self.counts[1]),
            (10, additional),
        ] {
            out[at..at + 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// Writes a pointer to the name at `to`; a name that pointers do not reach is written once more, as a copy.
pub fn point(out: &mut Vec<u8>, to: usize) {
    if to <= POINTER_MAX {
        out.extend_from_slice(&(0xc000 | to as u16).to_be_bytes());
        return;
    }
    copy_name(out, to);
}

/// Copies the labels of the name at `at`, which may itself end with a pointer: only backwards, so this ends.
fn copy_name(out: &mut Vec<u8>, at: usize) {
    let mut at = at;
    loop {
        let length = usize::from(out[at]);
        if length & 0xc0 != 0 {
            out.extend_from_within(at..at + 2);
            return;
        }
        out.extend_from_within(at..at + 1 + length);
        if length == 0 {
            return;
        }
        at += 1 + length;
    }
}

/// Writes the answer to a query that has none but a code.
pub fn refuse(query: &Query<'_>, code: u16, out: &mut Vec<u8>) {
    let mut builder = Builder::new(query, out, MESSAGE_BYTES_MAX);
    builder.set_rcode(code);
    builder.finish();
}

/// Writes the answer to a message that could not be read: its header with a code. `false` when it has not even one.
pub fn refuse_unread(message: &[u8], code: u16, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some(header) = message.first_chunk::<HEADER_BYTES>() else {
        return false;
    };
    out.extend_from_slice(&header[..2]);
    out.push(0x80 | header[2] & 0x79);
    out.push(header[3] & 0x10 | (code & 0xf) as u8);
    out.extend_from_slice(&[0; 8]);
    true
}

#[cfg(test)]
mod tests {
    use super::super::rtype::{A, AAAA};
    use super::*;

    fn asked(edns: Option<u16>) -> Vec<u8> {
        let mut message = vec![0xab, 0xcd, 1, 0x10, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(b"\x03Web\x02ns\x00\x00\x01\x00\x01");
        if let Some(payload) = edns {
            message[11] = 1;
            message.extend_from_slice(&[0, 0, 41]);
            message.extend_from_slice(&payload.to_be_bytes());
            message.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
        }
        message
    }

    #[test]
    fn an_answer_has_the_question_and_its_flags() {
        let message = asked(Some(1232));
        let query = Query::read(&message).unwrap();
        assert_eq!(query.datagram_bytes_max(), 1232);
        let mut out = Vec::new();
        let mut builder = Builder::new(&query, &mut out, query.datagram_bytes_max());
        builder.set_authoritative();
        assert!(builder.record(HEADER_BYTES, A, 5, &[172, 30, 0, 1]));
        builder.begin(Section::Additional);
        assert!(builder.record_of(b"\x01x\x00", AAAA, 5, &[0; 16]));
        builder.finish();
        let mut expected = vec![0xab, 0xcd, 0x85, 0x10, 0, 1, 0, 1, 0, 0, 0, 2];
        expected.extend_from_slice(b"\x03Web\x02ns\x00\x00\x01\x00\x01");
        expected
            .extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\xac\x1e\x00\x01");
        expected.extend_from_slice(b"\x01x\x00\x00\x1c\x00\x01\x00\x00\x00\x05\x00\x10");
        expected.extend_from_slice(&[0; 16]);
        expected.extend_from_slice(b"\x00\x00\x29\x04\xd0\x00\x00\x80\x00\x00\x00");
        assert_eq!(out, expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let message = asked(None);
        let query = Query::read(&message).unwrap();
        let mut out = Vec::new();
        let mut builder = Builder::new(&query, &mut out, query.datagram_bytes_max());
        let fitted = (0..40u8).filter(|last| builder.record(12, A, 5, &[172, 30, 0, *last]));
        assert_eq!(fitted.count(), (512 - 12 - 12) / 16);
        builder.begin(Section::Additional);
        assert!(!builder.record(12, A, 5, &[172, 30, 0, 1]));
        builder.finish();
        assert_eq!(out[2] & 2, 2, "TC");
        assert!(out.len() <= 512);

        let mut builder = Builder::new(&query, &mut out, query.datagram_bytes_max());
        builder.begin(Section::Additional);
        while builder.record(12, A, 5, &[0; 4]) {}
        builder.finish();
        assert_eq!(
            out[2] & 2,
            0,
            "additional records are no reason to ask again"
        );
    }

    #[test]
    fn names_beyond_the_reach_of_pointers_are_copied() {
        let message = asked(None);
        let query = Query::read(&message).unwrap();
        let mut out = Vec::new();
        let mut builder = Builder::new(&query, &mut out, MESSAGE_BYTES_MAX);
        while builder.position() <= POINTER_MAX {
            builder.record_of(b"\x01x\x00", A, 5, &[0; 4]);
        }
        let far = builder.position();
        builder.record_of(b"\x03far\x00", A, 5, &[0; 4]);
        let again = builder.position();
        builder.record(far, A, 5, &[0; 4]);
        builder.finish();
        assert_eq!(&out[again..again + 5], b"\x03far\x00");
    }

    #[test]
    fn what_is_no_query_is_refused_or_ignored() {
        use super::super::Unreadable::{Ignore, Refuse};
        let good = asked(Some(512));
        let broken = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            Query::read(&message).map(|_| ()).unwrap_err()
        };
        assert_eq!(broken(2, 0x80), Ignore);
        assert_eq!(broken(2, 4 << 3 | 8), Refuse(rcode::NOTIMP));
        assert_eq!(broken(5, 0), Refuse(rcode::FORMERR));
        assert_eq!(broken(12, 0xc0), Refuse(rcode::FORMERR));
        assert_eq!(broken(11, 2), Refuse(rcode::FORMERR));
        assert_eq!(broken(11, 9), Refuse(rcode::FORMERR));
        for length in 0..good.len() {
            let read = Query::read(&good[..length]);
            let expected = if length < HEADER_BYTES {
                Ignore
            } else {
                Refuse(rcode::FORMERR)
            };
            assert_eq!(read.map(|_| ()).unwrap_err(), expected, "{length} bytes");
        }
        let mut out = Vec::new();
        assert!(refuse_unread(&good, rcode::FORMERR, &mut out));
        assert_eq!(out, [0xab, 0xcd, 0x81, 0x11, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!refuse_unread(&good[..11], rcode::FORMERR, &mut out));
    }
}
