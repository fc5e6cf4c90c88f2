//! The network namespaces in which sockets can be ended: the node's own, and those of pods that a directory shows.
//!
//! Container runtimes show the namespaces of pods as files (bind mounts) in /run/netns. No handle of one is kept: it
//! would live on with it. Entering another namespace needs CAP_SYS_ADMIN.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, MapData, MapError};
use portolan_model::{ApplyError, Protocol};

use super::maps::{NAMESPACES_MAX, removed};
use super::{pins, refused};
use crate::netns::Netns;
use crate::sockets::{Connected, Sockets};

/// Namespaces by their cookies.
pub(super) struct Namespaces {
    node: u64,
    own: Netns,
    directory: PathBuf,
    /// Each file, its number, and the cookie of its namespace, if it shows one that can be entered.
    pods: BTreeMap<PathBuf, (u64, Option<u64>)>,
    is_told: bool,
}

impl Namespaces {
    /// The calling thread is in the node's.
    pub(super) fn new(node: u64, directory: &Path) -> Result<Self, ApplyError> {
        let own = Netns::current();
        Ok(Namespaces {
            node,
            own: own.map_err(|error| refused("find this network namespace", &error))?,
            directory: directory.into(),
            pods: BTreeMap::new(),
            is_told: false,
        })
    }

    /// The cookie of the node's.
    pub(super) fn node(&self) -> u64 {
        self.node
    }

    /// The map is another one, and empty.
    pub(super) fn begin_anew(&mut self) {
        self.pods.clear();
        self.is_told = false;
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        1 + self
            .pods
            .values()
            .filter(|(_, cookie)| cookie.is_some())
            .count()
    }

    /// Brings the map to what there is. Costs a look at each file, and more for those that are new.
    pub(super) fn refresh(
        &mut self,
        map: &mut HashMap<MapData, u64, u8>,
    ) -> Result<(), ApplyError> {
        let told =
            |error: MapError| refused("tell the programs which namespaces are known", &error);
        let mut now = BTreeMap::new();
        let files = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        for file in files.take(NAMESPACES_MAX as usize - 1) {
            let path = file.path();
            let Ok(meta) = fs::metadata(&path) else {
                continue;
            };
            let number = meta.ino();
            let known = self.pods.get(&path).filter(|(known, _)| *known == number);
            let cookie = known.map_or_else(|| cookie(&path), |(_, cookie)| *cookie);
            now.insert(path, (number, cookie));
        }
        let cookies = |all: &BTreeMap<PathBuf, (u64, Option<u64>)>| -> Vec<u64> {
            all.values().filter_map(|(_, cookie)| *cookie).collect()
        };
        let (before, after) = (cookies(&self.pods), cookies(&now));
        if !self.is_told {
            super::maps::clear(map).map_err(told)?;
            map.insert(self.node, 1, 0).map_err(told)?;
        }
        for gone in before.iter().filter(|cookie| !after.contains(cookie)) {
            removed(map.remove(gone)).map_err(told)?;
        }
        for cookie in after
            .iter()
            .filter(|c| !self.is_told || !before.contains(c))
        {
            map.insert(*cookie, 1, 0).map_err(told)?;
        }
        self.is_told = true;
        self.pods = now;
        Ok(())
    }

    /// Ends sockets everywhere; a pod that goes meanwhile takes its sockets along.
    pub(super) fn end(
        &self,
        protocol: Protocol,
        is_doomed: impl Fn(&Connected) -> bool + Sync,
    ) -> Result<u64, ApplyError> {
        let work = || Sockets::open()?.destroy_all(protocol, &is_doomed);
        let ended = self.own.run(work).and_then(|ended| ended);
        let mut ended = ended.map_err(|error| refused("end sockets of the node", &error))?;
        let pods = self.pods.iter().filter(|(_, (_, cookie))| cookie.is_some());
        for (path, _) in pods {
            match Netns::open(path).and_then(|netns| netns.run(work)?) {
                Ok(more) => ended += more,
                Err(error) if !path.exists() => drop(error),
                Err(error) => {
                    return Err(refused(
                        format!("end sockets in {}", path.display()),
                        &error,
                    ));
                }
            }
        }
        Ok(ended)
    }
}

/// `None` if the file shows no network namespace, or we may not enter it.
fn cookie(path: &Path) -> Option<u64> {
    let netns = Netns::open(path).ok()?;
    netns.run(pins::netns_cookie).ok()?.ok()
}
