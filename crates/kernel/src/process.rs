//! Processes: pidfds, parents, orphans and signals.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::error::{Error, Result};

/// A process that can't be mistaken for a later one with the same number.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
}

impl PidFd {
    /// The process with this number in our PID namespace.
    pub fn open(pid: u32) -> Result<PidFd> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; no memory is involved.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        let fd = Errno::result(fd).map_err(|e| Error::call(format!("open process {pid}"), e))?;
        // SAFETY: the kernel has just given us this descriptor and nobody else knows it.
        Ok(PidFd {
            fd: unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) },
        })
    }

    /// Sends a signal. A process that is gone is not an error.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        let (fd, signal_number) = (self.fd.as_raw_fd(), signal as libc::c_int);
        // SAFETY: a null siginfo is allowed (the kernel fills it as kill(2) does); the rest are integers.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd,
                signal_number,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(e) => Err(Error::call(format!("send {signal} to a process"), e)),
        }
    }

    /// Waits until the process has ended; false when it still runs after `limit`.
    pub fn wait_end(&self, limit: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let limit_ms = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut fds, limit_ms) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Error::call("wait for a process", e)),
            }
        }
    }

    /// Whether the process has not ended yet.
    pub fn is_running(&self) -> bool {
        matches!(self.wait_end(Duration::ZERO), Ok(false))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
}

impl End {
    /// The exit code as a shell or a container runtime reports it.
    pub fn code(self) -> i32 {
        match self {
            End::Exited(code) => code,
            End::Signaled(signal) => 128 + signal,
        }
    }
}

/// Ends this process quietly when it writes into a pipe that nobody reads any more, as programs for people do
/// (`portolan lab status | head -1`). Servers do not want this: they get an error instead.
pub fn end_with_broken_pipe() {
    use nix::sys::signal::{SigHandler, signal};
    // SAFETY: the default action replaces "ignore"; no handler of ours can run.
    let changed = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    debug_assert!(changed.is_ok(), "SIGPIPE has a default action");
}

/// Takes one child that has ended, if there is one. For programs that are the parent of orphans
/// (PID 1, subreapers) and therefore wait for every child in one place.
pub fn reap() -> Result<Option<(u32, End)>> {
    match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(pid, code)) => Ok(Some((pid.as_raw() as u32, End::Exited(code)))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => {
            Ok(Some((pid.as_raw() as u32, End::Signaled(signal as i32))))
        }
        Ok(_) | Err(Errno::ECHILD) => Ok(None),
        Err(e) => Err(Error::call("wait for a child", e)),
    }
}

/// Makes the caller the parent of its descendants' orphans.
pub fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| Error::call("become a subreaper", e))
}

/// Which side of [`fork_single`] the caller is on.
#[derive(Debug)]
pub enum Forked {
    /// The old process, with the child's number.
    Parent(u32),
    /// The new one.
    Child,
}

/// Forks. Panics when the process has more than one thread, in which case a fork would copy locks
/// that nobody will ever open.
pub fn fork_single() -> Result<Forked> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map(|tasks| tasks.count())
        .unwrap_or(1);
    assert_eq!(
        threads, 1,
        "invariant: a process forks before it starts threads"
    );
    // SAFETY: the process has one thread, so the child's memory is consistent.
    match unsafe { fork() }.map_err(|e| Error::call("fork", e))? {
        ForkResult::Parent { child } => Ok(Forked::Parent(child.as_raw() as u32)),
        ForkResult::Child => Ok(Forked::Child),
    }
}

/// Waits for one child.
pub fn wait(pid: u32) -> Result<End> {
    loop {
        match nix::sys::wait::waitpid(Pid::from_raw(pid as i32), None) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(End::Exited(code)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(End::Signaled(signal as i32)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Error::call(format!("wait for process {pid}"), e)),
        }
    }
}
