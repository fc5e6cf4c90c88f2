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

/// Closes every descriptor that the parent has left open, but the standard streams and `kept`: a daemon must not hold
/// its starter's pipes. To be called before anything of this process is opened.
pub fn close_others(kept: RawFd) -> io::Result<()> {
    let close = |first: RawFd, last: libc::c_uint| -> io::Result<()> {
        // SAFETY: integers only. What is closed came from the parent and has no owner in this process yet,
        // by this function's contract.
        let closed =
            unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, last, 0) };
        nix::errno::Errno::result(closed)
            .map(drop)
            .map_err(io::Error::from)
    };
    if kept > 3 {
        close(3, kept as libc::c_uint - 1)?;
    }
    close(kept.max(2) + 1, libc::c_uint::MAX)
}

fn refuse(number: RawFd, why: &str) -> io::Error {
    io::Error::other(format!("descriptor {number} {why}"))
}
