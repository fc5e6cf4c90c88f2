//! Landlock: nothing is written, made or removed but below some paths. Reading stays as it is.
//!
//! The numbers are those of linux/landlock.h; each version of the interface knows more rights than the one before.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::error::{Error, Result};

const WRITE_FILE: u64 = 1 << 1;
/// REMOVE_DIR to MAKE_SYM: what changes directories.
const CHANGE_DIRECTORY: u64 = 0x1ff0;
/// Since version 2: move to another directory.
const REFER: u64 = 1 << 13;
/// Since version 3.
const TRUNCATE: u64 = 1 << 14;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

/// A part of `struct landlock_ruleset_attr`: what is asked for is refused everywhere but where a rule allows it.
#[repr(C)]
struct Handled {
    access_fs: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: RawFd,
}

/// From now on only files at or below `paths` can be written; false when this kernel has no Landlock.
pub(super) fn only_below(paths: &[PathBuf]) -> Result<bool> {
    let version = match version() {
        0 => return Ok(false),
        version => version,
    };
    let mut all = WRITE_FILE | CHANGE_DIRECTORY;
    if version >= 2 {
        all |= REFER;
    }
    if version >= 3 {
        all |= TRUNCATE;
    }
    let rules = create(all)?;
    for path in paths {
        add(&rules, path, all)?;
    }
    // SAFETY: the call takes a descriptor, which is open, and no pointer.
    let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    let done = Errno::result(done).map(|_| true);
    done.map_err(|e| Error::call("restrict where this process writes (Landlock)", e))
}

/// Whether files cannot be written already: one of this very process, which nobody needs and which everybody else may
/// open. Nothing is written.
pub(super) fn stand() -> bool {
    let opened = open(
        c"/proc/self/comm",
        OFlag::O_WRONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    version() == 0 || opened.is_err_and(|error| error == Errno::EACCES)
}

/// The version of the interface; 0 without one, also if it was switched off at boot.
fn version() -> i64 {
    let nothing = std::ptr::null::<Handled>();
    // SAFETY: with this flag the kernel reads no attributes: the pointer is null, the size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            nothing,
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    version.max(0)
}

fn create(access_fs: u64) -> Result<OwnedFd> {
    let handled = Handled { access_fs };
    let size = size_of::<Handled>();
    // SAFETY: the kernel reads `size` bytes at `handled`, which lives until the call is over.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &handled, size, 0_u32) };
    let fd = Errno::result(fd).map_err(|e| Error::call("make rules of Landlock", e))?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it. Descriptors are small.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows `access` below `path`; a file takes only what concerns files. What is not there cannot be written either.
fn add(rules: &OwnedFd, path: &Path, access: u64) -> Result<()> {
    let file = match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => return Ok(()),
        Err(error) => return Err(Error::file("open", path, error)),
    };
    let meta = fstat(&file).map_err(|e| Error::file("look at", path, e))?;
    let is_directory = meta.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
    let allowed_access = match is_directory {
        true => access,
        false => access & (WRITE_FILE | TRUNCATE),
    };
    let rule = PathBeneath {
        allowed_access,
        parent_fd: file.as_raw_fd(),
    };
    // SAFETY: the kernel reads one `landlock_path_beneath_attr` at `rule`, and both descriptors are open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            rules.as_raw_fd(),
            RULE_PATH_BENEATH,
            &rule,
            0_u32,
        )
    };
    let done = Errno::result(done).map(drop);
    done.map_err(|e| Error::file("allow writing to", path, e))
}
