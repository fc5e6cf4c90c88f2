//! Answers on their way out: many by one system call, and those to one client as one packet that the kernel cuts as late
//! as it can (UDP_SEGMENT), because the way through the kernel is most of what an answer costs.
//!
//! ```text
//!   letters, as they were written   a1 b1 a2 c1 a3 b2
//!   trains, a client each           [a1 a2 a3] [b1 b2] [c1]      cars of one length; the last may be shorter
//!   calls                           sendmmsg(single letters)  sendmmsg(trains with cars of one length)  …
//! ```

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

use super::limits::{BATCH_MAX, CAR_BYTES_MAX, TRAIN_BYTES_MAX};
use super::udp::own_address;

/// Answers that are to be sent.
pub(crate) struct Outbox {
    letters: Vec<Letter>,
    used: usize,
    /// The letters in the order in which they are sent.
    order: Vec<Place>,
    trains: Vec<Train>,
    to: Vec<Option<SockaddrStorage>>,
    signature: Signature,
    alone: MultiHeaders<SockaddrStorage>,
    coupled: MultiHeaders<SockaddrStorage>,
}

/// How many answers went, and as how many packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    pub answers: usize,
    pub packets: usize,
}

struct Letter {
    bytes: Vec<u8>,
    to: SocketAddr,
    local: IpAddr,
}

/// Whether answers must say from which address they come: those of a socket that is bound to all of them.
#[derive(Clone, Copy)]
enum Signature {
    None,
    V4,
    V6,
}

/// Sorts letters: a number of the client, and the longest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    client: u64,
    shortness: usize,
    letter: usize,
}

/// Places of `order` whose letters go as one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Train {
    begin: usize,
    end: usize,
    /// Length of all letters but the last; 0 for a letter that goes alone.
    car: u16,
}

impl Outbox {
    /// Room for `count` answers at a socket that is bound to `bound`.
    pub fn new(count: usize, bound: SocketAddr) -> Self {
        let count = count.min(BATCH_MAX);
        let letter = || Letter {
            bytes: Vec::new(),
            to: bound,
            local: bound.ip(),
        };
        let signature = match (own_address(bound), bound) {
            (Some(_), _) => Signature::None,
            (None, SocketAddr::V4(_)) => Signature::V4,
            (None, SocketAddr::V6(_)) => Signature::V6,
        };
        // The kernel refuses room for control messages that has none in it.
        let (alone, coupled) = match signature {
            Signature::None => (None, cmsg_space!(u16)),
            Signature::V4 => (Some(cmsg_space!(in_pktinfo)), cmsg_space!(u16, in_pktinfo)),
            Signature::V6 => (
                Some(cmsg_space!(in6_pktinfo)),
                cmsg_space!(u16, in6_pktinfo),
            ),
        };
        Outbox {
            letters: std::iter::repeat_with(letter).take(count).collect(),
            used: 0,
            order: Vec::with_capacity(count),
            trains: Vec::with_capacity(count),
            to: Vec::with_capacity(count),
            signature,
            alone: MultiHeaders::preallocate(count, alone),
            // A train has two letters at least.
            coupled: MultiHeaders::preallocate(count / 2, Some(coupled)),
        }
    }

    /// The buffer for an answer; it counts when it is [kept](Outbox::keep).
    pub fn next(&mut self, to: SocketAddr, local: IpAddr) -> &mut Vec<u8> {
        // There is a letter for each datagram of a batch.
        let at = self.used.min(self.letters.len() - 1);
        let letter = &mut self.letters[at];
        (letter.to, letter.local) = (to, local);
        letter.bytes.clear();
        &mut letter.bytes
    }

    /// The answer in the last buffer is to be sent.
    pub fn keep(&mut self) {
        self.used = (self.used + 1).min(self.letters.len());
    }

    /// Sends what was kept. What the socket has no room for is lost, as datagrams are.
    pub fn send(&mut self, socket: &UdpSocket) -> Sent {
        self.arrange();
        self.dispatch(socket);
        Sent {
            answers: std::mem::take(&mut self.used),
            packets: self.trains.len(),
        }
    }

    fn dispatch(&mut self, socket: &UdpSocket) {
        let mut begin = 0;
        while begin < self.trains.len() {
            let first = self.trains[begin];
            let local = self.letter(first.begin).local;
            let same =
                |train: &&Train| train.car == first.car && self.letter(train.begin).local == local;
            let end = begin + self.trains[begin..].iter().take_while(same).count();
            begin += match self.send_trains(socket, begin..end, local) {
                Ok(sent) => sent.max(1),
                Err(error) if first.car > 0 && is_beyond_trains(error) => {
                    self.uncouple(begin);
                    0
                }
                // One that cannot be sent holds up no other.
                Err(_) => 1,
            };
        }
    }

