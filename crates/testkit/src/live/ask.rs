//! One connection to a Service, and what became of it.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use portolan_model::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};

use super::sctp;

/// How long a client waits for an answer that must come: far more than any answer needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long silence must last to count as DROP; a refusal or an answer takes less than a millisecond.
pub const SILENCE: Duration = Duration::from_millis(500);

/// Longest line that a server sends.
const LINE_MAX: usize = 256;

/// Longest packet that a raw socket reads: headers, an INIT ACK and a line.
pub const PACKET_MAX: usize = 60 + 36 + LINE_MAX;

/// Ports that clients choose by themselves, of those that the kernel would choose.
const CLIENT_PORTS: RangeInclusive<u16> = 32_768..=60_999;

/// Ports that a client tries before it takes all of them for taken: far more than one node's servers and relays hold.
const PORTS_TRIED_MAX: usize = 256;

/// Packets of others before a client gives up: late answers to flows before this one.
const STRANGERS_MAX: usize = 64;

/// An answer: who gave it, and which source address it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The address on which the server listens.
    pub who: SocketAddr,
    /// The address that the server took the client for.
    pub saw: IpAddr,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// An error came back at once, and its kind.
    Refused(ErrorKind),
    /// Nothing came back.
    Silence,
}

/// Asks `to` once from `source` (`None`: the kernel chooses) in the namespace of the calling thread.
pub fn ask(
    protocol: Protocol,
    source: Option<SocketAddr>,
    to: SocketAddr,
    patience: Duration,
) -> Result<Result<Answer, NoAnswer>, String> {
    match exchange(protocol, source, to, patience) {
        Ok(line) => read_answer(&line)
            .map(Ok)
            .ok_or_else(|| format!("unreadable answer {line:?}")),
        Err(e) => match e.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(Err(NoAnswer::Silence)),
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::ConnectionReset => Ok(Err(NoAnswer::Refused(e.kind()))),
            _ => Err(format!("asking {to} from {source:?}: {e}")),
        },
    }
}

fn exchange(
    protocol: Protocol,
    source: Option<SocketAddr>,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<String> {
    let mut socket = open(protocol, to)?;
    if protocol == Protocol::Sctp {
        return associate(&mut socket, source, to, patience);
    }
    // A flow of the same port may just have ended.
    socket.set_reuse_address(source.is_some_and(|source| source.port() != 0))?;
    bind(&socket, protocol, source, to)?;
    socket.connect_timeout(&SockAddr::from(to), patience)?;
    socket.set_read_timeout(Some(patience))?;
    if protocol == Protocol::Udp {
        send(&socket, b"?")?;
    }
    let mut line = [0; LINE_MAX];
    let length = socket.read(&mut line)?;
    if length == 0 {
        return Err(ErrorKind::ConnectionReset.into());
    }
    Ok(String::from_utf8_lossy(&line[..length]).into_owned())
}

/// Binds to `source`. Who asks over UDP has a port of its own each time: from a port that was used just before, it would
/// be the same flow.
fn bind(
    socket: &Socket,
    protocol: Protocol,
    source: Option<SocketAddr>,
    to: SocketAddr,
) -> io::Result<()> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let from = match source {
        None if protocol == Protocol::Udp => SocketAddr::new(any, 0),
        None => return Ok(()),
        Some(from) => from,
    };
    if protocol != Protocol::Udp || from.port() != 0 {
        return socket.bind(&SockAddr::from(from));
    }
    let mut last = ErrorKind::AddrInUse.into();
    for _ in 0..PORTS_TRIED_MAX {
        match socket.bind(&SockAddr::from(SocketAddr::new(from.ip(), next_port()))) {
            // A server, a relay or the kernel's own choice for another client has it.
            Err(error) if error.kind() == ErrorKind::AddrInUse => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// None comes again before all others have had their turn.
fn next_port() -> u16 {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let ports = CLIENT_PORTS.end() - CLIENT_PORTS.start() + 1;
    CLIENT_PORTS.start() + ASKED.fetch_add(1, Ordering::Relaxed) % ports
}

fn send(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    match socket.send(bytes) {
        // The node's own packet was not let out: the error that came back instead, if one did, says more.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(()),
        sent => sent.map(drop),
    }
}

/// Sends an INIT and reads the cookie of the INIT ACK. Every raw socket sees all packets of its two addresses.
fn associate(
    socket: &mut Socket,
    source: Option<SocketAddr>,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<String> {
    // A raw socket has no port, and one of IPv6 takes a port for a protocol.
    let without_port = |address: SocketAddr| SockAddr::from(SocketAddr::new(address.ip(), 0));
    if let Some(source) = source {
        socket.bind(&without_port(source))?;
    }
    socket.connect(&without_port(to))?;
    socket.set_read_timeout(Some(patience))?;
    let given = source.map_or(0, |source| source.port());
    let port = match given {
        0 => fastrand::u16(CLIENT_PORTS),
        given => given,
    };
    send(socket, &sctp::init(port, to.port()))?;
    let mut bytes = [0; PACKET_MAX];
    for _ in 0..STRANGERS_MAX {
        let length = socket.read(&mut bytes)?;
        let packet =
            sctp::read(to, &bytes[..length]).filter(|p| (p.from, p.to) == (to.port(), port));
        if let Some(cookie) = packet.and_then(|packet| packet.cookie) {
            return Ok(String::from_utf8_lossy(&cookie).into_owned());
        }
    }
    Err(io::Error::other("only packets of others arrived"))
}

/// A socket of `protocol` in the family of `address`.
pub fn open(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => Type::RAW,
    };
    Socket::new(
        Domain::for_address(address),
        kind,
        Some(i32::from(protocol.number()).into()),
    )
}

/// Whether this kernel knows flows of SCTP; without that it cannot translate them.
pub fn has_sctp() -> bool {
    Path::new("/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_closed").exists()
}

/// The line that a server sends: who it is, and whom it sees.
pub fn write_answer(who: SocketAddr, saw: IpAddr) -> String {
    format!("{who} {saw}\n")
}

fn read_answer(line: &str) -> Option<Answer> {
    let (who, saw) = line.trim_end().split_once(' ')?;
    let (who, saw) = (who.parse().ok()?, saw.parse().ok()?);
    Some(Answer { who, saw })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(from: u16, count: usize) -> Vec<Socket> {
        let taken = |offset| {
            let socket = open(Protocol::Udp, SocketAddr::from(([127, 0, 0, 1], 1))).unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], from + offset as u16));
            socket.bind(&SockAddr::from(address)).map(|()| socket)
        };
        // Somebody else's is as good.
        (0..count).filter_map(|offset| taken(offset).ok()).collect()
    }

    #[test]
    fn a_port_that_is_taken_is_not_the_end() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let next = next_port() + 1;
        let _held = ports(next, 8);
        let socket = open(Protocol::Udp, to).unwrap();
        let from = SocketAddr::from(([127, 0, 0, 1], 0));
        bind(&socket, Protocol::Udp, Some(from), to).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert!(port >= next + 8, "{port} {next}");
    }
}
