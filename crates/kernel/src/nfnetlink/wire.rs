//! Netlink messages and attributes as bytes: a writer for batches and a reader that never panics.

use portolan_model::Family;

/// Subsystems of linux/netfilter/nfnetlink.h.
pub(crate) const CTNETLINK: u16 = 1;
pub(crate) const NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Flags of linux/netlink.h.
pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

pub(crate) const HEADER_LEN: usize = 16;
const NFGEN_LEN: usize = 4;

/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
pub(crate) const fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}

/// Messages one after the other, each with the next sequence number.
pub(crate) struct Writer {
    pub bytes: Vec<u8>,
    pub sequence: u32,
    message: usize,
}

impl Writer {
    pub fn new(sequence: u32) -> Self {
        Writer {
            bytes: Vec::with_capacity(4096),
            sequence,
            message: 0,
        }
    }

    fn start(&mut self, kind: u16, flags: u16, family: u8, resource: u16) {
        self.message = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.sequence += 1;
    }

    /// Starts a message of nf_tables.
    pub fn begin(&mut self, kind: u16, flags: u16, family: u8) {
        self.start(NFTABLES << 8 | kind, flags, family, 0);
    }

    /// Starts a message of conntrack.
    pub fn begin_conntrack(&mut self, kind: u16, flags: u16, family: u8) {
        self.start(CTNETLINK << 8 | kind, flags, family, 0);
    }

    /// Starts a message of a family of generic netlink.
    pub fn begin_generic(&mut self, family_id: u16, flags: u16, command: u8) {
        self.start(family_id, flags, command, 0);
    }

    /// Starts a batch that is refused unless the rule set has this generation.
    pub fn begin_batch(&mut self, generation: Option<u32>) {
        self.start(BATCH_BEGIN, 0, 0, NFTABLES);
        if let Some(generation) = generation {
            self.number(1, generation);
        }
        self.end();
    }

    pub fn end_batch(&mut self) {
        self.start(BATCH_END, 0, 0, NFTABLES);
        self.end();
    }

    /// Finishes a message.
    pub fn end(&mut self) {
        let length = (self.bytes.len() - self.message) as u32;
        self.bytes[self.message..self.message + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Asks for an acknowledgement of the message that was written last.
    pub fn acknowledge(&mut self) {
        self.acknowledge_at(self.message);
    }

    /// The same for the message that starts at `at`.
    pub fn acknowledge_at(&mut self, at: usize) {
        self.bytes[at + 6] |= ACK as u8;
    }

    /// Appends whole messages.
    pub fn copy(&mut self, messages: &[u8]) {
        self.bytes.extend(messages);
    }

    /// Starts a nested attribute; [`Writer::close`] finishes it.
    pub fn open(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        at
    }

    pub fn close(&mut self, at: usize) {
        let length = self.bytes.len() - at;
        debug_assert!(length <= usize::from(u16::MAX), "attribute too long");
        self.bytes[at..at + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }

    /// A nested attribute with what `inside` writes.
    pub fn nest(&mut self, kind: u16, inside: impl FnOnce(&mut Self)) {
        let at = self.open(kind);
        inside(self);
        self.close(at);
    }

    pub fn raw(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
    }

    /// An attribute whose value `inside` appends.
    pub fn written(&mut self, kind: u16, inside: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        inside(&mut self.bytes);
        self.close(at);
    }

    pub fn number(&mut self, kind: u16, value: u32) {
        self.raw(kind, &value.to_be_bytes());
    }

    pub fn wide(&mut self, kind: u16, value: u64) {
        self.raw(kind, &value.to_be_bytes());
    }

    pub fn text(&mut self, kind: u16, value: &str) {
        let at = self.bytes.len();
        self.raw(kind, value.as_bytes());
        self.bytes.truncate(at + 4 + value.len());
        self.bytes.push(0);
        self.close(at);
    }
}

/// One received message.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits a datagram into messages; stops at the first one that makes no sense.
    pub fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Message<'a>> {
        std::iter::from_fn(move || {
            let length = read_u32(bytes, 0)? as usize;
            let body = bytes.get(HEADER_LEN..length)?;
            let message = Message {
                kind: read_u16(bytes, 4)?,
                flags: read_u16(bytes, 6)?,
                sequence: read_u32(bytes, 8)?,
                body,
            };
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            Some(message)
        })
    }

    /// The attributes of a message.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(NFGEN_LEN..).unwrap_or(&[]))
    }
}

/// A list of attributes.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    pub fn all(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut bytes = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(read_u16(bytes, 0)?);
            let kind = read_u16(bytes, 2)? & 0x3fff;
            let value = bytes.get(4..length)?;
            bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            Some((kind, value))
        })
    }

    pub fn find(self, kind: u16) -> Option<&'a [u8]> {
        self.all().find(|(k, _)| *k == kind).map(|(_, value)| value)
    }

    pub fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    pub fn number(self, kind: u16) -> Option<u32> {
        let bytes = self.find(kind)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    }

    pub fn text(self, kind: u16) -> Option<&'a str> {
        let bytes = self.find(kind)?;
        std::str::from_utf8(bytes.strip_suffix(&[0]).unwrap_or(bytes)).ok()
    }
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*bytes))
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_ne_bytes(*bytes))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*bytes))
}
