//! What a device does for the kernel's stack, as `ethtool -K` sets it: topologies of tests have virtual devices behave as
//! real ones do.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::error::{Error, Result};

/// Something that can be switched on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Checksums of packets that are sent: a virtual device leaves them unfinished.
    TxChecksum,
    /// Packets that come are joined; the end of a veth also takes frames of XDP then.
    Gro,
}

impl Offload {
    /// ETHTOOL_STXCSUM and ETHTOOL_SGRO of linux/ethtool.h.
    const fn command(self) -> u32 {
        match self {
            Offload::TxChecksum => 0x17,
            Offload::Gro => 0x2c,
        }
    }
}

/// SIOCETHTOOL of linux/sockios.h.
const ETHTOOL: libc::Ioctl = 0x8946 as libc::Ioctl;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches it for a device of the network namespace that the calling thread is in.
pub fn set(device: &str, what: Offload, on: bool) -> Result<()> {
    let told = |e| Error::call(format!("switch {what:?} of {device}"), e);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None);
    let socket =
        socket.map_err(|error| told(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
    let mut value = Value {
        command: what.command(),
        data: u32::from(on),
    };
    // SAFETY: all zeros are a value of this struct of numbers and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(told(Errno::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the kernel reads `request` and the value that it points to; both live until the call is over.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), ETHTOOL, &raw mut request) };
    Errno::result(done).map(drop).map_err(told)
}
