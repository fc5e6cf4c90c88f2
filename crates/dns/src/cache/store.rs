//! One part of the cache: entries by key, in a bounded number of places and bytes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::entry::Entry;
use crate::wire::{NAME_BYTES_MAX, Query};

/// Bytes that an entry may have on average: a shard full of the largest ones holds fewer entries.
const BYTES_EACH: usize = 1024;
/// Entries that are looked at for the one that ends soonest, when one has to go.
const SAMPLE: usize = 3;

/// What an entry is for: name in small letters, type, class, and the flags that change the answer. On the stack.
pub(super) struct Key {
    buffer: [u8; NAME_BYTES_MAX + 5],
    length: usize,
}

impl Key {
    pub(super) fn of(query: &Query<'_>) -> Option<Key> {
        let name = query.name.len();
        let mut buffer = [0; NAME_BYTES_MAX + 5];
        buffer.get_mut(..name)?.copy_from_slice(query.name);
        buffer[..name].make_ascii_lowercase();
        let flags = u8::from(query.edns.is_some_and(|edns| edns.dnssec_ok))
            | u8::from(query.checking_disabled) << 1;
        buffer[name..name + 2].copy_from_slice(&query.rtype.to_be_bytes());
        buffer[name + 2..name + 4].copy_from_slice(&query.class.to_be_bytes());
        buffer[name + 4] = flags;
        Some(Key {
            buffer,
            length: name + 5,
        })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

/// Entries, and where each stands.
pub(super) struct Store {
    places: HashMap<Arc<[u8]>, usize>,
    entries: Vec<(Arc<[u8]>, Entry)>,
    capacity: usize,
    bytes: usize,
}

impl Store {
    pub(super) fn new(capacity: usize) -> Self {
        Store {
            places: HashMap::new(),
            entries: Vec::new(),
            capacity: capacity.max(1),
            bytes: 0,
        }
    }

    pub(super) fn find(&mut self, key: &Key) -> Option<&mut Entry> {
        let place = *self.places.get(key.bytes())?;
        Some(&mut self.entries[place].1)
    }

    /// Says how many others had to go.
    pub(super) fn insert(&mut self, key: Key, entry: Entry, now: Instant) -> u64 {
        self.remove(&key);
        let bytes_max = self.capacity * BYTES_EACH;
        let mut evicted = 0;
        while !self.entries.is_empty()
            && (self.entries.len() >= self.capacity || self.bytes + entry.bytes() > bytes_max)
        {
            self.evict(now);
            evicted += 1;
        }
        let key: Arc<[u8]> = key.bytes().into();
        self.bytes += entry.bytes();
        self.places.insert(Arc::clone(&key), self.entries.len());
        self.entries.push((key, entry));
        evicted
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(place) = self.places.get(key.bytes()) {
            self.take(*place);
        }
    }

    fn evict(&mut self, now: Instant) {
        let any = (0..SAMPLE).map(|_| fastrand::usize(..self.entries.len()));
        if let Some(place) = any.min_by_key(|place| self.entries[*place].1.left(now)) {
            self.take(place);
        }
    }

    fn take(&mut self, place: usize) {
        let (key, entry) = self.entries.swap_remove(place);
        self.places.remove(&key);
        self.bytes -= entry.bytes();
        if let Some((moved, _)) = self.entries.get(place) {
            self.places.insert(Arc::clone(moved), place);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
