//! Messages as text, read by code that shares nothing with crate `dns`: queries go out, answers come back as lines.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The query's number.
    pub id: u16,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    /// RA.
    pub recursion_available: bool,
    /// With the part in OPT.
    pub rcode: u16,
    /// Name, type and class.
    pub question: Option<(String, u16, u16)>,
    /// Answer, authority, additional without OPT.
    pub sections: [Vec<Record>; 3],
    /// Payload, version and flags of OPT.
    pub edns: Option<(u16, u8, u16)>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// With its last dot.
    pub owner: String,
    /// `A`, `SRV`, …
    pub rtype: String,
    /// As in zone files.
    pub data: String,
    /// Seconds.
    pub ttl: u32,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Record {
            owner,
            rtype,
            data,
            ttl,
        } = self;
        write!(f, "{owner} {ttl} IN {rtype} {data}")
    }
}

/// Numbers of types.
const TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("ANY", 255),
];

/// The number of a type.
pub fn type_number(name: &str) -> u16 {
    let found = TYPES.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("type {name}")).1
}

/// The name of a code.
pub fn rcode_name(code: u16) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        16 => "BADVERS",
        _ => "another code",
    }
}

/// A query with RD, and OPT with a payload.
pub fn query(name: &str, rtype: u16, payload: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![
        0x12,
        0x34,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(payload.is_some()),
    ];
    bytes.extend(wire_name(name));
    bytes.extend(rtype.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(payload) = payload {
        bytes.extend([0, 0, 41]);
        bytes.extend(payload.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// A name without escapes on the wire.
pub fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).expect("a label"));
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// Reads a message; panics where it is none, since it comes from the code under test.
pub fn read(bytes: &[u8]) -> Message {
    let mut reader = Reader { bytes, at: 12 };
    let count = |index: usize| u16::from_be_bytes([bytes[index], bytes[index + 1]]);
    let question = (count(4) == 1).then(|| (reader.name(), reader.number(), reader.number()));
    let mut message = Message {
        id: count(0),
        authoritative: bytes[2] & 4 != 0,
        truncated: bytes[2] & 2 != 0,
        recursion_available: bytes[3] & 0x80 != 0,
        rcode: u16::from(bytes[3] & 0xf),
        question,
        sections: Default::default(),
        edns: None,
    };
    assert_ne!(bytes[2] & 0x80, 0, "QR");
    for (index, section) in [6, 8, 10].into_iter().enumerate() {
        for _ in 0..count(section) {
            reader.record(&mut message, index);
        }
    }
    assert_eq!(reader.at, bytes.len(), "nothing follows the last record");
    message
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> u16 {
        self.at += 2;
        u16::from_be_bytes([self.bytes[self.at - 2], self.bytes[self.at - 1]])
    }

    fn long(&mut self) -> u32 {
        u32::from(self.number()) << 16 | u32::from(self.number())
    }

    /// A name, following pointers that lead backwards.
    fn name(&mut self) -> String {
        let mut text = String::new();
        let (mut at, mut end) = (self.at, None);
        loop {
            let length = usize::from(self.bytes[at]);
            if length & 0xc0 == 0xc0 {
                let to = (length & 0x3f) << 8 | usize::from(self.bytes[at + 1]);
                assert!(to < at, "a pointer leads backwards");
                end.get_or_insert(at + 2);
                at = to;
                continue;
            }
            assert!(length < 64, "a label");
            at += 1;
            if length == 0 {
                break;
            }
            text.push_str(&String::from_utf8_lossy(&self.bytes[at..at + length]));
            text.push('.');
            at += length;
        }
        self.at = end.unwrap_or(at);
        if text.is_empty() {
            text.push('.');
        }
        text
    }

    fn record(&mut self, message: &mut Message, section: usize) {
        let owner = self.name();
        let (rtype, class, ttl) = (self.number(), self.number(), self.long());
        let length = usize::from(self.number());
        let end = self.at + length;
        if rtype == 41 {
            assert_eq!((owner.as_str(), section), (".", 2));
            message.rcode |= (ttl >> 24 << 4) as u16;
            message.edns = Some((class, (ttl >> 16) as u8, ttl as u16));
            self.at = end;
            return;
        }
        assert_eq!(class, 1);
        let data = self.data(rtype, end);
        assert_eq!(self.at, end, "length of {owner}");
        let name = TYPES.iter().find(|(_, number)| *number == rtype);
        message.sections[section].push(Record {
            owner,
            rtype: name.map_or(format!("TYPE{rtype}"), |(name, _)| (*name).to_owned()),
            data,
            ttl,
        });
    }

    fn data(&mut self, rtype: u16, end: usize) -> String {
        match rtype {
            1 => Ipv4Addr::from(self.long()).to_string(),
            28 => {
                let octets: [u8; 16] = self.bytes[self.at..end].try_into().expect("16 bytes");
                self.at = end;
                Ipv6Addr::from(octets).to_string()
            }
            2 | 5 | 12 => self.name(),
            6 => {
                let mut text = format!("{} {}", self.name(), self.name());
                (0..5).for_each(|_| write!(text, " {}", self.long()).expect("text"));
                text
            }
            33 => {
                let numbers = [self.number(), self.number(), self.number()];
                let [priority, weight, port] = numbers;
                format!("{priority} {weight} {port} {}", self.name())
            }
            _ => self.strings(end),
        }
    }

    fn strings(&mut self, end: usize) -> String {
        let mut all = Vec::new();
        while self.at < end {
            let length = usize::from(self.bytes[self.at]);
            let text = &self.bytes[self.at + 1..self.at + 1 + length];
            all.push(format!("\"{}\"", String::from_utf8_lossy(text)));
            self.at += 1 + length;
        }
        all.join(" ")
    }
}
