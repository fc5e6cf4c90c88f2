//! A link that lives as long as its handle: the kernel takes it away, with its addresses, when the process that holds it
//! ends, however it ends. A dummy link would stay.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;

use crate::error::{Error, Result};

/// The device of the kernel's tun driver.
const DEVICE: &str = "/dev/net/tun";

/// `IFNAMSIZ`.
const NAME_LEN: usize = 16;

/// `struct ifreq` of linux/if.h, as `TUNSETIFF` reads it: name and flags, padded to the size of the union.
#[repr(C)]
struct Request {
    name: [u8; NAME_LEN],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// A link that carries no packets: it is there for its addresses.
#[derive(Debug)]
pub struct Tun {
    _device: File,
}

impl Tun {
    /// Makes the link `name` in the network namespace of the calling thread; it is down.
    pub fn new(name: &str) -> Result<Tun> {
        let path = Path::new(DEVICE);
        let device = OpenOptions::new().read(true).write(true).open(path);
        let device = device.map_err(|e| Error::file("open", path, e))?;
        let mut request = Request {
            name: [0; NAME_LEN],
            flags: (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short,
            rest: [0; 22],
        };
        if name.is_empty() || name.len() >= NAME_LEN {
            return Err(Error::Protocol(format!(
                "{name:?} can't be the name of a link: 1 to 15 characters"
            )));
        }
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the descriptor is open, and `request` is as large as the `struct ifreq` that the kernel copies.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
        nix::errno::Errno::result(done)
            .map_err(|e| Error::call(format!("create the link {name}"), e))?;
        Ok(Tun { _device: device })
    }
}
