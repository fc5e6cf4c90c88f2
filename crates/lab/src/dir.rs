//! The state directory of a lab: where its files are, and the lock that says whether it runs.
//!
//! ```text
//! BASE/NAME/lock               held by the supervisor as long as it lives
//!           lab.json           how the lab was started
//!           control.sock       the supervisor's socket
//!           kubeconfig         for people: the API on 127.0.0.1
//!           api/               the API server's data
//!           kubelet/n1.sock    the API server's way to the agents
//!           log/               what the supervisor, the API server and the agents say
//!           resolv.conf        what the lab has as /etc/resolv.conf
//!           outside.Corefile   the names of the world outside
//!           n1/                one directory for each node: kubeconfig, addresses, and a directory for each pod
//!           n1/dns/            the Corefile of the node's answerer, from the ConfigMap coredns
//!           n1/pods/UID/       pod.json, shim.json, shim.sock, etc/, volumes/, logs/
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest path of a unix socket is 107 bytes; the longest that we make below a lab's directory has 60.
const DIR_LENGTH_MAX: usize = 107 - 60;

/// The directory of one lab.
#[derive(Debug, Clone)]
pub struct LabDir {
    root: PathBuf,
}

/// How a lab was started, kept in `lab.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabConfig {
    /// The lab's name.
    pub name: String,
    /// How many nodes it has.
    pub nodes: u8,
    /// The API server's port on 127.0.0.1.
    pub api_port: u16,
    /// The data plane of its nodes, in the words of `portolan proxy --proxy-mode`.
    pub proxy_mode: String,
    /// The supervisor's process number, as the machine sees it.
    pub supervisor_pid: u32,
}

impl LabDir {
    /// The directory of the lab `name`, in `$PORTOLAN_LAB_DIR`, or where this user's run-time files belong.
    pub fn named(name: &str) -> Result<LabDir> {
        let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 16 || !name.chars().all(ok) {
            return Err(Error::Refused(format!(
                "{name:?} can't name a lab: 1 to 16 letters, digits, - or _"
            )));
        }
        let root = base().join(name);
        if root.as_os_str().len() > DIR_LENGTH_MAX {
            return Err(Error::Refused(format!(
                "{} is too long for the sockets of a lab ({DIR_LENGTH_MAX} bytes at most); set PORTOLAN_LAB_DIR to a shorter directory",
                root.display()
            )));
        }
        Ok(LabDir { root })
    }

    /// The directory at a known place (an own process of the lab was told where).
    pub fn at(root: PathBuf) -> LabDir {
        LabDir { root }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or directory in it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Where the directory of a node is.
    pub fn node(&self, node: &str) -> PathBuf {
        self.root.join(node)
    }

    /// Makes the directory (for its owner only) and takes the lock. `None` when the lab runs already.
    /// What a lab that died has left is removed. The lock is held until its last descriptor is closed.
    pub fn claim(&self) -> Result<Option<File>> {
        private_dir(&self.root)?;
        let Some(lock) = self.try_lock()? else {
            return Ok(None);
        };
        self.clean()?;
        Ok(Some(lock))
    }

    /// Whether the lab's supervisor lives.
    pub fn is_running(&self) -> Result<bool> {
        if !self.path("lock").exists() {
            return Ok(false);
        }
        Ok(self.try_lock()?.is_none())
    }

    /// Removes the directory of a lab that does not run. A running one is left alone.
    pub fn remove_if_stale(&self) -> Result<bool> {
        if !self.root.exists() {
            return Ok(false);
        }
        let Some(_lock) = self.try_lock()? else {
            return Ok(false);
        };
        std::fs::remove_dir_all(&self.root).map_err(|e| Error::file("remove", &self.root, e))?;
        Ok(true)
    }

    /// Reads `lab.json`.
    pub fn config(&self) -> Result<LabConfig> {
        read_json(&self.path("lab.json"))
    }

    fn try_lock(&self) -> Result<Option<File>> {
        let path = self.path("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Error::file("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::file("lock", &path, e)),
        }
    }

    /// Removes everything but the lock.
    fn clean(&self) -> Result<()> {
        let wrong = |e| Error::file("clean", &self.root, e);
        for entry in std::fs::read_dir(&self.root).map_err(wrong)? {
            let path = entry.map_err(wrong)?.path();
            if path.file_name().is_some_and(|name| name == "lock") {
                continue;
            }
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.map_err(|e| Error::file("remove", &path, e))?;
        }
        Ok(())
    }
}

/// Where the labs of this user are.
fn base() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(dir) = set("PORTOLAN_LAB_DIR") {
        return std::path::absolute(&dir).unwrap_or(dir);
    }
    if let Some(dir) = set("XDG_RUNTIME_DIR") {
        return dir.join("portolan");
    }
    let user = nix::unistd::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/portolan");
    }
    std::env::temp_dir().join(format!("portolan-{user}"))
}

/// Makes a directory, and those above it, for the owner only. Refuses one that somebody else owns:
/// who can write here can run programs as the lab's user.
pub fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let make = DirBuilder::new().recursive(true).mode(0o700).create(path);
    make.map_err(|e| Error::file("create", path, e))?;
    let owner = std::fs::metadata(path)
        .map_err(|e| Error::file("look at", path, e))?
        .uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Err(Error::Refused(format!(
            "{} belongs to user {owner}",
            path.display()
        )));
    }
    Ok(())
}

/// Reads a file of ours.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(|e| Error::file("read", path, e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::file("understand", path, io::Error::other(e)))
}

/// Writes a file so that a reader, also after a crash, sees the old or the new text and nothing between.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes =
        serde_json::to_vec(value).map_err(|e| Error::file("write", path, io::Error::other(e)))?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, bytes).map_err(|e| Error::file("write", &temporary, e))?;
    std::fs::rename(&temporary, path).map_err(|e| Error::file("write", path, e))
}
