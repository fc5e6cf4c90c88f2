//! Gives endpoints that come into rotation their share little by little, where a Service asks for it.
//!
//! ```text
//!   the Overlay's Snapshot ──on_snapshot──▶ SlowStart ──snapshot──▶ the same with other `Endpoint::weight`s
//!                                  step, when due ──┘
//! ```
//!
//! While somebody behind a Service port is rising, weights there count in [`LEVELS`]: an endpoint that has its full share
//! weighs all of them times its weight, one that is rising the level that it has reached. All others pay nothing.
//! Whoever stands in the first Snapshot, or comes where nobody was in rotation, has the full share at once: there is
//! nobody who could take what it cannot do yet. docs/semantics.md has the rules R-SLOW-1 to R-SLOW-4.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::name::PortKey;
use crate::service::{Endpoint, ServicePort};
use crate::snapshot::Snapshot;

/// An endpoint begins with one of so many parts of its share, and gets one more each time; each of them is a change of
/// the data plane, so there are few.
pub const LEVELS: u16 = 10;

/// The shortest and the longest slow start: less is over before a flow can tell, more is a weight.
pub const SECONDS: std::ops::RangeInclusive<u16> = 1..=3600;

/// Levels are not raised more often than this, so that many endpoints that rise share their changes.
const PAUSE: Duration = Duration::from_millis(250);

/// Who is rising, since when. Times count from any fixed moment.
///
/// Invariant: `rising` names endpoints that are in rotation behind ports that ask for a slow start, and no port without
/// any; `effective` is `upstream` with the weights of their ports as of the last call.
#[derive(Clone, Debug, Default)]
pub struct SlowStart {
    upstream: Snapshot,
    effective: Snapshot,
    rising: BTreeMap<PortKey, BTreeMap<SocketAddr, Duration>>,
    /// When a level is reached next.
    due: Option<Duration>,
}

impl SlowStart {
    /// Takes over a new Snapshot, at the cost of what it touches and of what is rising.
    pub fn on_snapshot(&mut self, now: Duration, upstream: Snapshot) {
        // The first one is what stood before us.
        if !self.upstream.is_empty() {
            for key in upstream.touched(&self.upstream) {
                self.compare(&key, upstream.port(&key).map(AsRef::as_ref), now);
            }
        }
        self.effective = upstream.clone();
        self.upstream = upstream;
        self.write(now);
    }

    /// When [`SlowStart::step`] wants to be called; `None` while nobody is rising.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Raises whoever has reached a level at `now`; false when nothing is due.
    pub fn step(&mut self, now: Duration) -> bool {
        let due = self.due.is_some_and(|due| due <= now);
        if due {
            self.write(now);
        }
        due
    }

    /// What shall stand in the kernel.
    pub fn snapshot(&self) -> &Snapshot {
        &self.effective
    }

    /// Finds who came into rotation behind the port `key`, and who left. (`write` forgets ports that ask for nothing.)
    fn compare(&mut self, key: &PortKey, port: Option<&ServicePort>, now: Duration) {
        let Some(port) = port.filter(|port| port.slow_start.is_some()) else {
            return;
        };
        let before = self.upstream.port(key);
        let was = |e: &&Endpoint| {
            let old = before.and_then(|before| before.endpoint(e.address));
            old.is_some_and(in_rotation)
        };
        let somebody = before.is_some_and(|before| before.endpoints.iter().any(in_rotation));
        let rising = self.rising.entry(key.clone()).or_default();
        rising.retain(|address, _| port.endpoint(*address).is_some_and(in_rotation));
        if somebody {
            let new = port.endpoints.iter().filter(|e| in_rotation(e) && !was(e));
            rising.extend(new.map(|e| (e.address, now)));
        }
    }

    /// Writes the weights of all ports with somebody who is rising, and forgets who has risen.
    fn write(&mut self, now: Duration) {
        let mut due: Option<Duration> = None;
        let (upstream, effective) = (&self.upstream, &mut self.effective);
        self.rising.retain(|key, rising| {
            let Some(port) = upstream.port(key) else {
                return false;
            };
            let Some(seconds) = port.slow_start else {
                return false;
            };
            let level = Duration::from_secs(seconds.get().into()) / LEVELS.into();
            rising.retain(|_, since| now.saturating_sub(*since) < level * LEVELS.into());
            if rising.is_empty() {
                effective.set(Arc::clone(port));
                return false;
            }
            effective.set(weighted(port, rising, level, now));
            let next = |since: &Duration| *since + level * reached(*since, level, now).into();
            due = due.into_iter().chain(rising.values().map(next)).min();
            true
        });
        self.due = due.map(|due| due.max(now + PAUSE));
    }
}

/// Whether new flows may go to this endpoint.
fn in_rotation(endpoint: &Endpoint) -> bool {
    endpoint.ready && !endpoint.ejected
}

/// The level that somebody has at `now` who rises since `since` and takes so long for each `level`.
fn reached(since: Duration, level: Duration, now: Duration) -> u16 {
    let passed = now.saturating_sub(since).as_millis() / level.as_millis();
    1 + passed as u16
}

fn weighted(
    port: &ServicePort,
    rising: &BTreeMap<SocketAddr, Duration>,
    level: Duration,
    now: Duration,
) -> ServicePort {
    let of = |endpoint: &Endpoint| {
        let since = rising.get(&endpoint.address);
        let levels = since.map_or(LEVELS, |since| reached(*since, level, now));
        Endpoint {
            weight: endpoint.weight.saturating_mul(levels),
            ..endpoint.clone()
        }
    };
    ServicePort {
        endpoints: port.endpoints.iter().map(of).collect(),
        ..port.clone()
    }
}

#[cfg(test)]
mod tests;
