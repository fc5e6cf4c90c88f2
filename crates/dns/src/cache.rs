//! Answers of other servers, kept (RFC 2308, RFC 8767). Our own names never come here: they are answered from the
//! index, which is never old.
//!
//! An entry is a whole message on the wire with the places of its times to live, so that an answer from it is one copy.
//! Time is an argument everywhere.

mod entry;
mod store;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::corefile::Zone;
use crate::corefile::plugin::cache::{Cache as Options, Keep};
use crate::message::{Message, soa_minimum};
use crate::wire::{Query, rcode, rtype};

use entry::Entry;
use store::{Key, Store};

pub use entry::ENTRY_BYTES_MAX;

/// Parts of the cache, each with a lock of its own, so that threads rarely wait for each other.
const SHARDS: usize = 64;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Queries that were looked up.
    pub requests: AtomicU64,
    /// Found among answers with records.
    pub success_hits: AtomicU64,
    /// Found among denials.
    pub denial_hits: AtomicU64,
    /// Not found.
    pub misses: AtomicU64,
    /// Fetched before their end.
    pub prefetched: AtomicU64,
    /// Answered with what had ended.
    pub stale: AtomicU64,
    /// Made room for others.
    pub evicted: AtomicU64,
    /// Not kept, because they did not answer the question.
    pub dropped: AtomicU64,
}

/// What the cache has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// Nothing.
    Miss,
    /// The answer stands in the buffer.
    Fresh,
    /// The answer stands in the buffer, and should be fetched anew, since many ask and it ends soon.
    Popular,
    /// The answer stands in the buffer; it has ended, but not long ago.
    Stale,
}

/// Answers of one server block.
pub struct Cache {
    /// What the file says.
    pub options: Options,
    success: Vec<Mutex<Store>>,
    denial: Vec<Mutex<Store>>,
    hasher: std::hash::RandomState,
    /// What is counted.
    pub counts: Counts,
}

impl Cache {
    /// An empty one.
    pub fn new(options: &Options) -> Self {
        let shards = |keep: Keep| {
            let each = keep.capacity.div_ceil(SHARDS);
            (0..SHARDS).map(|_| Mutex::new(Store::new(each))).collect()
        };
        Cache {
            options: options.clone(),
            success: shards(options.success),
            denial: shards(options.denial),
            hasher: std::hash::RandomState::new(),
            counts: Counts::default(),
        }
    }

