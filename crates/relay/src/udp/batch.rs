//! Many datagrams by one system call (recvmmsg, sendmmsg), and those of one length as one packet that the kernel cuts as
//! late as it can (UDP_SEGMENT).

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg, sendmsg,
};

use crate::limits::{BATCH_MAX, DATAGRAM_BYTES_MAX, TRAIN_BYTES_MAX};

/// Room for one batch; the system gives memory to what is really used only.
pub(super) struct Batch {
    room: Vec<u8>,
    /// Length and source of what was received.
    got: Vec<(usize, Option<SocketAddr>)>,
}

thread_local! {
    static BATCH: RefCell<Batch> = RefCell::new(Batch {
        room: vec![0; BATCH_MAX * DATAGRAM_BYTES_MAX],
        got: Vec::with_capacity(BATCH_MAX),
    });
}

/// Works with this thread's room for a batch. `work` must not call this again.
pub(super) fn with<T>(work: impl FnOnce(&mut Batch) -> T) -> T {
    BATCH.with_borrow_mut(work)
}

impl Batch {
    /// Takes the datagrams that wait in `socket`, at least one and at most [`BATCH_MAX`].
    pub fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<()> {
        self.got.clear();
        let mut rooms: Vec<[IoSliceMut<'_>; 1]> = self
            .room
            .chunks_mut(DATAGRAM_BYTES_MAX)
            .map(|room| [IoSliceMut::new(room)])
            .collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(BATCH_MAX, None);
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            rooms.iter_mut(),
            MsgFlags::MSG_DONTWAIT,
            None,
        )?;
        let read = received.map(|message| (message.bytes, message.address.and_then(address_of)));
        self.got.extend(read);
        Ok(())
    }

    /// What was received, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], Option<SocketAddr>)> {
        let rooms = self.room.chunks(DATAGRAM_BYTES_MAX);
        let cut = |(room, (length, source)): (&'_ [u8], &(usize, Option<SocketAddr>))| {
            (*length.min(&room.len()), *source)
        };
        let rooms = rooms.zip(&self.got);
        rooms.map(move |(room, got)| {
            let (length, source) = cut((room, got));
            (&room[..length], source)
        })
    }

    /// Tells the datagrams of each client that follow each other.
    pub fn by_source(&self, mut tell: impl FnMut(SocketAddr, &[&[u8]])) {
        let all: Vec<(&[u8], Option<SocketAddr>)> = self.datagrams().collect();
        for run in all.chunk_by(|a, b| a.1 == b.1) {
            if let Some((_, Some(source))) = run.first() {
                let datagrams: Vec<&[u8]> = run.iter().map(|(bytes, _)| *bytes).collect();
                tell(*source, &datagrams);
            }
        }
    }
}

/// Sends datagrams to `to`, or to where the socket is connected; says how many were taken.
pub(super) fn send(
    socket: &impl AsRawFd,
    datagrams: &[&[u8]],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    if is_train(datagrams) {
        match send_train(socket, datagrams, to) {
            Ok(()) => return Ok(datagrams.len()),
            Err(error) if !is_beyond_trains(error) => return Err(error.into()),
            Err(_) => {}
        }
    }
    send_each(socket, datagrams, to)
}

/// Whether these can be one packet until it is cut: the last one may be shorter than the others.
fn is_train(datagrams: &[&[u8]]) -> bool {
    let [first, .., last] = datagrams else {
        return false;
    };
    let but_last = &datagrams[..datagrams.len() - 1];
    let same = but_last.iter().all(|other| other.len() == first.len());
    let fits = datagrams.len() <= BATCH_MAX && datagrams.len() * first.len() <= TRAIN_BYTES_MAX;
    same && fits && !last.is_empty() && last.len() <= first.len()
}

/// All of them, or none.
fn send_train(
    socket: &impl AsRawFd,
    datagrams: &[&[u8]],
    to: Option<SocketAddr>,
) -> nix::Result<()> {
    let slices: Vec<IoSlice<'_>> = datagrams.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let length = datagrams.first().map_or(0, |first| first.len()) as u16;
    let to = to.map(SockaddrStorage::from);
    sendmsg(
        socket.as_raw_fd(),
        &slices,
        &[ControlMessage::UdpGsoSegments(&length)],
        MsgFlags::MSG_DONTWAIT,
        to.as_ref(),
    )
    .map(drop)
}

/// What the kernel says when a train cannot go this way, and its datagrams can: a link that computes no checksums,
/// datagrams that must be cut into fragments.
fn is_beyond_trains(error: Errno) -> bool {
    matches!(
        error,
        Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::ENOPROTOOPT | Errno::EOPNOTSUPP
    )
}

fn send_each(
    socket: &impl AsRawFd,
    datagrams: &[&[u8]],
    to: Option<SocketAddr>,
) -> io::Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = datagrams
        .iter()
        .map(|bytes| [IoSlice::new(bytes)])
        .collect();
    let to: Vec<Option<SockaddrStorage>> = vec![to.map(SockaddrStorage::from); datagrams.len()];
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(datagrams.len(), None);
    let sent = sendmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter(),
        to.as_slice(),
        [],
        MsgFlags::MSG_DONTWAIT,
    )?;
    Ok(sent.count())
}

fn address_of(address: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddrV4::from(*a));
    let v6 = || address.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a));
    v4.map(SocketAddr::V4).or_else(|| v6().map(SocketAddr::V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_one_length_goes_together() {
        let of = |lengths: &[usize]| {
            let room = vec![0; DATAGRAM_BYTES_MAX];
            let all: Vec<&[u8]> = lengths.iter().map(|length| &room[..*length]).collect();
            is_train(&all)
        };
        assert!(of(&[64, 64]) && of(&[64, 64, 63]) && of(&[1400; BATCH_MAX]));
        for alone in [
            &[][..],
            &[64],
            &[64, 65],
            &[64, 63, 64],
            &[64, 0],
            &[0, 0],
            &[64; BATCH_MAX + 1],
            &[TRAIN_BYTES_MAX / 2 + 1; 2],
        ] {
            assert!(!of(alone), "{alone:?}");
        }
    }
}
