//! A map with a limit: when it is full, the entry that was met longest ago makes room.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// Values by key, each with the time at which it was met last. Times count from any fixed moment.
///
/// Invariant: every entry has exactly one place in `queue` that carries its `ticket`; other places are left over from
/// entries that are gone, and there are never more of them than entries that are allowed.
#[derive(Debug)]
pub struct Recent<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Keys in the order in which they were met; an entry that was met since then is put at the end when it comes up.
    queue: VecDeque<Place<K>>,
    next_ticket: u64,
    max: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    met: Duration,
    ticket: u64,
}

#[derive(Debug)]
struct Place<K> {
    key: K,
    met: Duration,
    ticket: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// An empty map for at most `max` entries (at least one).
    pub fn new(max: usize) -> Self {
        Recent {
            entries: HashMap::new(),
            queue: VecDeque::new(),
            next_ticket: 0,
            max: max.max(1),
        }
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.values().map(|entry| &entry.value)
    }

    /// The value of `key`; it does not count as met.
    pub fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value of `key` if it was met less than `age_max` before `now`; it counts as met now. An older one is removed.
    pub fn meet(&mut self, key: &K, now: Duration, age_max: Duration) -> Option<&V> {
        let met = self.entries.get(key)?.met;
        if now.saturating_sub(met) >= age_max {
            self.remove(key);
            return None;
        }
        let entry = self.entries.get_mut(key)?;
        entry.met = now;
        Some(&entry.value)
    }

    /// Puts `value` there, met now; returns the entry that had to make room, if one had to.
    pub fn insert(&mut self, key: K, value: V, now: Duration) -> Option<(K, V)> {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.value = value;
            entry.met = now;
            return None;
        }
        let evicted = match self.entries.len() >= self.max {
            true => self.evict(),
            false => None,
        };
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let entry = Entry {
            value,
            met: now,
            ticket,
        };
        self.entries.insert(key.clone(), entry);
        let place = Place {
            key,
            met: now,
            ticket,
        };
        self.queue.push_back(place);
        self.tidy();
        evicted
    }

    /// Removes `key`.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.tidy();
        Some(entry.value)
    }

    /// Removes the entry that was met longest ago. Each place moves to the end at most once, so this ends.
    pub fn evict(&mut self) -> Option<(K, V)> {
        while let Some(place) = self.queue.pop_front() {
            let Some(entry) = self.entries.get(&place.key) else {
                continue;
            };
            if entry.ticket != place.ticket {
                continue;
            }
            if entry.met > place.met {
                let met = entry.met;
                self.queue.push_back(Place { met, ..place });
                continue;
            }
            let entry = self.entries.remove(&place.key)?;
            return Some((place.key, entry.value));
        }
        None
    }

    /// Throws away places that are left over, when there are as many as entries are allowed.
    fn tidy(&mut self) {
        if self.queue.len() < 2 * self.max {
            return;
        }
        let entries = &self.entries;
        let stands = |place: &Place<K>| {
            let entry = entries.get(&place.key);
            entry.is_some_and(|entry| entry.ticket == place.ticket)
        };
        self.queue.retain(stands);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn who_was_met_longest_ago_makes_room() {
        let mut map = Recent::new(3);
        for (second, key) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(map.insert(key, second, at(second as u64)), None);
        }
        assert_eq!(map.meet(&"a", at(5), LONG), Some(&0));
        assert_eq!(map.insert("d", 3, at(6)), Some(("b", 1)));
        assert_eq!(map.insert("e", 4, at(7)), Some(("c", 2)));
        assert_eq!(map.insert("f", 5, at(8)), Some(("a", 0)));
        assert_eq!(map.entries.len(), 3);
    }

    #[test]
    fn an_old_entry_is_gone() {
        let mut map = Recent::new(3);
        map.insert("a", 0, at(0));
        assert_eq!(map.meet(&"a", at(9), at(10)), Some(&0));
        assert_eq!(map.meet(&"a", at(19), at(10)), None);
        assert_eq!(map.entries.len(), 0);
    }

    #[test]
    fn what_comes_and_goes_leaves_nothing_behind() {
        let mut map = Recent::new(4);
        for round in 0..1000 {
            map.insert(round, round, at(round));
            map.remove(&round);
            assert!(map.queue.len() <= 8, "round {round}: {}", map.queue.len());
        }
        map.insert(1, 1, at(2000));
        assert_eq!(map.evict(), Some((1, 1)));
    }
}
