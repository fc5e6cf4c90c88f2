//! Sockets of one network namespace, listed and ended from outside (linux/sock_diag.h, linux/inet_diag.h).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;
use portolan_model::Protocol;

use crate::error::{Error, Result};
use crate::nfnetlink::wire::{ACK, DUMP, Message, REQUEST, read_u32};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A header of 16 bytes and an `inet_diag_req_v2`.
const LENGTH: usize = 16 + 56;
const ANY_COOKIE: u64 = u64::MAX;

/// States of linux/tcp_states.h in which a client may still wait for something; a connected socket of UDP is
/// established, too.
const OPEN_STATES: u32 = 1 << ESTABLISHED | 1 << SYN_SENT | 1 << FIN_WAIT1 | 1 << FIN_WAIT2;
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;

/// A connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The number that the kernel gives to no other one.
    pub cookie: u64,
    /// Its own end.
    pub here: SocketAddr,
    /// The other end.
    pub there: SocketAddr,
    /// Nothing has come back yet.
    pub is_opening: bool,
    family: u8,
    interface: u32,
}

/// The sockets of one network namespace.
pub struct Sockets {
    socket: Socket,
    sequence: u32,
}

impl Sockets {
    /// Those of the network namespace that the calling thread is in.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
            socket.bind_auto()?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let told = |error: std::io::Error| Error::call("open a netlink socket to sock_diag", error);
        Ok(Sockets {
            socket: open().map_err(told)?,
            sequence: 0,
        })
    }

    /// Ends the TCP socket at `here` that is connected to `there`: whoever waits on it gets ECONNABORTED at once.
    /// False if there is no such socket.
    pub fn destroy(&mut self, here: SocketAddr, there: SocketAddr) -> Result<bool> {
        let family = match here {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        let socket = Connected {
            cookie: ANY_COOKIE,
            here,
            there,
            is_opening: false,
            family: family as u8,
            interface: 0,
        };
        self.end(Protocol::Tcp, &socket)
    }

    /// Whether this kernel can list sockets of `protocol` and end them (INET_DIAG_DESTROY): it is asked for one that
    /// nobody has.
    pub fn can_end(&mut self, protocol: Protocol) -> bool {
        let nowhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let socket = Connected {
            cookie: 0,
            here: nowhere,
            there: nowhere,
            is_opening: false,
            family: libc::AF_INET as u8,
            interface: 0,
        };
        let lists = self.list(protocol, socket.family, drop).is_ok();
        lists && self.end(protocol, &socket).is_ok()
    }

    /// Ends every connected socket of `protocol` of which `is_doomed` says so, and returns how many there were.
    pub fn destroy_all(
        &mut self,
        protocol: Protocol,
        mut is_doomed: impl FnMut(&Connected) -> bool,
    ) -> Result<u64> {
        let mut ended = 0;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut doomed = Vec::new();
            self.list(protocol, family as u8, |socket| {
                if is_doomed(&socket) {
                    doomed.push(socket);
                }
            })?;
            for socket in doomed {
                ended += u64::from(self.end(protocol, &socket)?);
            }
        }
        Ok(ended)
    }

    fn list(
        &mut self,
        protocol: Protocol,
        family: u8,
        mut tell: impl FnMut(Connected),
    ) -> Result<()> {
        let told =
            |error: std::io::Error| Error::call(format!("list the sockets of {protocol}"), error);
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = header(SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, self.sequence);
        request.extend([family, protocol.number(), 0, 0]);
        request.extend(OPEN_STATES.to_ne_bytes());
        request.resize(LENGTH, 0);
        self.socket.send(&request, 0).map_err(told)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(told)?;
            for message in Message::all(&bytes).filter(|m| m.sequence == self.sequence) {
                let code = read_u32(message.body, 0).map_or(0, |code| (code as i32).wrapping_neg());
                match message.kind {
                    DONE if code == 0 => return Ok(()),
                    DONE | ERROR => return Err(told(Errno::from_raw(code).into())),
                    _ => drop(read(message.body).map(&mut tell)),
                }
            }
        }
    }

    fn end(&mut self, protocol: Protocol, socket: &Connected) -> Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let Connected { here, there, .. } = socket;
        let told = |error: std::io::Error| {
            Error::call(format!("destroy the socket {here} to {there}"), error)
        };
        let request = request(self.sequence, protocol, socket);
        self.socket.send(&request, 0).map_err(told)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(told)?;
            let mine = |m: &Message<'_>| m.kind == ERROR && m.sequence == self.sequence;
            let Some(answer) = Message::all(&bytes).find(mine) else {
                continue;
            };
            return match read_u32(answer.body, 0).map(|code| (code as i32).wrapping_neg()) {
                Some(0) => Ok(true),
                Some(libc::ENOENT) => Ok(false),
                code => Err(told(Errno::from_raw(code.unwrap_or(0)).into())),
            };
        }
    }
}

