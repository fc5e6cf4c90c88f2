//! The children of a process that is PID 1 (the supervisor, a pod's shim): it must wait for orphans too,
//! so all waiting happens in one place. One thread calls [`Reaper::run`]; others start children and wait for theirs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::process::{End, reap};

/// The table of children.
#[derive(Default)]
pub struct Reaper {
    children: Mutex<Children>,
    change: Condvar,
}

#[derive(Default)]
struct Children {
    running: HashSet<u32>,
    ended: HashMap<u32, End>,
}

/// The signals that [`Reaper::run`] waits for.
fn watched() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT])
}

impl Reaper {
    /// Call this before any thread is started: the watched signals must be blocked in all of them.
    pub fn new() -> io::Result<Reaper> {
        watched().thread_block()?;
        Ok(Reaper::default())
    }

    /// Starts a child, which [`Self::wait`] must be called for.
    pub fn spawn(&self, command: &mut Command) -> io::Result<u32> {
        // The lock keeps `run` from taking the child before it is in the table.
        let mut children = self.lock();
        let pid = command.unblock_signals().spawn()?.id();
        children.running.insert(pid);
        Ok(pid)
    }

    /// Waits until a child that [`Self::spawn`] started has ended.
    pub fn wait(&self, pid: u32) -> End {
        let mut children = self.lock();
        loop {
            if let Some(end) = children.ended.remove(&pid) {
                return end;
            }
            children = self
                .change
                .wait(children)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Sends a signal to a child, or to its whole process group, unless it has ended.
    pub fn signal(&self, pid: u32, signal: Signal, group: bool) {
        // While we hold the lock the number can't be taken by another process.
        if self.lock().running.contains(&pid) {
            let target = if group { -(pid as i32) } else { pid as i32 };
            let _ = kill(Pid::from_raw(target), signal);
        }
    }

    /// Waits for children until SIGTERM or SIGINT comes.
    pub fn run(&self) -> io::Result<()> {
        loop {
            match watched().wait()? {
                Signal::SIGCHLD => self.collect()?,
                _ => return Ok(()),
            }
        }
    }

    fn collect(&self) -> io::Result<()> {
        let mut children = self.lock();
        while let Some((pid, end)) = reap().map_err(io::Error::other)? {
            if children.running.remove(&pid) {
                children.ended.insert(pid, end);
            }
        }
        self.change.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
