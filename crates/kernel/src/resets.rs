//! TCP connections of others, ended: the client learns at once that its connection leads nowhere.
//!
//! ```text
//!   socket of this namespace? ──yes──▶ SOCK_DESTROY
//!            │ no
//!            ▼
//!   ResetTable answers its packets with resets ──▶ conntrack forgets it ──▶ provoke: it has to send something
//! ```
//!
//! Which connections, and how often they are provoked, `model::reset` says.

mod packet;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_model::ApplyError;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::conntrack::Doomed;
use crate::error::{Error, Result};
use crate::nft::{Ends, ResetTable};
use crate::sockets::Sockets;

/// Everything that it takes, in one network namespace.
pub struct Resets {
    table: ResetTable,
    sockets: Sockets,
    raw: [Socket; 2],
}

impl Resets {
    /// For the network namespace that the calling thread is in. Needs CAP_NET_ADMIN and CAP_NET_RAW.
    pub fn open() -> Result<Self> {
        let refused = |error: ApplyError| {
            Error::Protocol(format!("nf_tables: {}: {}", error.doing, error.words))
        };
        Ok(Resets {
            table: ResetTable::open().map_err(refused)?,
            sockets: Sockets::open()?,
            raw: [raw(Domain::IPV4)?, raw(Domain::IPV6)?],
        })
    }

    /// Ends these connections, now or as soon as their clients say a word within `time`. `addresses` are those of this
    /// network namespace. Returns those that have to be provoked. conntrack must forget all of them after this, and not
    /// before: a packet in between would be balanced anew as the first of its flow.
    pub fn begin(
        &mut self,
        doomed: &[Doomed],
        addresses: &BTreeSet<IpAddr>,
        time: Duration,
    ) -> Result<Vec<Ends>, ApplyError> {
        let mut rest = Vec::new();
        for doomed in doomed {
            let ends = Ends {
                client: doomed.connection.client,
                destination: doomed.connection.flow.destination,
            };
            if !(addresses.contains(&ends.client.ip()) && self.destroy(ends)) {
                rest.push(ends);
            }
        }
        self.table.add(&rest, time)?;
        Ok(rest)
    }

    /// False when there is no such socket, and also when this kernel cannot do it (without INET_DIAG_DESTROY): packets
    /// do it then.
    fn destroy(&mut self, ends: Ends) -> bool {
        let done = self.sockets.destroy(ends.client, ends.destination);
        done.unwrap_or(false)
    }

    /// Makes the clients of these connections send something. Counts `round` from 0: the numbers differ from round to
    /// round, and at most one of four can be such that a client takes the packet for its own and says nothing.
    pub fn provoke(&self, all: &[Ends], round: usize) -> Result<()> {
        let mut failed = Ok(());
        for ends in all {
            let number = 0x1000_0000 + 0x4000_0000 * (round as u32 % 4);
            let Some(bytes) = packet::bare_ack(ends.destination, ends.client, number) else {
                continue;
            };
            let socket = &self.raw[usize::from(ends.client.is_ipv6())];
            // The port of a raw socket's address means nothing.
            let to = SockAddr::from(SocketAddr::new(ends.client.ip(), 0));
            if let Err(error) = socket.send_to(&bytes, &to) {
                failed = Err(Error::call(format!("provoke {}", ends.client), error));
            }
        }
        failed
    }

    /// Nothing is being reset any more.
    pub fn end(&mut self) -> Result<(), ApplyError> {
        self.table.remove()
    }
}

/// A socket that sends whole packets, with their IP headers.
fn raw(domain: Domain) -> Result<Socket> {
    let protocol = Protocol::from(libc::IPPROTO_RAW);
    let kind = Type::RAW.nonblocking();
    Socket::new(domain, kind, Some(protocol))
        .map_err(|error| Error::call("open a raw socket", error))
}