fn header(kind: u16, flags: u16, sequence: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(LENGTH);
    out.extend((LENGTH as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out
}

fn request(sequence: u32, protocol: Protocol, socket: &Connected) -> Vec<u8> {
    let mut out = header(SOCK_DESTROY, REQUEST | ACK, sequence);
    out.extend([socket.family, protocol.number(), 0, 0]);
    // In any state.
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(socket.here.port().to_be_bytes());
    out.extend(socket.there.port().to_be_bytes());
    for end in [socket.here, socket.there] {
        let start = out.len();
        match end.ip() {
            IpAddr::V4(ip) if i32::from(socket.family) == libc::AF_INET6 => {
                out.extend(ip.to_ipv6_mapped().octets());
            }
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
        out.resize(start + 16, 0);
    }
    out.extend(socket.interface.to_ne_bytes());
    out.extend((socket.cookie as u32).to_ne_bytes());
    out.extend(((socket.cookie >> 32) as u32).to_ne_bytes());
    out
}

/// An `inet_diag_msg`; `None` if it makes no sense.
fn read(body: &[u8]) -> Option<Connected> {
    let [family, state, _, _] = *body.first_chunk::<4>()?;
    let port = |at: usize| Some(u16::from_be_bytes(*body.get(at..)?.first_chunk()?));
    let ip = |at: usize| -> Option<IpAddr> {
        let bytes = body.get(at..)?.first_chunk::<16>()?;
        match i32::from(family) {
            libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
            libc::AF_INET6 => Some(Ipv6Addr::from(*bytes).to_canonical()),
            _ => None,
        }
    };
    let cookie = u64::from(read_u32(body, 44)?) | u64::from(read_u32(body, 48)?) << 32;
    Some(Connected {
        cookie,
        here: SocketAddr::new(ip(8)?, port(4)?),
        there: SocketAddr::new(ip(24)?, port(6)?),
        is_opening: state == SYN_SENT,
        family,
        interface: read_u32(body, 40)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use proptest::prelude::*;

    use super::*;
    use crate::topology::Host;

    #[test]
    fn sockets_are_listed_and_one_of_them_ends() {
        crate::isolated!(sockets_are_listed_and_one_of_them_ends, {
            let host = Host::new().unwrap();
            let work = || {
                for any in ["127.0.0.1:0", "[::1]:0"] {
                    let server = UdpSocket::bind(any).unwrap();
                    let clients = [any, any].map(|any| UdpSocket::bind(any).unwrap());
                    let there = server.local_addr().unwrap();
                    clients
                        .iter()
                        .for_each(|client| client.connect(there).unwrap());
                    let here = clients[1].local_addr().unwrap();
                    let mut sockets = Sockets::open().unwrap();
                    let mut seen = 0;
                    let ended = sockets.destroy_all(Protocol::Udp, |socket| {
                        seen += 1;
                        assert_eq!((socket.there, socket.is_opening), (there, false));
                        socket.here == here
                    });
                    assert_eq!((ended.unwrap(), seen), (1, 2));
                    assert!(clients[0].send(b"?").is_ok());
                    let told = clients[1].recv(&mut [0; 1]).unwrap_err();
                    assert_eq!(told.kind(), std::io::ErrorKind::ConnectionAborted);
                }
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let there = listener.local_addr().unwrap();
                let stream = TcpStream::connect(there).unwrap();
                let mut sockets = Sockets::open().unwrap();
                assert!(sockets.can_end(Protocol::Udp) && sockets.can_end(Protocol::Tcp));
                assert!(!sockets.can_end(Protocol::Sctp), "this kernel has none");
                assert!(
                    sockets
                        .destroy(stream.local_addr().unwrap(), there)
                        .unwrap()
                );
                let again = sockets.destroy_all(Protocol::Tcp, |s| s.there == there);
                assert_eq!(again.unwrap(), 0);
            };
            host.run(work).unwrap();
        });
    }

    proptest! {
        #[test]
        fn bytes_that_make_no_sense_do_no_harm(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
