//! Noticing cheaply whether rules have changed since we looked, without reading them.
#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use portolan_dataplane::iptables::Table;
use portolan_model::ApplyError;

use super::Variant;
use crate::nfnetlink::socket::Nfnetlink;

/// How the rules of a network namespace look from far away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fingerprint {
    /// nf_tables counts transactions: the same number means the same rules.
    Generation(u32),
    /// ip_tables tells how many rules each table has and how many bytes they take. An exchange of a rule for one of the
    /// same size goes unnoticed.
    Sizes(Vec<(u32, u32)>),
}

impl Fingerprint {
    /// Whether `self` is what `before` becomes by so many commits and nothing else.
    pub fn follows(&self, before: &Fingerprint, commits: usize) -> bool {
        match (self, before) {
            (Fingerprint::Generation(now), Fingerprint::Generation(before)) => {
                now.wrapping_sub(*before) as usize == commits
            }
            _ => true,
        }
    }
}

/// Takes fingerprints of one network namespace.
pub(super) enum Watch {
    Generation(Box<Nfnetlink>),
    Sizes {
        v4: std::os::fd::OwnedFd,
        v6: std::os::fd::OwnedFd,
    },
}

impl Watch {
    /// Of the network namespace of the calling thread.
    pub fn open(variant: Variant) -> Result<Self, ApplyError> {
        if variant == Variant::Nft {
            return Ok(Watch::Generation(Box::new(Nfnetlink::open()?)));
        }
        let open = |family| {
            socket(
                family,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Raw,
            )
            .map_err(|e| ApplyError {
                doing: "cannot open a raw socket (--proxy-mode iptables needs CAP_NET_RAW)".into(),
                words: e.to_string(),
            })
        };
        Ok(Watch::Sizes {
            v4: open(AddressFamily::Inet)?,
            v6: open(AddressFamily::Inet6)?,
        })
    }

    /// How the rules look now.
    pub fn fingerprint(&mut self) -> Result<Fingerprint, ApplyError> {
        match self {
            Watch::Generation(socket) => Ok(Fingerprint::Generation(socket.generation()?)),
            Watch::Sizes { v4, v6 } => {
                let of = |socket: &std::os::fd::OwnedFd, level| {
                    Table::ALL.map(|table| sizes(socket, level, table))
                };
                let all = of(v4, libc::SOL_IP)
                    .into_iter()
                    .chain(of(v6, libc::SOL_IPV6));
                Ok(Fingerprint::Sizes(all.collect()))
            }
        }
    }
}

/// `struct ipt_getinfo` of linux/netfilter_ipv4/ip_tables.h; IPv6 has the same.
#[repr(C)]
struct Info {
    name: [u8; 32],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;

/// Number and bytes of the rules of one table; nothing for a table that does not stand.
fn sizes(socket: &impl AsRawFd, level: libc::c_int, table: Table) -> (u32, u32) {
    // SAFETY: the structure consists of integers, for which zeros are values.
    let mut info: Info = unsafe { zeroed() };
    info.name[..table.name().len()].copy_from_slice(table.name().as_bytes());
    let mut length = size_of::<Info>() as libc::socklen_t;
    let place = (&raw mut info).cast::<libc::c_void>();
    // SAFETY: the kernel reads and writes at most `length` bytes at `place`, which is as large.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, GET_INFO, place, &raw mut length) };
    match done {
        0 => (info.num_entries, info.size),
        _ => {
            tracing::trace!(table = table.name(), error = %io::Error::last_os_error(), "no such table");
            (0, 0)
        }
    }
}
