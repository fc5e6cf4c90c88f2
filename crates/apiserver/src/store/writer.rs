//! The one writer: runs jobs in order, commits many of them with one fsync, then publishes and answers.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::disk::Disk;
use super::{Change, Shared, Snapshot, Txn};
use crate::kind::{Admission, Kind};
use crate::status::{Failure, internal};

/// Jobs that share one commit: enough to hide the fsync, few enough that the first of them does not wait long.
const BATCH_MAX: usize = 512;

/// Answers the caller of a job, once it is known whether the batch is on disk.
pub(super) type Reply = Box<dyn FnOnce(Result<(), Failure>) + Send>;
/// Runs in the writer; says whether its changes stay.
pub(super) type Job = Box<dyn FnOnce(&mut Txn<'_>) -> (bool, Reply) + Send>;

pub(super) struct Writer {
    pub(super) disk: Disk,
    pub(super) kinds: &'static [&'static Kind],
    pub(super) admission: Vec<Arc<dyn Admission>>,
    pub(super) shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn run(self, mut queue: Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH_MAX {
                match queue.try_recv() {
                    Ok(job) => jobs.push(job),
                    Err(_) => break,
                }
            }
            self.batch(jobs);
        }
        let Writer { disk, shared, .. } = self;
        drop(disk);
        shared.closed.send_replace(true);
    }

    fn batch(&self, jobs: Vec<Job>) {
        let mut work = self.published();
        let mut changes = Vec::new();
        let mut replies = Vec::new();
        for job in jobs {
            let savepoint = work.clone();
            let mut txn = Txn {
                index: &mut work.index,
                version: &mut work.version,
                changes: Vec::new(),
            };
            // A panic is one caller's failed write: its job's reply is dropped with it, and so are its changes.
            let outcome = catch_unwind(AssertUnwindSafe(|| job(&mut txn)));
            let made = txn.changes;
            match outcome {
                Ok((true, reply)) => {
                    made.iter().for_each(|change| self.tell(change, false));
                    changes.extend(made);
                    replies.push(reply);
                }
                Ok((false, reply)) => {
                    work = savepoint;
                    replies.push(reply);
                }
                Err(_) => work = savepoint,
            }
        }
        let outcome = self.commit(&work, &changes);
        if outcome.is_ok() {
            self.publish(work, changes);
        } else {
            changes
                .iter()
                .rev()
                .for_each(|change| self.tell(change, true));
        }
        for reply in replies {
            reply(outcome.clone());
        }
    }

    fn published(&self) -> Snapshot {
        self.shared
            .published
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .snapshot
            .clone()
    }

    fn commit(&self, work: &Snapshot, changes: &[Change]) -> Result<(), Failure> {
        if changes.is_empty() {
            return Ok(());
        }
        let last = changes
            .iter()
            .map(|change| (change.key.clone(), change.new.clone()))
            .collect::<BTreeMap<_, _>>();
        self.disk
            .commit(Some(work.version), &last)
            .map_err(|error| {
                tracing::error!(%error, "a batch of writes could not be stored");
                internal(format!("cannot store: {error}"))
            })
    }

    fn publish(&self, work: Snapshot, changes: Vec<Change>) {
        let mut touched: BTreeMap<usize, u64> = BTreeMap::new();
        {
            let mut published = self
                .shared
                .published
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            published.snapshot = work;
            for change in changes {
                touched.insert(change.key.kind, change.version);
                published.log.push(Arc::new(change));
            }
        }
        if let Some(last) = touched.values().max() {
            self.shared.any.send_replace(*last);
        }
        for (kind, version) in touched {
            self.shared.wakes[kind].send_replace(version);
        }
    }

    /// Lets the admission plugins' indexes follow a change, or take it back.
    fn tell(&self, change: &Change, undo: bool) {
        let (old, new) = if undo {
            (&change.new, &change.old)
        } else {
            (&change.old, &change.new)
        };
        for plugin in &self.admission {
            plugin.stored(self.kinds[change.key.kind], old.as_deref(), new.as_deref());
        }
    }
}
