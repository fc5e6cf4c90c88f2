//! Signs of life in conntrack: the kernel tells of new flows, and single flows are looked at.
//!
//! A look at one flow costs the same however many there are, which a walk through the table does not.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use portolan_model::health::{FlowKey, FlowState};
use portolan_model::{ApplyError, Family, Listener, Protocol};

use super::entry::*;
use super::{Conntrack, delete, list};
use crate::nfnetlink::socket::failed;
use crate::nfnetlink::wire::{CTNETLINK, Message, Writer, nfproto};

/// `NFNLGRP_CONNTRACK_NEW` of linux/netfilter/nfnetlink.h.
const GROUP_NEW: u32 = 1;
/// Room for messages that wait: about a thousand flows. What does not fit is not seen, which is no harm.
const RECEIVE_BYTES: libc::c_int = 1 << 20;
/// One message is a few hundred bytes.
const DATAGRAM_BYTES: usize = 16 << 10;

/// The new flows of one network namespace, as its kernel tells of them.
pub struct NewFlows {
    socket: Socket,
    buffer: Vec<u8>,
}

impl NewFlows {
    /// In the network namespace that the calling thread is in; nothing is heard yet.
    pub fn open() -> Result<Self, ApplyError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_non_blocking(true)?;
            socket.set_rx_buf_sz(RECEIVE_BYTES)?;
            Ok(socket)
        };
        Ok(NewFlows {
            socket: open().map_err(failed("cannot open a netlink socket to conntrack"))?,
            buffer: Vec::with_capacity(DATAGRAM_BYTES),
        })
    }

    /// Lets the kernel tell of new flows; it costs some microseconds for each of them.
    pub fn listen(&self) -> Result<(), ApplyError> {
        let doing = failed("cannot listen to new flows of conntrack");
        self.socket.add_membership(GROUP_NEW).map_err(doing)
    }

    /// Lets the kernel be quiet, and throws away what it has told.
    pub fn rest(&mut self) -> Result<(), ApplyError> {
        let doing = failed("cannot stop listening to new flows of conntrack");
        self.socket.drop_membership(GROUP_NEW).map_err(doing)?;
        while let Ok(true) = self.receive() {}
        Ok(())
    }

    /// Tells of the TCP connections among up to `most` new flows, without waiting: also of those that go to their
    /// destination by themselves. Says how many new flows there were: fewer than `most` means that nothing waits any more.
    pub fn take(
        &mut self,
        most: usize,
        mut tell: impl FnMut(FlowKey, Listener),
    ) -> Result<usize, ApplyError> {
        for count in 0..most {
            if !self.receive().map_err(failed("cannot hear conntrack"))? {
                return Ok(count);
            }
            for message in Message::all(&self.buffer) {
                if message.kind != CTNETLINK << 8 | MSG_NEW {
                    continue;
                }
                let told = Entry::read(message.attributes(), Protocol::Tcp)
                    .filter(|entry| entry.zone.is_none())
                    .and_then(|entry| Some((entry.key()?, replier(&entry))));
                if let Some((key, replier)) = told {
                    tell(key, replier);
                }
            }
        }
        Ok(most)
    }

    /// The next datagram; false when there is none.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            // More came than there was room for: what is lost is lost.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for NewFlows {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::os::fd::AsRawFd for NewFlows {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}

impl Conntrack {
    /// What has become of one flow.
    pub fn look(&mut self, key: &FlowKey) -> Result<FlowState, ApplyError> {
        let mut state = FlowState::Gone;
        let question = |out: &mut Writer| {
            out.begin_conntrack(MSG_GET, 0, nfproto(Family::of(key.destination.ip())));
            let (source, destination) = (key.source, key.destination);
            write_tuple(out, TUPLE_ORIG, Protocol::Tcp, source, destination);
        };
        self.walk.ask(
            "cannot look at a flow of conntrack",
            question,
            |attributes| {
                if let Some(entry) = Entry::read(attributes, Protocol::Tcp) {
                    state = entry.state();
                }
            },
        )?;
        Ok(state)
    }

    /// Forgets the connections to these endpoints that have not been answered, so that their clients' next packets are
    /// balanced anew. Says how many. One walk in each family; an entry that it misses, because the table moves under
    /// it, stays.
    pub fn leave(&mut self, listeners: &BTreeSet<Listener>) -> Result<u64, ApplyError> {
        let mut left = 0;
        for family in Family::ALL {
            let concerns = |l: &Listener| Family::of(l.address.ip()) == family;
            if listeners.iter().any(concerns) {
                left += self.leave_family(family, listeners)?;
            }
        }
        Ok(left)
    }

    fn leave_family(
        &mut self,
        family: Family,
        listeners: &BTreeSet<Listener>,
    ) -> Result<u64, ApplyError> {
        let (mut left, mut failed) = (0, None);
        let question = |out: &mut Writer| {
            list(out, family, Protocol::Tcp);
            // Nor by IPS_DST_NAT: virtual servers translate without it.
            out.number(STATUS, 0);
            out.number(STATUS_MASK, SEEN_REPLY);
        };
        let changes = &mut self.changes;
        let doing = "cannot list the connections to endpoints that do not answer";
        self.walk.ask(doing, question, |attributes| {
            let Some(entry) = Entry::read(attributes, Protocol::Tcp) else {
                return;
            };
            // An older kernel does not narrow by status.
            let movable = entry.status & SEEN_REPLY == 0 && entry.flow.is_translated();
            if failed.is_none() && movable && listeners.contains(&replier(&entry)) {
                match delete(changes, family, &entry) {
                    Ok(existed) => left += u64::from(existed),
                    Err(error) => failed = Some(error),
                }
            }
        })?;
        failed.map_or(Ok(left), Err)
    }
}

fn replier(entry: &Entry<'_>) -> Listener {
    Listener {
        protocol: entry.flow.protocol,
        address: entry.flow.replier,
    }
}
