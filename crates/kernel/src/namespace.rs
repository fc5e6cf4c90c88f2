//! Namespaces of the calling process, with or without privileges.
//!
//! A user namespace can only be made by a process with one thread, so a program calls this first thing in `main`,
//! or in a child between fork and exec (see [`crate::command`]).

use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};

use crate::error::{Error, Result};

/// The kinds of namespaces that [`enter_new`] can make.
pub use nix::sched::CloneFlags as Kinds;

/// Whether the caller may make namespaces without making a user namespace first.
pub fn is_privileged() -> bool {
    /// CAP_SYS_ADMIN's number in linux/capability.h.
    const CAP_SYS_ADMIN: u32 = 21;
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return geteuid().is_root();
    };
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) {
        Some(bits) => bits & (1 << CAP_SYS_ADMIN) != 0,
        None => geteuid().is_root(),
    }
}

/// Whether the caller is privileged in the machine's own user namespace: in others the kernel loads no programs at
/// cgroups, whatever one's privileges there.
pub fn is_first_user() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    is_privileged() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Moves the calling process into new namespaces of the given kinds. Without privileges it makes a user
/// namespace around them, in which the caller's own user is root and is the only user.
/// Must be called while the process has one thread. A new PID namespace begins with the next child.
pub fn enter_new(kinds: CloneFlags) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if is_privileged() {
        return unshare(kinds).map_err(|e| Error::call("create namespaces", e));
    }
    unshare(kinds | CloneFlags::CLONE_NEWUSER).map_err(|e| {
        Error::call("create a user namespace (needed without root; the machine must allow unprivileged ones)", e)
    })?;
    map_to_root(uid, gid)
}

/// Maps root of the caller's new user namespace to `uid` and `gid` outside.
pub(crate) fn map_to_root(uid: Uid, gid: Gid) -> Result<()> {
    let write = |path: &str, text: String| {
        std::fs::write(path, text).map_err(|e| Error::file("write", Path::new(path), e))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}
