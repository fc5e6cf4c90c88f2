//! Many datagrams by one system call, into and out of room that is made once.
//!
//! A socket that is bound to all addresses is told to which one each datagram was sent, and answers from that one: a
//! client takes no answer from another address.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};

use super::limits::BATCH_MAX;
use super::udp::own_address;

/// What was received by one call.
pub(crate) struct Batch {
    room: Vec<u8>,
    each: usize,
    headers: MultiHeaders<SockaddrStorage>,
    got: Vec<Got>,
}

struct Got {
    length: usize,
    from: SocketAddr,
    local: IpAddr,
}

/// One datagram.
pub(crate) struct Received<'a> {
    pub bytes: &'a [u8],
    pub from: SocketAddr,
    pub local: IpAddr,
}

impl Batch {
    /// Room for `count` datagrams of `each` bytes; longer ones are left out.
    pub fn new(count: usize, each: usize) -> Self {
        let count = count.min(BATCH_MAX);
        // One more byte tells those that are too long.
        let each = each + 1;
        let space = cmsg_space!(nix::libc::in6_pktinfo);
        Batch {
            room: vec![0; count * each],
            each,
            headers: MultiHeaders::preallocate(count, Some(space)),
            got: Vec::with_capacity(count),
        }
    }

    /// Waits for a datagram, and takes those that are there with it.
    pub fn receive(&mut self, socket: &UdpSocket, bound: SocketAddr) -> io::Result<()> {
        self.got.clear();
        let mut rooms = self.room.chunks_mut(self.each);
        let mut slices: [[IoSliceMut<'_>; 1]; BATCH_MAX] =
            std::array::from_fn(|_| [IoSliceMut::new(rooms.next().unwrap_or_default())]);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut self.headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        )?;
        let own = own_address(bound);
        for message in received {
            let Some(from) = message.address.and_then(address_of) else {
                self.got.push(Got {
                    length: 0,
                    from: bound,
                    local: bound.ip(),
                });
                continue;
            };
            let told = || message.cmsgs().ok()?.find_map(local_of);
            self.got.push(Got {
                length: message.bytes,
                from,
                local: own.or_else(told).unwrap_or(bound.ip()),
            });
        }
        Ok(())
    }

    /// How many were received.
    pub fn count(&self) -> usize {
        self.got.len()
    }

    /// What was received, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = Received<'_>> {
        let rooms = self.room.chunks(self.each).zip(&self.got);
        let whole = rooms.filter(|(room, got)| got.length > 0 && got.length < room.len());
        whole.map(|(room, got)| Received {
            bytes: &room[..got.length],
            from: got.from,
            local: got.local,
        })
    }
}

fn local_of(message: ControlMessageOwned) -> Option<IpAddr> {
    match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
        }
        _ => None,
    }
}

fn address_of(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddrV4::from(*a));
    let v6 = || address.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a));
    v4.map(SocketAddr::V4).or_else(|| v6().map(SocketAddr::V6))
}
