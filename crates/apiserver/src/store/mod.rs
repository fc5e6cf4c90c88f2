//! The store: every object in memory for reads, every acknowledged write on disk.
//!
//! ```text
//!  write(job) ──▶ bounded queue ──▶ writer thread: run jobs one after the other on a working copy
//!                                      │  one redb transaction, one fsync for the whole batch
//!                                      ▼
//!                        Published { index, version, event log } ──▶ reads, lists, watches
//! ```
//!
//! Reads never touch the disk and never wait for it. A job sees all jobs before it and no other job comes between
//! its reads and its writes. Its caller hears of success only after the commit.

mod disk;
mod log;
mod txn;
mod writer;

use std::sync::{Arc, RwLock};

use imbl::OrdMap;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

pub use log::{Change, Gone};
pub use txn::Txn;

use crate::kind::{Admission, Kind};
use crate::status::{Failure, internal};
use log::Log;

/// Writes that may wait for the writer; more callers wait for room. A batch of 512 is one fsync, so this is two.
const QUEUE_MAX: usize = 1024;

/// Snapshots kept for the later pages of lists with `limit`; older ones answer 410 and the client lists anew.
const RETAINED_MAX: usize = 32;

/// Where an object is: which kind (its place in the table), namespace ("" for the cluster) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Place of the kind in the table of kinds.
    pub kind: usize,
    /// Namespace, or empty.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Key {
    /// The key of one object.
    pub fn new(kind: usize, namespace: &str, name: &str) -> Self {
        Key {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// redb refused the file.
    #[error("cannot open the store: {0}")]
    Disk(#[from] redb::Error),
    /// What is on disk is not what this program writes.
    #[error("the store is damaged: object {key}: {source}")]
    Object {
        /// Key on disk.
        key: String,
        /// What the JSON parser says.
        source: serde_json::Error,
    },
    /// The writer thread did not start.
    #[error("cannot start the writer of the store: {0}")]
    Thread(std::io::Error),
}

type Index = OrdMap<Key, Arc<Value>>;

/// All objects as they stood at one version.
#[derive(Clone)]
pub struct Snapshot {
    index: Index,
    /// The version.
    pub version: u64,
}

impl Snapshot {
    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.index.get(key).cloned()
    }

    /// The objects of a kind in key order, all or those of one namespace, from after `after` on.
    pub fn list<'a>(
        &'a self,
        kind: usize,
        namespace: Option<&'a str>,
        after: Option<&Key>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        let first = after
            .cloned()
            .unwrap_or_else(|| Key::new(kind, namespace.unwrap_or(""), ""));
        let skip = after.cloned();
        self.index
            .range(first..)
            .skip_while(move |(key, _)| Some(*key) == skip.as_ref())
            .take_while(move |(key, _)| {
                key.kind == kind && namespace.is_none_or(|namespace| *key.namespace == *namespace)
            })
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.index.iter()
    }
}

struct Published {
    snapshot: Snapshot,
    log: Log,
    retained: Vec<Snapshot>,
}

struct Shared {
    published: RwLock<Published>,
    /// One for each kind: the version of its last change.
    wakes: Vec<watch::Sender<u64>>,
    /// The version of the last change of any kind.
    any: watch::Sender<u64>,
    /// Whether the file is closed.
    closed: watch::Sender<bool>,
}

/// Handle of the store; clones are the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<writer::Job>,
}

impl Store {
    /// Opens or makes the store in a file and starts its writer, which ends when the last handle is gone.
    pub fn open(
        path: &std::path::Path,
        kinds: &'static [&'static Kind],
        admission: Vec<Arc<dyn Admission>>,
    ) -> Result<Store, OpenError> {
        let disk = disk::Disk::open(path, kinds)?;
        let snapshot = disk.load()?;
        for (key, object) in snapshot.all() {
            admission
                .iter()
                .for_each(|plugin| plugin.stored(kinds[key.kind], None, Some(object)));
        }
        let log = Log::new(kinds.len(), snapshot.version);
        let shared = Arc::new(Shared {
            wakes: kinds
                .iter()
                .map(|_| watch::Sender::new(snapshot.version))
                .collect(),
            any: watch::Sender::new(snapshot.version),
            closed: watch::Sender::new(false),
            published: RwLock::new(Published {
                snapshot,
                log,
                retained: Vec::new(),
            }),
        });
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let writer = writer::Writer {
            disk,
            kinds,
            admission,
            shared: Arc::clone(&shared),
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(OpenError::Thread)?;
        Ok(Store { shared, jobs })
    }

    /// Everything as it stands.
    pub fn snapshot(&self) -> Snapshot {
        self.read().snapshot.clone()
    }

    /// Keeps a snapshot for the next pages of a list.
    pub fn retain(&self, snapshot: &Snapshot) {
        let mut published = self
            .shared
            .published
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        published
            .retained
            .retain(|kept| kept.version != snapshot.version);
        published.retained.push(snapshot.clone());
        if published.retained.len() > RETAINED_MAX {
            published.retained.remove(0);
        }
    }

    /// Everything as it stood at a version, if that was kept.
    pub fn retained(&self, version: u64) -> Option<Snapshot> {
        let published = self.read();
        if published.snapshot.version == version {
            return Some(published.snapshot.clone());
        }
        published
            .retained
            .iter()
            .find(|kept| kept.version == version)
            .cloned()
    }

    /// The changes of a kind after a version, oldest first, at most `max` of them, and the version up to which this
    /// tells everything.
    pub fn changes(
        &self,
        kind: usize,
        after: u64,
        max: usize,
    ) -> Result<(Vec<Arc<Change>>, u64), Gone> {
        let published = self.read();
        published
            .log
            .after(kind, after, max, published.snapshot.version)
    }

    /// Sees the version of each further change of a kind.
    pub fn wake(&self, kind: usize) -> watch::Receiver<u64> {
        self.shared.wakes[kind].subscribe()
    }

    /// Sees the version of each further change.
    pub fn wake_any(&self) -> watch::Receiver<u64> {
        self.shared.any.subscribe()
    }

    /// Becomes true when the writer has ended and the file is closed, after the last handle is gone.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.shared.closed.subscribe()
    }

    /// Runs a job in the order of all writes. Its writes are on disk when this returns `Ok`; with `dry_run`, and when
    /// the job fails, nothing of it stays.
    pub async fn write<T, F>(&self, dry_run: bool, job: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: writer::Job = Box::new(move |txn| {
            let outcome = job(txn);
            let keep = outcome.is_ok() && !dry_run;
            let reply: writer::Reply = Box::new(move |committed| {
                // The caller may have gone away; then nobody needs the answer.
                let _ = answer.send(committed.and(outcome));
            });
            (keep, reply)
        });
        self.jobs
            .send(job)
            .await
            .map_err(|_| internal("the store is closed"))?;
        result.await.map_err(|_| internal("the write failed"))?
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Published> {
        self.shared
            .published
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests;
