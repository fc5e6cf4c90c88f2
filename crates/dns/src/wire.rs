//! The format of DNS messages (RFC 1035, RFC 6891): queries are read and answers are written without allocation.
//!
//! This is the hot path only: one question in, answers out. What else is in messages of others (answers of upstreams)
//! is read elsewhere.

mod builder;
mod name;
mod query;

pub use builder::{Builder, Section, point, refuse, refuse_unread};
pub use name::{Name, NameError, eq_names, labels, lower, skip_name};
pub use query::{Edns, Query, Unreadable, smallest_ttl};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// Longest name on the wire (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 255;

/// What a client without EDNS takes over UDP (RFC 1035, section 4.2.1).
pub const PLAIN_BYTES_MAX: usize = 512;

/// The largest message: TCP has two bytes for its length.
pub const MESSAGE_BYTES_MAX: usize = 65_535;

/// Types of records (IANA, DNS parameters).
#[allow(missing_docs)]
pub mod rtype {
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const HINFO: u16 = 13;
    pub const MX: u16 = 15;
    pub const TXT: u16 = 16;
    pub const AAAA: u16 = 28;
    pub const SRV: u16 = 33;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Classes.
#[allow(missing_docs)]
pub mod class {
    pub const IN: u16 = 1;
    pub const CHAOS: u16 = 3;
    pub const ANY: u16 = 255;
}

/// Kinds of answers (IANA, DNS RCODEs); above 15 they need EDNS.
#[allow(missing_docs)]
pub mod rcode {
    pub const NOERROR: u16 = 0;
    pub const FORMERR: u16 = 1;
    pub const SERVFAIL: u16 = 2;
    pub const NXDOMAIN: u16 = 3;
    pub const NOTIMP: u16 = 4;
    pub const REFUSED: u16 = 5;
    pub const NOTAUTH: u16 = 9;
    pub const BADVERS: u16 = 16;
}

/// Kinds of requests.
#[allow(missing_docs)]
pub mod opcode {
    pub const QUERY: u8 = 0;
    pub const NOTIFY: u8 = 4;
}
