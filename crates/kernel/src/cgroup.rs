//! Cgroups for tests: threads of one process in cgroups of their own, so that programs at a cgroup see only them.
//!
//! They are threaded cgroups (cgroup-v2.rst, "Threads") below the root of cgroup2. One is gone when it is dropped, and
//! one whose process has died is taken away by whoever makes the next.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};
use crate::mount;

const PREFIX: &str = "portolan-test-";

/// Cgroups that this process has made.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A cgroup that threads of this process can join.
#[derive(Debug)]
pub struct Cgroup {
    root: PathBuf,
    path: PathBuf,
    is_shown: bool,
}

impl Cgroup {
    /// A new one below `root`, which must be the root of a cgroup2 hierarchy.
    pub fn new(root: &Path) -> Result<Self> {
        take_away_dead(root);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).map_err(|e| Error::file("make the cgroup", &path, e))?;
        let cgroup = Cgroup {
            root: root.into(),
            path,
            is_shown: false,
        };
        cgroup.write("cgroup.type", "threaded")?;
        Ok(cgroup)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self.is_shown {
            true => &self.root,
            false => &self.path,
        }
    }

    /// Lets processes of the caller's mount namespace, which must be private, take it for the root of the hierarchy.
    pub fn show_as_root(&mut self) -> Result<()> {
        mount::bind(&self.path, &self.root)?;
        self.is_shown = true;
        Ok(())
    }

    /// Takes it away when all threads of this process are in it. Those of other processes have ended.
    pub fn dismiss(mut self) -> Result<()> {
        self.hide();
        let all = self.root.join("cgroup.procs");
        fs::write(&all, "0").map_err(|e| Error::file("write", &all, e))
    }

    fn hide(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            // It is hidden when the mount namespace ends, at the latest.
            let _ = mount::unmount(&self.root);
        }
    }

    /// Moves the calling thread into it; threads that it starts from now on are there too, and so are their sockets.
    pub fn join(&self) -> Result<()> {
        self.write("cgroup.threads", "0")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path().join(file);
        fs::write(&path, text).map_err(|e| Error::file("write", &path, e))
    }
}

impl Drop for Cgroup {
    /// Only an empty one can go; what a dead process has left goes with the next.
    fn drop(&mut self) {
        self.hide();
        let _ = fs::remove_dir(&self.path);
    }
}

/// The threads of a process end with it, so its cgroups are empty.
fn take_away_dead(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = process.and_then(|rest| rest.split('-').next());
        let dead = |process: &str| {
            let alive = fs::metadata(Path::new("/proc").join(process));
            alive.is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        if process.is_some_and(dead) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
