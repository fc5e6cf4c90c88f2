//! When to look for stale flows: after every change that may have made some, and never so often that it hurts.
//!
//! A pure state machine, as [`crate::sync`]: time is an argument, and the owner does the sweep itself.
//!
//! ```text
//!   on_stands(snapshot) ──▶ due ──▶ begin: Sweep ──▶ (owner looks through conntrack) ──▶ end
//!                            ▲                                                     │
//!                            └── rest: ten times as long as it took; after a failure, back off
//! ```
//!
//! A failed sweep is not forgotten: the next one covers its changes too.

use std::time::Duration;

use crate::door::Doors;
use crate::snapshot::Snapshot;
use crate::stale::Sweep;

/// A sweep is followed by this many times its own duration without one: it takes a tenth of the thread at most.
const REST: u32 = 10;
/// Wait after the first failure; doubled by each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What has been swept and what has not. Times count from any fixed moment.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// What stood at the last complete sweep.
    swept: Option<Snapshot>,
    /// What stands now, when a sweep is owed to it.
    owed: Option<Snapshot>,
    failures: u32,
    not_before: Duration,
    /// Of the relay, in userspace mode.
    doors: Option<Doors>,
}

impl Sweeper {
    /// For userspace mode, with a relay behind these doors.
    pub fn with_relay(doors: Doors) -> Self {
        Sweeper {
            doors: Some(doors),
            ..Sweeper::default()
        }
    }

    /// `snapshot` stands in the kernel. It costs what has changed since the last sweep.
    pub fn on_stands(&mut self, snapshot: &Snapshot) {
        let sweep = Sweep::new(self.swept.as_ref(), snapshot);
        match sweep.protocols().is_empty() {
            true => {
                self.swept = Some(snapshot.clone());
                self.owed = None;
            }
            false => self.owed = Some(snapshot.clone()),
        }
    }

    /// When the next sweep is due, if one is.
    pub fn due(&self) -> Option<Duration> {
        self.owed.as_ref().map(|_| self.not_before)
    }

    /// The sweep that is due at `now`, if one is. Report it with [`Sweeper::end`].
    pub fn begin(&self, now: Duration) -> Option<Sweep> {
        let owed = self.owed.as_ref().filter(|_| self.not_before <= now)?;
        let sweep = Sweep::new(self.swept.as_ref(), owed);
        Some(match &self.doors {
            None => sweep,
            Some(doors) => sweep.with_relay(doors),
        })
    }

    /// The sweep that was begun is over at `now` and took `took`.
    pub fn end(&mut self, now: Duration, took: Duration, complete: bool) {
        if complete {
            self.swept = self.owed.take();
            self.failures = 0;
            self.not_before = now + took * REST;
            return;
        }
        let wait = BACKOFF_FIRST * (1 << self.failures.min(16));
        self.not_before = now + wait.min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests;
