//! Mounts inside a private mount namespace.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::error::{Error, Result};

const NONE: Option<&str> = None;

/// Makes every mount of the calling process's mount namespace private, so that nothing spreads to the machine.
pub fn make_private() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(|e| Error::file("make private the mounts below", Path::new("/"), e))
}

/// Shows `source` (a file or a directory) at `target`, which must exist.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|e| Error::file("bind mount on", target, e))
}

/// The same with everything below `source`, and read only if asked.
pub fn bind_read_only(source: &Path, target: &Path) -> Result<()> {
    bind(source, target)?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    // In a user namespace the flags that the machine's mount has are locked: keep those that we can see.
    let kept = nix::sys::statvfs::statvfs(target)
        .map(|stat| inherited(stat.flags()))
        .unwrap_or(MsFlags::empty());
    mount(NONE, target, NONE, flags | kept, NONE)
        .map_err(|e| Error::file("make read only the mount on", target, e))
}

fn inherited(flags: nix::sys::statvfs::FsFlags) -> MsFlags {
    use nix::sys::statvfs::FsFlags;
    let pairs = [
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    pairs
        .into_iter()
        .filter(|(seen, _)| flags.contains(*seen))
        .map(|(_, keep)| keep)
        .collect()
}

/// Mounts a fresh /proc for the calling process's PID namespace.
pub fn proc() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, NONE)
        .map_err(|e| Error::file("mount proc on", Path::new("/proc"), e))
}

/// Mounts an empty tmpfs.
pub fn tmpfs(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("tmpfs"),
        target,
        Some("tmpfs"),
        flags,
        Some("mode=0755"),
    )
    .map_err(|e| Error::file("mount tmpfs on", target, e))
}

/// Mounts a bpffs of its own: what is pinned there goes with it.
pub fn bpffs(target: &Path) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), target, Some("bpf"), flags, NONE)
        .map_err(|e| Error::file("mount bpffs on", target, e))
}

/// Takes away the topmost mount at `target`, also when it is in use.
pub fn unmount(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH).map_err(|e| Error::file("unmount", target, e))
}
