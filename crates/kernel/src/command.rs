//! Starting programs inside namespaces: an extension of `std::process::Command`.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{getegid, geteuid};

use crate::error::{Error, Result};
use crate::namespace;
use crate::netns::Netns;
use crate::process::PidFd;

/// What can be arranged for a program between fork and exec. The order of the calls is the order of the actions.
pub trait CommandNamespaces {
    /// Starts the program in this network namespace. Needs no privilege if the calling thread is there already.
    fn in_netns(&mut self, netns: &Netns) -> Result<&mut Command>;
    /// Starts the program in new namespaces of these kinds, inside a user namespace if the caller has no privileges.
    /// With a new PID namespace only the program's children are in it.
    fn in_new_namespaces(&mut self, kinds: CloneFlags) -> &mut Command;
    /// The program gets this signal when the thread that started it ends.
    fn die_with_parent(&mut self, signal: Signal) -> &mut Command;
    /// The program leads a session of its own (and so a process group).
    fn own_session(&mut self) -> &mut Command;
    /// As [`Self::own_session`], and standard input is its controlling terminal.
    fn own_terminal(&mut self) -> &mut Command;
    /// The program inherits `fd` under the number `number`.
    fn pass_fd(&mut self, fd: OwnedFd, number: RawFd) -> &mut Command;
    /// The program starts in the mount namespace of another process, in directory `cwd` there.
    fn in_mounts_of(&mut self, process: PidFd, cwd: &Path) -> &mut Command;
    /// The program starts with no signal blocked (a parent that reads signals from a descriptor blocks them).
    fn unblock_signals(&mut self) -> &mut Command;
}

impl CommandNamespaces for Command {
    fn in_netns(&mut self, netns: &Netns) -> Result<&mut Command> {
        if netns.is_same(&Netns::current()?)? {
            return Ok(self);
        }
        let fd = netns
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Error::call("duplicate a namespace descriptor", e))?;
        Ok(before_exec(self, move || {
            Ok(setns(&fd, CloneFlags::CLONE_NEWNET)?)
        }))
    }

    fn in_new_namespaces(&mut self, kinds: CloneFlags) -> &mut Command {
        let (uid, gid, privileged) = (geteuid(), getegid(), namespace::is_privileged());
        before_exec(self, move || {
            if privileged {
                return Ok(unshare(kinds)?);
            }
            unshare(kinds | CloneFlags::CLONE_NEWUSER)?;
            namespace::map_to_root(uid, gid)
                .map_err(|e| std::io::Error::from_raw_os_error(e.errno().unwrap_or(libc::EPERM)))
        })
    }

    fn die_with_parent(&mut self, signal: Signal) -> &mut Command {
        before_exec(self, move || Ok(nix::sys::prctl::set_pdeathsig(signal)?))
    }

    fn own_session(&mut self) -> &mut Command {
        before_exec(self, || Ok(nix::unistd::setsid().map(drop)?))
    }

    fn own_terminal(&mut self) -> &mut Command {
        before_exec(self, || {
            nix::unistd::setsid()?;
            // SAFETY: TIOCSCTTY takes an integer; descriptor 0 is whatever the program was given as standard input.
            match unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    }

    fn pass_fd(&mut self, fd: OwnedFd, number: RawFd) -> &mut Command {
        before_exec(self, move || {
            if fd.as_raw_fd() == number {
                fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
                return Ok(());
            }
            // SAFETY: dup2 of two integers; the target number is ours to choose in the child, before exec.
            match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            }
        })
    }

    fn in_mounts_of(&mut self, process: PidFd, cwd: &Path) -> &mut Command {
        let cwd = cwd.to_path_buf();
        before_exec(self, move || {
            setns(process.as_fd(), CloneFlags::CLONE_NEWNS)?;
            Ok(nix::unistd::chdir(&cwd)?)
        })
    }

    fn unblock_signals(&mut self) -> &mut Command {
        before_exec(self, || {
            Ok(sigprocmask(
                SigmaskHow::SIG_SETMASK,
                Some(&SigSet::empty()),
                None,
            )?)
        })
    }
}

fn before_exec(
    command: &mut Command,
    action: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
) -> &mut Command {
    // SAFETY: the actions of this module make system calls on values that were prepared before the fork. The two
    // that may allocate (the uid maps' paths) rely on the C library keeping its allocator usable in a forked child.
    unsafe { command.pre_exec(action) }
}