    /// Answers a query into `out`, within `bytes_max`, if there is an entry for it.
    pub fn answer(
        &self,
        query: &Query<'_>,
        bytes_max: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Hit {
        let Some(key) = Key::of(query) else {
            return Hit::Miss;
        };
        let found = self.answer_from(&self.denial, &key, query, bytes_max, now, out);
        if found != Hit::Miss {
            self.counts.denial_hits.fetch_add(1, Ordering::Relaxed);
            return found;
        }
        let found = self.answer_from(&self.success, &key, query, bytes_max, now, out);
        if found != Hit::Miss {
            self.counts.success_hits.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    fn answer_from(
        &self,
        shards: &[Mutex<Store>],
        key: &Key,
        query: &Query<'_>,
        bytes_max: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Hit {
        let mut store = self.shard(shards, key);
        let Some(entry) = store.find(key) else {
            return Hit::Miss;
        };
        let left = entry.left(now);
        let hit = match (left, self.options.stale) {
            (Some(left), _) => match self.is_popular(entry, left, now) {
                true => Hit::Popular,
                false => Hit::Fresh,
            },
            (None, Some(stale)) if entry.ended_before(now) <= stale.period => Hit::Stale,
            (None, _) => return Hit::Miss,
        };
        let shown = (!self.options.keep_ttl).then(|| left.unwrap_or_default());
        entry.write(query, bytes_max, shown, out);
        hit
    }

    fn is_popular(&self, entry: &mut Entry, left: u32, now: Instant) -> bool {
        let Some(prefetch) = self.options.prefetch else {
            return false;
        };
        let asked = entry.ask(now, prefetch.gap);
        let soon = (entry.ttl() * u32::from(prefetch.percent) / 100).max(1);
        if asked < prefetch.amount.max(1) || left > soon {
            return false;
        }
        self.counts.prefetched.fetch_add(1, Ordering::Relaxed);
        // Only the one who is told fetches.
        entry.forget_asked();
        true
    }

    /// Keeps an answer to a query that asked with these flags, if it may be kept. `name` is that of the question in
    /// small letters, as text.
    pub fn keep(&self, query: &Query<'_>, name: &str, message: &Message, now: Instant) {
        let Some((denial, ttl)) = self.kind(name, message) else {
            return;
        };
        let Some(key) = Key::of(query) else {
            return;
        };
        let same = crate::wire::eq_names(message.question.name.as_wire(), query.name);
        if !same || message.question.rtype != query.rtype {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some(entry) = Entry::new(message, ttl, now) else {
            return;
        };
        let (into, other) = match denial {
            true => (&self.denial, &self.success),
            false => (&self.success, &self.denial),
        };
        // A failure does not take away an older answer that can still be used.
        if message.rcode != rcode::SERVFAIL {
            self.shard(other, &key).remove(&key);
        }
        let evicted = self.shard(into, &key).insert(key, entry, now);
        self.counts.evicted.fetch_add(evicted, Ordering::Relaxed);
    }

    /// Whether a message is a denial, and for how many seconds it is kept; `None` when it is not.
    fn kind(&self, name: &str, message: &Message) -> Option<(bool, u32)> {
        let below = |zones: &[Zone]| zones.iter().any(|zone| zone.holds(name));
        let options = &self.options;
        let transfer = matches!(
            message.question.rtype,
            rtype::AXFR | rtype::IXFR | rtype::ANY
        );
        if message.truncated || transfer || !below(&options.zones) {
            return None;
        }
        let clamp = |ttl: u32, keep: &Keep| ttl.clamp(keep.ttl_min, keep.ttl_max.max(keep.ttl_min));
        let found = if message.rcode == rcode::SERVFAIL {
            let seconds = u32::try_from(options.servfail.as_secs()).unwrap_or(u32::MAX);
            (true, seconds)
        } else if message.is_nxdomain() || message.is_nodata() {
            // Without SOA nobody says for how long (RFC 2308, section 5).
            let soa = message.authorities.iter().find_map(soa_minimum)?;
            let lowest = message
                .records()
                .map(|record| record.ttl)
                .min()
                .unwrap_or(soa);
            (true, clamp(soa.min(lowest), &options.denial))
        } else if message.rcode == rcode::NOERROR {
            let lowest = message.records().map(|record| record.ttl).min()?;
            (false, clamp(lowest, &options.success))
        } else {
            return None;
        };
        let not = if found.0 {
            &options.not_denial
        } else {
            &options.not_success
        };
        (found.1 > 0 && !below(not)).then_some(found)
    }

    /// Entries: answers with records, and denials.
    pub fn len(&self) -> (usize, usize) {
        let count = |shards: &[Mutex<Store>]| shards.iter().map(|shard| lock(shard).len()).sum();
        (count(&self.success), count(&self.denial))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> usize {
        let all = self.success.iter().chain(&self.denial);
        all.map(|shard| lock(shard).bytes()).sum()
    }

    /// For how long a stale answer is waited for, when the file wants it verified.
    pub fn verifies(&self) -> bool {
        self.options.stale.is_some_and(|stale| stale.verify)
    }

    fn shard<'s>(&self, shards: &'s [Mutex<Store>], key: &Key) -> std::sync::MutexGuard<'s, Store> {
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, key.bytes());
        lock(&shards[hash as usize % shards.len()])
    }
}

fn lock(shard: &Mutex<Store>) -> std::sync::MutexGuard<'_, Store> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds from a moment to a later one.
fn seconds(from: Instant, to: Instant) -> u32 {
    let elapsed: Duration = to.saturating_duration_since(from);
    u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
}
