//! Many datagrams by one system call, into and out of room that is made once.
//!
//! A socket that is bound to all addresses is told to which one each datagram was sent, and answers from that one: a
//! client takes no answer from another address.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
    sendmmsg,
};

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

/// Answers that are to be sent.
pub(crate) struct Outbox {
    letters: Vec<Letter>,
    to: Vec<Option<SockaddrStorage>>,
    used: usize,
    /// Whether answers must say from which address they come.
    signed: bool,
    plain: MultiHeaders<SockaddrStorage>,
    v4: MultiHeaders<SockaddrStorage>,
    v6: MultiHeaders<SockaddrStorage>,
}

struct Letter {
    bytes: Vec<u8>,
    local: IpAddr,
}

impl Outbox {
    /// Room for `count` answers at a socket that is bound to `bound`.
    pub fn new(count: usize, bound: SocketAddr) -> Self {
        let count = count.min(BATCH_MAX);
        let letter = || Letter {
            bytes: Vec::new(),
            local: bound.ip(),
        };
        Outbox {
            letters: std::iter::repeat_with(letter).take(count).collect(),
            to: vec![None; count],
            used: 0,
            signed: own_address(bound).is_none(),
            plain: MultiHeaders::preallocate(count, None),
            v4: MultiHeaders::preallocate(count, Some(cmsg_space!(nix::libc::in_pktinfo))),
            v6: MultiHeaders::preallocate(count, Some(cmsg_space!(nix::libc::in6_pktinfo))),
        }
    }

    /// The buffer for an answer; it counts when it is [kept](Outbox::keep).
    pub fn next(&mut self, to: SocketAddr, local: IpAddr) -> &mut Vec<u8> {
        // There is a letter for each datagram of a batch.
        let at = self.used.min(self.letters.len() - 1);
        self.to[at] = Some(SockaddrStorage::from(to));
        let letter = &mut self.letters[at];
        letter.local = local;
        letter.bytes.clear();
        &mut letter.bytes
    }

    /// The answer in the last buffer is to be sent.
    pub fn keep(&mut self) {
        self.used = (self.used + 1).min(self.letters.len());
    }

    /// Sends what was kept. What the socket has no room for is lost, as datagrams are.
    pub fn send(&mut self, socket: &UdpSocket) {
        let mut begin = 0;
        while begin < self.used {
            let local = self.letters[begin].local;
            let run = &self.letters[begin..self.used];
            let same = |letter: &&Letter| !self.signed || letter.local == local;
            let end = begin + run.iter().take_while(same).count();
            let sent = self.send_run(socket, begin..end, local);
            // One that cannot be sent holds up no other.
            begin += sent.unwrap_or(0).max(1);
        }
        self.used = 0;
    }

    fn send_run(
        &mut self,
        socket: &UdpSocket,
        run: std::ops::Range<usize>,
        local: IpAddr,
    ) -> nix::Result<usize> {
        let letters = &self.letters[run.clone()];
        let mut rest = letters.iter();
        let slices: [[IoSlice<'_>; 1]; BATCH_MAX] = std::array::from_fn(|_| {
            [IoSlice::new(
                rest.next().map_or(&[], |letter| &letter.bytes),
            )]
        });
        let slices = slices[..letters.len()].iter();
        let (fd, to) = (socket.as_raw_fd(), &self.to[run]);
        let flags = MsgFlags::MSG_DONTWAIT;
        if !self.signed {
            return sendmmsg(fd, &mut self.plain, slices, to, [], flags).map(|sent| sent.count());
        }
        match local {
            IpAddr::V4(local) => {
                let info = nix::libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: nix::libc::in_addr {
                        s_addr: u32::from(local).to_be(),
                    },
                    ipi_addr: nix::libc::in_addr { s_addr: 0 },
                };
                let from = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmmsg(fd, &mut self.v4, slices, to, from, flags).map(|sent| sent.count())
            }
            IpAddr::V6(local) => {
                let info = nix::libc::in6_pktinfo {
                    ipi6_addr: nix::libc::in6_addr {
                        s6_addr: local.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let from = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmmsg(fd, &mut self.v6, slices, to, from, flags).map(|sent| sent.count())
            }
        }
    }
}
