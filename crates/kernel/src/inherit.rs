//! Sockets that the parent process left open for this one, by their numbers.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};

/// Takes over a listening socket. Its number must be named once only; later children don't get it.
pub fn listener(number: RawFd) -> io::Result<TcpListener> {
    let socket = descriptor(number)?;
    match getsockopt(&socket, AcceptConn) {
        Ok(true) => Ok(socket.into()),
        Ok(false) => Err(refuse(number, "is not a listening socket")),
        Err(error) => Err(refuse(number, error.desc())),
    }
}

/// Takes over a descriptor of any kind. Its number must be named once only; later children don't get it.
pub fn descriptor(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(refuse(number, "is one of the standard streams"));
    }
    // SAFETY: only used while this function runs, and a number that is not open makes fcntl fail with EBADF.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|error| refuse(number, error.desc()))?;
    // SAFETY: the number is open (fcntl has just succeeded), and it was passed to this process to be owned by it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn refuse(number: RawFd, why: &str) -> io::Error {
    io::Error::other(format!("descriptor {number} {why}"))
}
