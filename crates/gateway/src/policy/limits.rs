//! How often a client may ask: a leaky bucket for each client and limit, as nginx' `limit_req` has it, and a count of
//! requests that are under way.
//!
//! All threads share a [`Limiter`]; only requests of routes with limits look into it. A client is an IPv4 address or an
//! IPv6 /64, since who has one address of those has them all.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::sources::covers;
use crate::problem::ObjectName;

/// Clients that are counted at one time, with one entry for each limit: nginx' zone of 5 MiB has room for as many. When
/// there is no room even after those are forgotten whose bucket is empty, further clients are refused.
pub const LIMITED_CLIENTS_MAX: usize = 65_536;

/// Wait between two searches for buckets that are empty, so that a full map costs little.
const SEARCH_PAUSE: Duration = Duration::from_secs(1);

/// Parts of the map with a lock each, so that threads seldom wait for each other.
const SHARDS: usize = 16;

/// How often a client may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests in a second, and in a minute: one bucket for each.
    pub rates: Vec<Rate>,
    /// Requests at one time.
    pub at_once: Option<u32>,
    /// Who is not limited.
    pub exempt: Vec<IpNet>,
    /// Which requests are counted together: those of one object.
    pub zone: ObjectName,
    /// The status of the answer to a request beyond a rate, and beyond the number at one time; 503 if 0.
    pub statuses: (u16, u16),
}

/// A bucket that leaks so fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Requests in each period.
    pub requests: u32,
    /// The period.
    pub period: Duration,
    /// Requests that may come at once beyond the first.
    pub burst: u32,
}

/// What a limiter says to a request.
#[derive(Debug)]
pub enum Turn {
    /// It may go on; what is given must be kept until it is answered.
    Go(Option<Held>),
    /// It is beyond a rate.
    TooOften,
    /// It is beyond the number at one time.
    TooMany,
}

/// A request that is under way, counted until this is dropped.
#[derive(Debug)]
pub struct Held {
    limiter: Arc<Limiter>,
    key: Key,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    zone: ObjectName,
    client: IpAddr,
    /// The rate; none for the requests at one time.
    rate: Option<Rate>,
}

#[derive(Debug)]
enum Count {
    /// Thousandths of requests above the rate, and when that was so.
    Bucket {
        excess: u64,
        at: Instant,
    },
    UnderWay(u32),
}

/// What clients have asked, of all limits.
#[derive(Debug, Default)]
pub struct Limiter {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    counts: HashMap<Key, Count>,
    /// When empty buckets were searched for last.
    searched: Option<Instant>,
}

impl Limits {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.rates.is_empty() && self.at_once.is_none()
    }
}

