//! One connection to a Service, and what became of it.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_model::Protocol;
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a client waits for an answer that must come: far more than any answer needs on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long silence must last to count as DROP; a refusal or an answer takes less than a millisecond.
pub const SILENCE: Duration = Duration::from_millis(500);

/// Longest line that a server sends.
const LINE_MAX: usize = 256;

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
    if let Some(source) = source {
        // A flow of the same port may just have ended.
        socket.set_reuse_address(source.port() != 0)?;
        socket.bind(&SockAddr::from(source))?;
    }
    socket.connect_timeout(&SockAddr::from(to), patience)?;
    socket.set_read_timeout(Some(patience))?;
    if protocol == Protocol::Udp {
        match socket.send(b"?") {
            // The node's own packet was not let out: the error that came back instead, if one did, says more.
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
            sent => drop(sent?),
        }
    }
    let mut line = [0; LINE_MAX];
    let length = socket.read(&mut line)?;
    if length == 0 {
        return Err(ErrorKind::ConnectionReset.into());
    }
    Ok(String::from_utf8_lossy(&line[..length]).into_owned())
}

/// A socket of `protocol` in the family of `address`.
pub fn open(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::Udp => Type::DGRAM,
        _ => Type::STREAM,
    };
    Socket::new(
        Domain::for_address(address),
        kind,
        Some(i32::from(protocol.number()).into()),
    )
}

/// Whether this kernel has SCTP sockets.
pub fn has_sctp() -> bool {
    open(Protocol::Sctp, SocketAddr::from(([127, 0, 0, 1], 0))).is_ok()
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
