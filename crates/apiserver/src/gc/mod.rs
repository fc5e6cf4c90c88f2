//! The garbage collector: objects go when their owners are gone (`metadata.ownerReferences`).
//!
//! It follows the event log. What it decides about one object it decides inside a write, on what is stored then.

mod act;
mod graph;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Api;
use crate::store::Key;
use graph::Graph;

/// Changes read from the log in one go.
const CHUNK_MAX: usize = 1024;

/// How long to wait before an object is looked at again that could not be written.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Collects until the server stops.
pub(crate) async fn run(api: Arc<Api>) {
    let mut collector = Collector::new(api);
    loop {
        collector.wake.mark_unchanged();
        collector.follow();
        let retry = collector.work().await;
        let stopping = collector.api.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = collector.wake.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_DELAY), if retry => {}
        }
    }
}

struct Collector {
    api: Arc<Api>,
    wake: tokio::sync::watch::Receiver<u64>,
    graph: Graph,
    /// For each kind, the version up to which its changes are known.
    seen: Vec<u64>,
    /// Objects to look at.
    queue: BTreeSet<Key>,
}

impl Collector {
    fn new(api: Arc<Api>) -> Collector {
        let wake = api.store.wake_any();
        let mut collector = Collector {
            api,
            wake,
            graph: Graph::default(),
            seen: Vec::new(),
            queue: BTreeSet::new(),
        };
        collector.start_over();
        collector
    }

    /// Learns everything from a snapshot: at the start, and when the log has been lost.
    fn start_over(&mut self) {
        let snapshot = self.api.store.snapshot();
        self.graph = Graph::default();
        self.seen = vec![snapshot.version; self.api.kinds.len()];
        for (key, object) in snapshot.all() {
            self.queue
                .extend(self.graph.change(self.api.kinds, key, None, Some(object)));
        }
    }

    /// Learns what has changed.
    fn follow(&mut self) {
        for kind in 0..self.api.kinds.len() {
            loop {
                let Ok((changes, told)) = self.api.store.changes(kind, self.seen[kind], CHUNK_MAX)
                else {
                    return self.start_over();
                };
                self.seen[kind] = told;
                for change in &changes {
                    let (old, new) = (change.old.as_deref(), change.new.as_deref());
                    self.queue
                        .extend(self.graph.change(self.api.kinds, &change.key, old, new));
                }
                if changes.len() < CHUNK_MAX {
                    break;
                }
            }
        }
    }

    /// Looks at everything in the queue; true if something must be looked at again.
    async fn work(&mut self) -> bool {
        let mut retry = BTreeSet::new();
        while let Some(key) = self.queue.pop_first() {
            let snapshot = self.api.store.snapshot();
            let Some(object) = snapshot.get(&key) else {
                continue;
            };
            let dependents = self.graph.dependents(crate::object::uid(&object));
            match act::act(&self.api, &snapshot, key.clone(), dependents).await {
                Ok(more) => self.queue.extend(more),
                Err(failure) => {
                    tracing::warn!(object = %key.name, %failure, "garbage collection has to try again");
                    retry.insert(key);
                }
            }
        }
        self.queue = retry;
        !self.queue.is_empty()
    }
}