    fn letter(&self, place: usize) -> &Letter {
        &self.letters[self.order[place].letter]
    }

    /// Puts letters to one client beside each other, and makes trains of them.
    fn arrange(&mut self) {
        let letters = self.letters[..self.used].iter().enumerate();
        let place = |(at, letter): (usize, &Letter)| Place {
            client: number_of(letter.to),
            shortness: usize::MAX - letter.bytes.len(),
            letter: at,
        };
        self.order.clear();
        self.order.extend(letters.map(place));
        self.order.sort_unstable();
        self.trains.clear();
        let mut begin = 0;
        while begin < self.order.len() {
            let train = self.train(begin);
            self.trains.push(train);
            begin = train.end;
        }
        self.trains.sort_unstable_by_key(|train| train.car);
    }

    /// The longest train from a place on.
    fn train(&self, begin: usize) -> Train {
        let first = self.letter(begin);
        let length = first.bytes.len();
        let (mut end, mut room) = (begin + 1, TRAIN_BYTES_MAX.saturating_sub(length));
        let mut open = (1..=CAR_BYTES_MAX).contains(&length);
        while open && end < self.order.len() {
            let next = self.letter(end);
            let bytes = next.bytes.len();
            if (next.to, next.local) != (first.to, first.local) || bytes == 0 || bytes > room {
                break;
            }
            (end, room) = (end + 1, room - bytes);
            open = bytes == length;
        }
        let car = if end - begin > 1 { length as u16 } else { 0 };
        Train { begin, end, car }
    }

    /// The letters of a train go one by one, in its place.
    fn uncouple(&mut self, at: usize) {
        let train = self.trains[at];
        let alone = (train.begin..train.end).map(|begin| Train {
            begin,
            end: begin + 1,
            car: 0,
        });
        self.trains.splice(at..=at, alone);
    }

    /// Sends trains with cars of one length from one address; says how many were taken.
    fn send_trains(
        &mut self,
        socket: &UdpSocket,
        trains: Range<usize>,
        local: IpAddr,
    ) -> nix::Result<usize> {
        let (letters, order, trains) = (&self.letters, &self.order, &self.trains[trains]);
        let slices: [IoSlice<'_>; BATCH_MAX] = std::array::from_fn(|at| {
            let letter = order.get(at).map(|place| &letters[place.letter]);
            IoSlice::new(letter.map_or(&[], |letter| &letter.bytes))
        });
        let mut packets: [&[IoSlice<'_>]; BATCH_MAX] = [&[]; BATCH_MAX];
        self.to.clear();
        for (packet, train) in packets.iter_mut().zip(trains) {
            *packet = &slices[train.begin..train.end];
            let to = letters[order[train.begin].letter].to;
            self.to.push(Some(to.into()));
        }
        let car = trains.first().map_or(0, |train| train.car);
        let cut = ControlMessage::UdpGsoSegments(&car);
        let (v4, v6) = (info_v4(local), info_v6(local));
        let all = match self.signature {
            Signature::None => &[cut][..],
            Signature::V4 => &[cut, ControlMessage::Ipv4PacketInfo(&v4)],
            Signature::V6 => &[cut, ControlMessage::Ipv6PacketInfo(&v6)],
        };
        let (headers, control) = match car {
            0 => (&mut self.alone, &all[1..]),
            _ => (&mut self.coupled, all),
        };
        let (fd, packets) = (socket.as_raw_fd(), packets[..trains.len()].iter());
        let sent = sendmmsg(
            fd,
            headers,
            packets,
            &self.to,
            control,
            MsgFlags::MSG_DONTWAIT,
        );
        sent.map(|sent| sent.count())
    }
}

fn info_v4(local: IpAddr) -> in_pktinfo {
    let IpAddr::V4(local) = local.to_canonical() else {
        return info_v4(Ipv4Addr::UNSPECIFIED.into());
    };
    in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: in_addr {
            s_addr: u32::from(local).to_be(),
        },
        ipi_addr: in_addr { s_addr: 0 },
    }
}

fn info_v6(local: IpAddr) -> in6_pktinfo {
    let local = match local {
        IpAddr::V4(local) => local.to_ipv6_mapped(),
        IpAddr::V6(local) => local,
    };
    in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: Ipv6Addr::octets(&local),
        },
        ipi6_ifindex: 0,
    }
}

/// A number that a client has always; others seldom have it, too.
fn number_of(client: SocketAddr) -> u64 {
    let address = match client.ip() {
        IpAddr::V4(address) => u64::from(u32::from(address)),
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    address.rotate_left(16) ^ u64::from(client.port())
}

/// What the kernel says when a train cannot go this way, and its letters can: a link that computes no checksums, a path
/// for short packets only.
fn is_beyond_trains(error: Errno) -> bool {
    matches!(
        error,
        Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP
    )
}

#[cfg(test)]
mod tests;
