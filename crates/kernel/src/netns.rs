//! Network namespaces without names: a namespace lives as long as a file descriptor or a process holds it,
//! so nothing is left behind when its holder dies.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

/// A network namespace, held by a file descriptor.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// A new, empty network namespace whose loopback is down. The calling thread stays where it is.
    pub fn new() -> Result<Netns> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|e| Error::call("create a network namespace", e))?;
            Netns::current()
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Netns> {
        Netns::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of a process of our PID namespace.
    pub fn of_process(pid: u32) -> Result<Netns> {
        Netns::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace behind a file of nsfs (a link in /proc or a bind mount).
    pub fn open(path: &Path) -> Result<Netns> {
        let file = File::open(path).map_err(|e| Error::file("open", path, e))?;
        Ok(Netns { fd: file.into() })
    }

    /// Takes over a descriptor that is known to be a network namespace (passed by another process).
    pub fn from_fd(fd: OwnedFd) -> Netns {
        Netns { fd }
    }

    /// Whether both are handles of one namespace.
    pub fn is_same(&self, other: &Netns) -> Result<bool> {
        let number = |netns: &Netns| {
            let stat = nix::sys::stat::fstat(&netns.fd);
            let stat = stat.map_err(|e| Error::call("look at a namespace descriptor", e))?;
            Ok((stat.st_dev, stat.st_ino))
        };
        Ok(number(self)? == number(other)?)
    }

    /// A second handle of the same namespace.
    pub fn try_clone(&self) -> Result<Netns> {
        let fd = self
            .fd
            .try_clone()
            .map_err(|e| Error::call("duplicate a namespace descriptor", e))?;
        Ok(Netns { fd })
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET)
            .map_err(|e| Error::call("enter a network namespace", e))
    }

    /// Runs `work` inside the namespace, on a thread of its own. A panic of `work` continues in the caller.
    /// Sockets that `work` creates and returns stay sockets of the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter()?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<Netns> for OwnedFd {
    fn from(netns: Netns) -> OwnedFd {
        netns.fd
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Runs `work` on a new thread and waits for it: what it does to its own namespaces ends with it.
fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::call("start a thread", e))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
