//! Hears what the kernel says about every change of nf_tables in one network namespace, and when.
//!
//! This is how any proxy is measured from outside: a change is committed when the kernel has announced the new address
//! and then the new generation of the rule set. A proxy on the old iptables interface is not heard here.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt,
    socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use portolan_kernel::topology::Host;

/// The multicast group of nf_tables (NFNLGRP_NFTABLES, 7) as a bit.
const GROUP: u32 = 1 << 6;
/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN` of linux/netfilter.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const HEADER_LEN: usize = 16;
/// What may wait to be heard: kube-proxy's nftables mode announces some megabytes for one change at 10,000 Services.
const WAITING_BYTES: usize = 128 << 20;
/// The kernel's notifications of one transaction come in datagrams of at most this size.
const DATAGRAM_BYTES: usize = 1 << 20;

/// How often the listening thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A listening thread. It ends when this is dropped: the kernel announces every element of every namespace as long as
/// somebody listens in any of them, and a first load takes ten times as long with it.
pub struct Monitor {
    shared: Arc<(Mutex<Wanted>, Condvar)>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Default)]
struct Wanted {
    pattern: Option<[u8; 4]>,
    named: bool,
    committed: Option<Instant>,
    lost: bool,
}

impl Monitor {
    /// Starts listening on a host.
    pub fn start(host: &Host) -> Result<Self, String> {
        let socket = host.run(open).map_err(|e| e.to_string())?;
        let socket = socket.map_err(|e| format!("cannot listen to nf_tables: {e}"))?;
        let shared = Arc::new((Mutex::default(), Condvar::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (for_thread, until) = (Arc::clone(&shared), Arc::clone(&ended));
        let thread = std::thread::spawn(move || listen(&socket, &for_thread, &until));
        Ok(Monitor {
            shared,
            ended,
            thread: Some(thread),
        })
    }

    /// From now on waits for a transaction that names this address (of an endpoint or a Service).
    pub fn want(&self, address: std::net::Ipv4Addr) {
        *lock(&self.shared.0) = Wanted {
            pattern: Some(address.octets()),
            ..Wanted::default()
        };
    }

    /// When the transaction was committed; `None` if that has not happened within `patience`.
    pub fn committed(&self, patience: Duration) -> Result<Option<Instant>, String> {
        let waiting = |wanted: &mut Wanted| wanted.committed.is_none() && !wanted.lost;
        let (mutex, condition) = &*self.shared;
        let result = condition.wait_timeout_while(lock(mutex), patience, waiting);
        let (wanted, _) = result.unwrap_or_else(PoisonError::into_inner);
        match wanted.lost {
            true => Err("the kernel announced more than could be heard".into()),
            false => Ok(wanted.committed),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open() -> nix::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkNetFilter,
    )?;
    if setsockopt(&socket, RcvBufForce, &WAITING_BYTES).is_err() {
        setsockopt(&socket, RcvBuf, &WAITING_BYTES)?;
    }
    let look = TimeVal::microseconds(LOOK.as_micros() as i64);
    setsockopt(&socket, ReceiveTimeout, &look)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, shared: &(Mutex<Wanted>, Condvar), ended: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    while !ended.load(Ordering::Relaxed) {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let now = Instant::now();
                let mut wanted = lock(&shared.0);
                if hear(&mut wanted, &buffer[..length], now) {
                    shared.1.notify_all();
                }
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::ENOBUFS) => {
                lock(&shared.0).lost = true;
                shared.1.notify_all();
            }
            Err(_) => return,
        }
    }
}

/// Takes in one datagram; whether what was waited for is complete with it.
fn hear(wanted: &mut Wanted, datagram: &[u8], now: Instant) -> bool {
    let Some(pattern) = wanted.pattern.filter(|_| wanted.committed.is_none()) else {
        return false;
    };
    for (kind, body) in messages(datagram) {
        match kind {
            NEW_GENERATION if wanted.named => {
                wanted.committed = Some(now);
                return true;
            }
            NEW_GENERATION => {}
            _ => wanted.named |= body.windows(4).any(|four| four == pattern),
        }
    }
    false
}

/// The messages of a datagram: their kind and what follows the header.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let header = rest.get(..HEADER_LEN)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let body = rest.get(HEADER_LEN..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_change_is_committed_by_the_generation_after_its_address() {
        let (other, element) = (
            message(10 << 8 | 12, &[9; 5]),
            message(10 << 8 | 12, &[0, 0, 10, 128, 0, 1, 7]),
        );
        let generation = message(NEW_GENERATION, &[0; 4]);
        let mut wanted = Wanted {
            pattern: Some([10, 128, 0, 1]),
            ..Wanted::default()
        };
        let now = Instant::now();
        assert!(!hear(
            &mut wanted,
            &[other, generation.clone()].concat(),
            now
        ));
        assert!(!hear(&mut wanted, &element, now));
        assert!(hear(&mut wanted, &generation, now));
        assert_eq!(wanted.committed, Some(now));
    }

    #[test]
    fn broken_datagrams_are_the_end_of_their_messages() {
        for bytes in [&b"short"[..], &[0; 16], &[255; 64]] {
            assert_eq!(
                messages(bytes).filter(|(_, body)| !body.is_empty()).count(),
                0
            );
        }
    }
}
