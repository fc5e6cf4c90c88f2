//! Sockets that the parent process left open for this one, by their numbers.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

/// Takes over a listening socket. Its number must be named once only; later children don't get it.
pub fn listener(number: RawFd) -> io::Result<TcpListener> {
    let refuse = |why: &str| io::Error::other(format!("descriptor {number} {why}"));
    if number <= 2 {
        return Err(refuse("is one of the standard streams"));
    }
    // SAFETY: only used while this function runs, and a number that is not open makes fcntl fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|error| refuse(error.desc()))?;
    if !getsockopt(&borrowed, AcceptConn).map_err(|error| refuse(error.desc()))? {
        return Err(refuse("is not a listening socket"));
    }
    // SAFETY: the number is open (fcntl has just succeeded), and it was passed to this process to be owned by it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
}
