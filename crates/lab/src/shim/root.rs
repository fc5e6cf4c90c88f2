//! A container's file system: the machine's own, under a layer that takes all writes, with the pod's files and volumes
//! mounted where the manifest wants them. So a container can make directories and write files anywhere,
//! and nothing of that reaches the machine.
//!
//! Where the kernel refuses the layer (an overlay mount; older kernels without privileges), the container sees the
//! machine's file system itself, and volumes can only be mounted at paths that exist.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use portolan_kernel::mount::{bind, bind_read_only, make_private, tmpfs};

use super::protocol::Mount;

/// Builds the file system of the calling process, which is in a mount namespace of its own and has one thread.
/// `scratch` is an empty directory to mount on; `mounts` are applied in order.
pub fn enter(scratch: &Path, mounts: &[Mount]) -> Result<(), String> {
    make_private().map_err(|e| e.to_string())?;
    match layer(scratch) {
        Ok(root) => {
            mounts
                .iter()
                .try_for_each(|mount| place(&root, mount, true))?;
            pivot(&root)
        }
        Err(_) => mounts
            .iter()
            .try_for_each(|mount| place(Path::new("/"), mount, false)),
    }
}

/// Lays a writable layer over the machine's file system; the result is not yet our root.
fn layer(scratch: &Path) -> Result<PathBuf, String> {
    let others = top_mounts(scratch)?;
    tmpfs(scratch).map_err(|e| e.to_string())?;
    let undo = |e: String| {
        // The caller falls back to the machine's file system.
        let _ = umount2(scratch, MntFlags::MNT_DETACH);
        e
    };
    overlay(scratch).map_err(undo)?;
    let root = scratch.join("root");
    for path in others {
        let target = root.join(path.strip_prefix("/").unwrap_or(&path));
        // Mounts that we can't see into (somebody else's) are left out.
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        let _ = mount(Some(&path), &target, None::<&str>, flags, None::<&str>);
    }
    Ok(root)
}

fn overlay(scratch: &Path) -> Result<(), String> {
    for part in ["upper", "work", "root"] {
        std::fs::create_dir(scratch.join(part)).map_err(|e| e.to_string())?;
    }
    let path = |part| scratch.join(part).display().to_string();
    let options = format!(
        "lowerdir=/,upperdir={},workdir={}",
        path("upper"),
        path("work")
    );
    let root = scratch.join("root");
    let try_with = |options: &str| {
        mount(
            Some("overlay"),
            &root,
            Some("overlay"),
            MsFlags::empty(),
            Some(options),
        )
    };
    // In a user namespace only user.* attributes can be written.
    try_with(&options)
        .or_else(|_| try_with(&format!("{options},userxattr")))
        .map_err(|e| format!("lay a writable layer over /: {e}"))
}

/// The mounts that are not below another mount except the root.
fn top_mounts(scratch: &Path) -> Result<Vec<PathBuf>, String> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
    let mut paths: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .collect();
    paths.sort();
    let mut tops: Vec<PathBuf> = Vec::new();
    for path in paths {
        let below = tops.iter().any(|top| path.starts_with(top));
        if path != Path::new("/") && !below && !path.starts_with(scratch) {
            tops.push(path);
        }
    }
    Ok(tops)
}

fn place(root: &Path, mount: &Mount, create: bool) -> Result<(), String> {
    let target = root.join(mount.target.strip_prefix("/").unwrap_or(&mount.target));
    if create && !target.exists() {
        create_target(&target, mount.source.is_dir())
            .map_err(|e| format!("create {} for a mount: {e}", mount.target.display()))?;
    }
    let mounted = if mount.read_only {
        bind_read_only(&mount.source, &target)
    } else {
        bind(&mount.source, &target)
    };
    mounted.map_err(|e| format!("mount {}: {e}", mount.target.display()))
}

fn create_target(target: &Path, directory: bool) -> std::io::Result<()> {
    if directory {
        return std::fs::create_dir_all(target);
    }
    if let Some(parent) = target.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // A dangling link (resolv.conf of some machines) has to make room for a file.
    if target.is_symlink() {
        std::fs::remove_file(target)?;
    }
    std::fs::File::create(target).map(drop)
}

/// Makes `root` the root of this mount namespace and lets go of the old one.
fn pivot(root: &Path) -> Result<(), String> {
    let wrong = |e: nix::Error| format!("enter the container's file system: {e}");
    nix::unistd::chdir(root).map_err(wrong)?;
    nix::unistd::pivot_root(".", ".").map_err(wrong)?;
    umount2(".", MntFlags::MNT_DETACH).map_err(wrong)?;
    nix::unistd::chdir("/").map_err(wrong)
}
