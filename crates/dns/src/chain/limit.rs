//! `rrl`: how many datagrams one network of clients gets an answer to in a second, so that nobody can be drowned in
//! answers to queries that somebody else has sent in their name.
//!
//! The memory is one array that never grows: a network has a place in one of the rows, and takes the one that was quiet for
//! longest when none is free. Networks that share a row by chance may push each other out, and are then limited less.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::corefile::plugin::filter::Rrl;

/// Places of one row.
const ROW: usize = 4;
/// A place has a part of the network's hash in its upper bits, and a time in microseconds in the others: 8 years.
const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const SECOND_US: u64 = 1_000_000;

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It is answered.
    Fine,
    /// It gets an answer without records and with TC: who really asks asks again over TCP, where addresses are true.
    Slip,
    /// It gets no answer.
    Drop,
}

/// The limit of one server block.
pub struct Limit {
    options: Rrl,
    began: Instant,
    seed: RandomState,
    /// Until when each network has used up what it may have.
    places: Box<[AtomicU64]>,
    /// Queries beyond the limit that were dropped, and those that got TC.
    pub dropped: AtomicU64,
    /// See [`Limit::dropped`].
    pub slipped: AtomicU64,
}

impl Limit {
    /// A limit under which nobody has asked yet.
    pub fn new(options: &Rrl) -> Limit {
        let rows = options.table.div_ceil(ROW).next_power_of_two();
        Limit {
            options: options.clone(),
            began: Instant::now(),
            seed: RandomState::new(),
            places: (0..rows * ROW).map(|_| AtomicU64::new(0)).collect(),
            dropped: AtomicU64::new(0),
            slipped: AtomicU64::new(0),
        }
    }

    /// Counts a query from `client`, and says what becomes of it.
    pub fn judge(&self, client: IpAddr, now: Instant) -> Judged {
        // A second from the beginning, so that 0 is a time when everybody was quiet.
        let since = now.saturating_duration_since(self.began).as_micros() as u64;
        let now_us = (since + SECOND_US) & TIME_MASK;
        let cost_us = SECOND_US / u64::from(self.options.per_second.get());
        match self.take(self.seed.hash_one(self.network(client)), now_us, cost_us) {
            true => Judged::Fine,
            false => self.refuse(),
        }
    }

    /// All addresses of one network are one client.
    fn network(&self, client: IpAddr) -> IpAddr {
        let length = match client {
            IpAddr::V4(_) => self.options.v4_bits,
            IpAddr::V6(_) => self.options.v6_bits,
        };
        ipnet::IpNet::new(client, length).map_or(client, |net| net.network())
    }

    /// Whether the network may have one more. Each answer uses up a part of a second, and a second is had in advance.
    fn take(&self, hash: u64, now_us: u64, cost_us: u64) -> bool {
        let rows = self.places.len() / ROW;
        let first = (hash as usize & (rows - 1)) * ROW;
        let row = &self.places[first..first + ROW];
        let tag = hash >> TIME_BITS;
        let known = row.iter().find(|p| p.load(Relaxed) >> TIME_BITS == tag);
        // The place of whoever has been quiet for longest.
        let oldest = || row.iter().min_by_key(|p| p.load(Relaxed) & TIME_MASK);
        let Some(place) = known.or_else(oldest) else {
            return true;
        };
        let step = |old: u64| {
            let used = match old >> TIME_BITS == tag {
                true => (old & TIME_MASK).max(now_us),
                false => now_us,
            };
            let next = used + cost_us;
            (next <= now_us + SECOND_US).then_some(tag << TIME_BITS | next & TIME_MASK)
        };
        place.fetch_update(Relaxed, Relaxed, step).is_ok()
    }

    fn refuse(&self) -> Judged {
        let number = self.dropped.fetch_add(1, Relaxed) + self.slipped.load(Relaxed);
        match self.options.slip {
            Some(ratio) if number.is_multiple_of(u64::from(ratio.get())) => {
                self.dropped.fetch_sub(1, Relaxed);
                self.slipped.fetch_add(1, Relaxed);
                Judged::Slip
            }
            _ => Judged::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU32};
    use std::time::Duration;

    use super::*;

    fn limit(per_second: u32, slip: u8, table: usize) -> Limit {
        Limit::new(&Rrl {
            per_second: NonZeroU32::new(per_second).unwrap(),
            v4_bits: 24,
            v6_bits: 56,
            slip: NonZeroU8::new(slip),
            table,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of `count` queries at one moment are answered.
    fn answered(limit: &Limit, client: &str, count: usize, now: Instant) -> usize {
        let all = (0..count).map(|_| limit.judge(ip(client), now));
        all.filter(|judged| *judged == Judged::Fine).count()
    }

    #[test]
    fn a_network_has_so_many_in_a_second() {
        let limit = limit(10, 0, 100);
        let now = limit.began;
        assert_eq!(answered(&limit, "203.0.113.2", 100, now), 10);
        // Its neighbours are the same network, and others are not.
        assert_eq!(answered(&limit, "203.0.113.77", 5, now), 0);
        assert_eq!(answered(&limit, "198.51.100.2", 5, now), 5);
        assert_eq!(answered(&limit, "2001:db8::1", 20, now), 10);
        assert_eq!(answered(&limit, "2001:db8:0:ff:7::1", 5, now), 0);
        assert_eq!(answered(&limit, "2001:db8:0:100::1", 5, now), 5);
        let later = now + Duration::from_millis(300);
        assert_eq!(answered(&limit, "203.0.113.2", 100, later), 3);
        let much_later = now + Duration::from_secs(60);
        assert_eq!(answered(&limit, "203.0.113.2", 100, much_later), 10);
        assert_eq!(limit.slipped.load(Relaxed), 0);
    }

    #[test]
    fn some_are_told_to_come_over_tcp() {
        let limit = limit(1, 2, 100);
        let now = limit.began;
        let all: Vec<Judged> = (0..5)
            .map(|_| limit.judge(ip("203.0.113.2"), now))
            .collect();
        use Judged::{Drop, Fine, Slip};
        assert_eq!(all, [Fine, Slip, Drop, Slip, Drop]);
        let counts = (limit.dropped.load(Relaxed), limit.slipped.load(Relaxed));
        assert_eq!(counts, (2, 2));
    }

    /// The table is full many times over: it does not grow, and whoever asks most is still limited.
    #[test]
    fn a_full_table_does_not_grow() {
        let limit = limit(10, 0, 1024);
        assert_eq!(limit.places.len(), 1024);
        let mut now = limit.began;
        for number in 0..100_000_u32 {
            now += Duration::from_micros(10);
            let client = IpAddr::from((number << 8).to_be_bytes());
            assert_eq!(limit.judge(client, now), Judged::Fine, "{number}");
        }
        assert_eq!(limit.places.len(), 1024);
        assert_eq!(answered(&limit, "203.0.113.2", 100, now), 10);
    }
}
