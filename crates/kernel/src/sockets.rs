//! Sockets of this network namespace, ended from outside (`SOCK_DESTROY` of linux/sock_diag.h).

use std::net::{IpAddr, SocketAddr};

use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::nfnetlink::wire::{Message, read_u32};

const SOCK_DESTROY: u16 = 21;
const REQUEST_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;
/// A header of 16 bytes and an `inet_diag_req_v2`.
const LENGTH: usize = 16 + 56;

/// The TCP sockets of one network namespace.
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
        self.sequence = self.sequence.wrapping_add(1);
        let told = |error: std::io::Error| {
            Error::call(format!("destroy the socket {here} to {there}"), error)
        };
        let request = request(self.sequence, here, there);
        self.socket.send(&request, 0).map_err(told)?;
        loop {
            let (bytes, _) = self.socket.recv_from_full().map_err(told)?;
            let mine = |m: &Message<'_>| m.kind == ERROR && m.sequence == self.sequence;
            let Some(answer) = Message::all(&bytes).find(mine) else {
                continue;
            };
            return match read_u32(answer.body, 0).map(|code| -(code as i32)) {
                Some(0) => Ok(true),
                Some(libc::ENOENT) => Ok(false),
                code => Err(told(Errno::from_raw(code.unwrap_or(0)).into())),
            };
        }
    }
}

fn request(sequence: u32, here: SocketAddr, there: SocketAddr) -> Vec<u8> {
    let family = match here {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let mut out = Vec::with_capacity(LENGTH);
    out.extend((LENGTH as u32).to_ne_bytes());
    out.extend(SOCK_DESTROY.to_ne_bytes());
    out.extend(REQUEST_ACK.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend([family as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    // In any state.
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(here.port().to_be_bytes());
    out.extend(there.port().to_be_bytes());
    for end in [here, there] {
        let start = out.len();
        match end.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
        out.resize(start + 16, 0);
    }
    // On any interface, with any cookie (INET_DIAG_NOCOOKIE).
    out.extend([0; 4]);
    out.extend([0xff; 8]);
    out
}
