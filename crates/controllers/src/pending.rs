//! What a controller has written and the watch has not shown yet.
//!
//! A controller that counts objects in its cache must not count while the cache lags behind its own writes, or it makes
//! things twice. Names are chosen before the write, so that even a write whose answer was lost is waited for.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cache::Key;

/// A write that has not been seen after this long never happened, or its effect was gone before it could be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// The object comes into being.
    Created,
    /// The object begins to go.
    Deleted,
}

/// Writes under way, by the object that they are done for.
#[derive(Debug, Default)]
pub struct Pending(Mutex<HashMap<Key, Vec<Write>>>);

/// One write under way.
#[derive(Debug)]
struct Write {
    object: Key,
    awaited: Awaited,
    since: Instant,
}

impl Pending {
    /// Before a write for `owner`: the watch will show `object`.
    pub fn expect(&self, owner: &Key, object: Key, awaited: Awaited) {
        self.lock().entry(owner.clone()).or_default().push(Write {
            object,
            awaited,
            since: Instant::now(),
        });
    }

    /// The write was refused for certain.
    pub fn cancel(&self, owner: &Key, object: &Key) {
        self.keep(owner, |write| write.object != *object);
    }

    /// The watch has shown `object` of `owner`, which is `going` or gone, or not.
    pub fn seen(&self, owner: &Key, object: &Key, going: bool) {
        self.keep(owner, |write| {
            write.object != *object || (write.awaited == Awaited::Deleted && !going)
        });
    }

    /// Whether something is still waited for, and how long at most.
    pub fn open(&self, owner: &Key) -> Option<Duration> {
        self.keep(owner, |write| write.since.elapsed() < PATIENCE);
        let map = self.lock();
        let waits = map
            .get(owner)?
            .iter()
            .map(|write| PATIENCE.saturating_sub(write.since.elapsed()));
        waits.max()
    }

    fn keep(&self, owner: &Key, keep: impl FnMut(&Write) -> bool) {
        let mut map = self.lock();
        if let Some(list) = map.get_mut(owner) {
            list.retain(keep);
            if list.is_empty() {
                map.remove(owner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Vec<Write>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
