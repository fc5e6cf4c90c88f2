//! Asking other servers.
//!
//! ```text
//!   Forward (one line of a Corefile) ──policy──▶ Server ──▶ datagram (UDP) ──TC──▶ stream (TCP, TLS) / https
//!                                                  ▲
//!                                                check: looks at a server that has failed, until it is well
//! ```
//!
//! An answer is believed only when it comes from the address that was asked, to the port that asked, with the number and
//! the very letters of the question: port, number and the case of each letter are random (RFC 5452).

mod check;
mod datagram;
mod forward;
mod https;
pub(crate) mod random;
mod server;
mod stream;
mod tls;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use crate::message::Question;

pub use forward::{CONCURRENT_DEFAULT, Failed, Forward, Report, read_resolv_conf};
pub use server::{BUCKETS_US, Counts, Server};
pub use tls::TlsError;

/// How long the client of a query is kept waiting, whatever happens: the stub resolvers of libc ask again after 5 s.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// How long one server has for one try.
pub const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// What we take over UDP from other servers: below what is fragmented anywhere (DNS flag day 2020).
pub const PAYLOAD: u16 = 1232;
/// Bytes of one datagram that are read: some servers send more than they were told to.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// Idle connections that are kept to one server; one carries one query at a time, and most answers come over UDP.
pub const IDLE_MAX: usize = 32;

/// What is asked of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What for.
    pub question: Question,
    /// RD.
    pub recursion_desired: bool,
    /// CD.
    pub checking_disabled: bool,
    /// DO.
    pub dnssec_ok: bool,
    /// Options of EDNS, on the wire.
    pub options: Vec<u8>,
}

impl Ask {
    /// The plain form: recursion, and nothing special.
    pub fn of(question: Question) -> Self {
        Ask {
            question,
            recursion_desired: true,
            checking_disabled: false,
            dnssec_ok: false,
            options: Vec::new(),
        }
    }
}

/// Why a server has given no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It was too slow.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The kernel's words.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What came was no answer to what was asked.
    #[error("what came back is no answer to the question")]
    Mismatch,
    /// HTTP's words.
    #[error("{0}")]
    Http(String),
    /// TLS cannot be set up with what was configured.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// It asks us in turn.
    #[error("the server forwards its queries to us: a loop")]
    Loop,
}

/// Where a socket is bound to for a server: any port, of the same family, from `source` if there is one.
pub(crate) fn local_address(to: SocketAddr, source: Option<std::net::IpAddr>) -> SocketAddr {
    let any: std::net::IpAddr = match to {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = source.filter(|source| source.is_ipv4() == to.is_ipv4());
    SocketAddr::new(source.unwrap_or(any), 0)
}