impl Limiter {
    /// Counts a request, and says whether it may go on.
    pub fn turn(self: &Arc<Self>, limits: &Limits, client: IpAddr, now: Instant) -> Turn {
        if limits.is_empty() || covers(&limits.exempt, client) {
            return Turn::Go(None);
        }
        let key = |rate| Key {
            zone: limits.zone.clone(),
            client: counted_as(client),
            rate,
        };
        for rate in &limits.rates {
            if !self.leak(key(Some(*rate)), *rate, now) {
                return Turn::TooOften;
            }
        }
        let Some(max) = limits.at_once else {
            return Turn::Go(None);
        };
        let key = key(None);
        match self.begin(&key, max, now) {
            true => Turn::Go(Some(Held {
                limiter: Arc::clone(self),
                key,
            })),
            false => Turn::TooMany,
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// Puts a request into its bucket, if it has room.
    fn leak(&self, key: Key, rate: Rate, now: Instant) -> bool {
        let mut shard = self
            .shard(&key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let full = match shard.counts.get(&key) {
            Some(Count::Bucket { excess, at }) => {
                let leaked = rate.leaked(now.saturating_duration_since(*at));
                (excess + 1000).saturating_sub(leaked)
            }
            _ => 0,
        };
        let fits = full <= u64::from(rate.burst) * 1000 && shard.make_room(&key, now);
        if fits {
            let count = Count::Bucket {
                excess: full,
                at: now,
            };
            shard.counts.insert(key, count);
        }
        fits
    }

    fn begin(&self, key: &Key, max: u32, now: Instant) -> bool {
        let mut shard = self
            .shard(key)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(Count::UnderWay(count)) = shard.counts.get_mut(key) {
            let fits = *count < max;
            *count += u32::from(fits);
            return fits;
        }
        let fits = max > 0 && shard.make_room(key, now);
        if fits {
            shard.counts.insert(key.clone(), Count::UnderWay(1));
        }
        fits
    }
}

impl Rate {
    /// Thousandths of requests that leak in a time.
    fn leaked(self, time: Duration) -> u64 {
        let leaked =
            time.as_nanos() * u128::from(self.requests) * 1000 / self.period.as_nanos().max(1);
        u64::try_from(leaked).unwrap_or(u64::MAX)
    }
}

impl Shard {
    /// Whether there is room for `key`; buckets that are empty by now make some.
    fn make_room(&mut self, key: &Key, now: Instant) -> bool {
        let max = LIMITED_CLIENTS_MAX / SHARDS;
        if self.counts.len() < max || self.counts.contains_key(key) {
            return true;
        }
        if self
            .searched
            .is_some_and(|last| now.saturating_duration_since(last) < SEARCH_PAUSE)
        {
            return false;
        }
        self.searched = Some(now);
        self.counts.retain(|key, count| match (count, key.rate) {
            (Count::Bucket { excess, at }, Some(rate)) => {
                *excess + 1000 > rate.leaked(now.saturating_duration_since(*at))
            }
            _ => true,
        });
        self.counts.len() < max
    }
}

fn counted_as(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
        address => address,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let shard = self.limiter.shard(&self.key);
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = match shard.counts.get_mut(&self.key) {
            Some(Count::UnderWay(count)) => {
                *count = count.saturating_sub(1);
                *count == 0
            }
            _ => false,
        };
        if is_last {
            shard.counts.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(rates: &[(u32, u64, u32)], at_once: Option<u32>) -> Limits {
        let rates = rates.iter().map(|&(requests, seconds, burst)| Rate {
            requests,
            period: Duration::from_secs(seconds),
            burst,
        });
        Limits {
            rates: rates.collect(),
            at_once,
            exempt: vec!["203.0.113.9/32".parse().unwrap()],
            zone: ObjectName::new("shop", "web"),
            statuses: (0, 0),
        }
    }

    fn client(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// How many of so many requests at one moment go on.
    fn passed(
        limiter: &Arc<Limiter>,
        limits: &Limits,
        from: &str,
        count: usize,
        now: Instant,
    ) -> usize {
        let turns = (0..count).map(|_| limiter.turn(limits, client(from), now));
        turns.filter(|turn| matches!(turn, Turn::Go(_))).count()
    }

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_the_rate() {
        let (limiter, limits) = (Arc::new(Limiter::default()), limits(&[(10, 1, 50)], None));
        let begin = Instant::now();
        assert_eq!(passed(&limiter, &limits, "203.0.113.2", 100, begin), 51);
        let later = begin + Duration::from_millis(500);
        assert_eq!(passed(&limiter, &limits, "203.0.113.2", 100, later), 5);
        assert_eq!(
            passed(&limiter, &limits, "203.0.113.3", 100, later),
            51,
            "another client"
        );
        assert_eq!(
            passed(&limiter, &limits, "203.0.113.9", 100, later),
            100,
            "not limited"
        );
        let other = Limits {
            zone: ObjectName::new("shop", "other"),
            ..limits.clone()
        };
        assert_eq!(
            passed(&limiter, &other, "203.0.113.2", 100, later),
            51,
            "another Ingress"
        );
    }

    #[test]
    fn both_rates_count() {
        let limits = limits(&[(100, 1, 500), (1, 60, 2)], None);
        let limiter = Arc::new(Limiter::default());
        assert_eq!(
            passed(&limiter, &limits, "203.0.113.2", 100, Instant::now()),
            3
        );
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let (limiter, limits) = (Arc::new(Limiter::default()), limits(&[(1, 1, 0)], None));
        let now = Instant::now();
        assert_eq!(passed(&limiter, &limits, "2001:db8::1", 2, now), 1);
        assert_eq!(passed(&limiter, &limits, "2001:db8::2", 2, now), 0);
        assert_eq!(passed(&limiter, &limits, "2001:db8:0:1::1", 2, now), 1);
    }

    #[test]
    fn requests_at_one_time_are_counted_until_they_are_answered() {
        let (limiter, limits) = (Arc::new(Limiter::default()), limits(&[], Some(2)));
        let now = Instant::now();
        let turn = || limiter.turn(&limits, client("203.0.113.2"), now);
        let (first, _second) = (turn(), turn());
        assert!(matches!(turn(), Turn::TooMany));
        drop(first);
        assert!(matches!(turn(), Turn::Go(Some(_))));
        let none = Limits {
            at_once: Some(0),
            ..limits.clone()
        };
        assert!(matches!(
            limiter.turn(&none, client("203.0.113.4"), now),
            Turn::TooMany
        ));
    }

    #[test]
    fn the_room_for_clients_is_limited_and_empty_buckets_are_forgotten() {
        let (limiter, limits) = (Arc::new(Limiter::default()), limits(&[(1, 1, 0)], None));
        let begin = Instant::now();
        let all = (0..u32::try_from(LIMITED_CLIENTS_MAX * 2).unwrap())
            .map(|n| IpAddr::from(n.to_be_bytes()));
        let passed = all
            .filter(|from| matches!(limiter.turn(&limits, *from, begin), Turn::Go(_)))
            .count();
        assert_eq!(passed, LIMITED_CLIENTS_MAX);
        let later = begin + Duration::from_secs(2);
        assert!(matches!(
            limiter.turn(&limits, client("203.0.113.2"), later),
            Turn::Go(_)
        ));
    }
}
