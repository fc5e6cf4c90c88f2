//! The directory in which programs and maps are pinned, and what it depends on: a bpffs, a cgroup, the namespace.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};
use portolan_model::ApplyError;
use socket2::{Domain, Socket, Type};

use super::programs::Part;
use super::{Location, refused};

/// Every map, by its name in ebpf/sockets.c.
pub(super) const MAPS: [&str; 14] = [
    "services",
    "endpoints",
    "members",
    "node_port_ips",
    "namespaces",
    "node",
    "outcomes",
    "clients",
    "peers",
    "datagram_peers",
    "flows",
    "replies",
    "dials",
    "pairs",
];

/// linux/magic.h.
const BPF_FS: FsType = FsType(0xcafe_4a11);
const CGROUP2_FS: FsType = FsType(0x6367_7270);

/// SO_NETNS_COOKIE of asm-generic/socket.h, which libc names for some targets only.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The directory of these programs at this cgroup: `PINS/NAMESPACE/PROGRAMS-CGROUP/`. What belongs to another network
/// namespace is another node's.
pub(super) struct Pins {
    all: PathBuf,
    own: PathBuf,
}

/// Where pins of this directory are made or removed: the part of it that is there, if that is on a bpffs.
pub fn place(pins: &Path) -> Option<PathBuf> {
    let there = pins.ancestors().find(|path| path.exists())?;
    is(there, BPF_FS).then(|| there.into())
}

impl Pins {
    /// Checks that it can be there.
    pub(super) fn at(location: &Location, digest: u64) -> Result<Self, ApplyError> {
        let Location { cgroup, pins, .. } = location;
        let meta = fs::metadata(cgroup).map_err(|error| at("find the cgroup", cgroup, &error))?;
        expect(
            cgroup,
            CGROUP2_FS,
            "a directory of cgroup2 (mount -t cgroup2 none DIRECTORY)",
        )?;
        // Before anything is made there.
        let there = pins.ancestors().find(|path| path.exists());
        expect(
            there.unwrap_or(pins),
            BPF_FS,
            "a directory of bpffs (mount -t bpf bpf /sys/fs/bpf)",
        )?;
        let all = of_namespace(pins)?;
        fs::create_dir_all(&all).map_err(|error| {
            at(
                "make a directory for pins (is a bpffs mounted at /sys/fs/bpf?)",
                &all,
                &error,
            )
        })?;
        Ok(Pins {
            // The number of a cgroup is never given to another one.
            own: all.join(format!("{digest:016x}-{}", meta.ino())),
            all,
        })
    }

    /// Where the map or the link of this name is pinned.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.own.join(name)
    }

    /// Whether everything is there.
    pub(super) fn are_whole(&self) -> bool {
        let maps = MAPS.iter().all(|name| self.path(name).exists());
        maps && Part::ALL.into_iter().all(|part| match self.count(part) {
            0 => part.is_spare(),
            some => some == part.programs().len(),
        })
    }

    /// Whether these programs stand.
    pub(super) fn has(&self, part: Part) -> bool {
        self.count(part) > 0
    }

    fn count(&self, part: Part) -> usize {
        let stands = |name: &&&str| self.path(&link(name)).exists();
        part.programs().iter().filter(stands).count()
    }

    /// An empty directory.
    pub(super) fn make(&self) -> Result<(), ApplyError> {
        fs::create_dir(&self.own).map_err(|error| at("make", &self.own, &error))
    }

    /// Takes this directory away, if it is there.
    pub(super) fn remove(&self) -> Result<(), ApplyError> {
        remove(&self.own)
    }

    /// Takes away the programs of a part.
    pub(super) fn remove_part(&self, part: Part) -> Result<(), ApplyError> {
        for name in part.programs() {
            let path = self.path(&link(name));
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(at("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What agents with other programs have pinned, or at another cgroup.
    pub(super) fn others(&self) -> Result<Vec<Pins>, ApplyError> {
        let others = directories(&self.all)?.into_iter();
        let others = others.filter(|path| *path != self.own);
        let all = || self.all.clone();
        Ok(others.map(|own| Pins { all: all(), own }).collect())
    }
}

/// The name of a program's link.
pub(super) fn link(program: &str) -> String {
    format!("{program}_link")
}

/// Everything of this network namespace in this directory of pins.
pub(super) fn remove_all(pins: &Path) -> Result<(), ApplyError> {
    let all = of_namespace(pins)?;
    if !all.exists() {
        return Ok(());
    }
    directories(&all)?
        .iter()
        .try_for_each(|path| remove(path))?;
    remove(&all)
}

/// The kernel gives each network namespace another number, and none of them twice.
fn of_namespace(pins: &Path) -> Result<PathBuf, ApplyError> {
    Ok(pins.join(format!("node-{}", netns_cookie()?)))
}

/// The root of cgroup2, alone or beside the older hierarchies.
pub(super) fn cgroup_root() -> PathBuf {
    let beside = Path::new("/sys/fs/cgroup/unified");
    match is(beside, CGROUP2_FS) {
        true => beside.into(),
        false => "/sys/fs/cgroup".into(),
    }
}

/// The number that the kernel knows this thread's network namespace by, in programs.
pub(super) fn netns_cookie() -> Result<u64, ApplyError> {
    let told = |error: io::Error| refused("ask for the cookie of this network namespace", &error);
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(told)?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has as many.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(told(io::Error::last_os_error())),
    }
}

fn is(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == kind)
}

fn expect(path: &Path, kind: FsType, what: &str) -> Result<(), ApplyError> {
    match is(path, kind) {
        true => Ok(()),
        false => Err(ApplyError {
            doing: format!("eBPF mode needs {}", path.display()),
            words: format!("it is not {what}"),
        }),
    }
}

/// Programs and maps lie one level deep.
pub(super) fn remove(directory: &Path) -> Result<(), ApplyError> {
    let remove = || -> io::Result<()> {
        // Links first: no program works on maps that are being taken away.
        let mut files: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory)? {
            files.push(entry?.path());
        }
        let is_link = |path: &PathBuf| path.to_string_lossy().ends_with(&link(""));
        files.sort_by_key(|path| !is_link(path));
        files.iter().try_for_each(fs::remove_file)?;
        fs::remove_dir(directory)
    };
    match remove() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(at("remove", directory, &error))
        }
        _ => Ok(()),
    }
}

pub(super) fn directories(pins: &Path) -> Result<Vec<PathBuf>, ApplyError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(pins)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                all.push(entry.path());
            }
        }
        Ok(all)
    };
    list().map_err(|error| at("list", pins, &error))
}

pub(super) fn at(doing: &str, path: &Path, error: &io::Error) -> ApplyError {
    refused(format!("{doing} {}", path.display()), error)
}
