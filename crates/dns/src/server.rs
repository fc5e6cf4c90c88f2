//! Servers: messages between sockets and whoever answers them.
//!
//! A server reads the query, and asks [`Answer::at_once`]. What can be answered without waiting is answered there, on the
//! thread that received it; the rest goes to [`Answer::later`] as a task.

mod batch;
mod front;
mod https;
mod limits;
mod listen;
mod outbox;
mod pace;
mod stream;
mod tcp;
mod udp;

pub use limits::Limits;
pub use listen::{Bound, ListenError, Listener, Protocol, Server, bind};

use std::future::Future;
use std::net::{IpAddr, SocketAddr};

use crate::wire::Query;

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A plain stream (RFC 7766).
    Tcp,
    /// A stream in TLS (RFC 7858).
    Tls,
    /// A request of HTTPS (RFC 8484).
    Https,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Where it asks from. An IPv4 address at an IPv6 socket is written as an IPv4 address.
    pub address: SocketAddr,
    /// The address that it asked; unspecified where the socket is bound to all of them.
    pub local: IpAddr,
    /// How the query came.
    pub transport: Transport,
}

impl Client {
    /// How many bytes an answer to `query` may have.
    pub fn bytes_max(&self, query: &Query<'_>) -> usize {
        match self.transport {
            Transport::Udp => query.datagram_bytes_max(),
            _ => query.stream_bytes_max(),
        }
    }
}

/// What becomes of a query.
pub enum Step {
    /// The answer stands in the buffer.
    Answered,
    /// It needs time: [`Answer::later`] is asked with the same message.
    Later,
    /// It gets no answer.
    Drop,
    /// Many messages, one after the other: a zone transfer. Only over streams.
    Transfer(Box<dyn Iterator<Item = Vec<u8>> + Send>),
}

/// Whoever knows answers. The server has read the query and refused what is none, and EDNS versions other than 0.
pub trait Answer: Send + Sync + 'static {
    /// Answers into `out` without waiting: this is called on the thread that receives. `out` may hold anything before.
    fn at_once(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step;

    /// Answers `request`, for which [`Answer::at_once`] has said [`Step::Later`]. `None` is no answer.
    fn later(
        &self,
        request: Vec<u8>,
        client: Client,
    ) -> impl Future<Output = Option<Vec<u8>>> + Send;
}
