//! The event log: the last changes of each kind, for watches.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use super::Key;

/// Changes kept for each kind. A watch that is further behind hears 410 and lists anew; a real API server keeps
/// between 100 and 102 400 of them.
pub const LOG_MAX: usize = 4096;

/// One stored change.
#[derive(Debug)]
pub struct Change {
    /// Which object.
    pub key: Key,
    /// Version that the change made.
    pub version: u64,
    /// The object before; `None` when it is new.
    pub old: Option<Arc<Value>>,
    /// The object after; `None` when it is gone.
    pub new: Option<Arc<Value>>,
}

/// The asked version is older than the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The oldest version that a watch can start from.
    pub oldest: u64,
}

struct Topic {
    changes: VecDeque<Arc<Change>>,
    /// Watches can start from this version or later.
    oldest: u64,
}

pub(super) struct Log {
    topics: Vec<Topic>,
}

impl Log {
    pub(super) fn new(kinds: usize, version: u64) -> Self {
        Log {
            topics: (0..kinds)
                .map(|_| Topic {
                    changes: VecDeque::new(),
                    oldest: version,
                })
                .collect(),
        }
    }

    pub(super) fn push(&mut self, change: Arc<Change>) {
        let topic = &mut self.topics[change.key.kind];
        topic.changes.push_back(change);
        if topic.changes.len() > LOG_MAX
            && let Some(dropped) = topic.changes.pop_front()
        {
            topic.oldest = dropped.version;
        }
    }

    pub(super) fn after(
        &self,
        kind: usize,
        after: u64,
        max: usize,
        current: u64,
    ) -> Result<(Vec<Arc<Change>>, u64), Gone> {
        let topic = &self.topics[kind];
        if after < topic.oldest {
            return Err(Gone {
                oldest: topic.oldest,
            });
        }
        let start = topic
            .changes
            .partition_point(|change| change.version <= after);
        let found: Vec<Arc<Change>> = topic
            .changes
            .iter()
            .skip(start)
            .take(max)
            .cloned()
            .collect();
        let told = match found.last() {
            Some(last) if start + found.len() < topic.changes.len() => last.version,
            _ => current.max(after),
        };
        Ok((found, told))
    }
}
