//! Which TCP connections lead to an endpoint that is gone for good, and when to look for them (rules R-RESET of
//! docs/semantics.md).
//!
//! The decision and the timing only: connections come from `kernel::conntrack`, `kernel::Resets` ends them.
//! A pure state machine, as [`crate::sweep`]: time is an argument.
//!
//! ```text
//!   on_stands(snapshot) ──an endpoint is missing──▶ grace ──▶ begin: Gone ──▶ (owner looks, resets) ──▶ end
//!                            ▲                                                                        │
//!                            └──────────── what changed meanwhile has a grace of its own ─────────────┘
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use crate::door::Doors;
use crate::name::{PortKey, Protocol};
use crate::snapshot::Snapshot;
use crate::stale::Flow;

/// How long an endpoint must be missing: a pod that ends has sent its FINs by then, and an EndpointSlice that was
/// replaced is back.
pub const GRACE: Duration = Duration::from_secs(5);
/// A look is followed by this many times its own duration without one: it takes a tenth of the thread at most.
const REST: u32 = 10;
/// Wait after the first failure, and before what is left over is done; doubled by each further failure.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How far a TCP connection has come, as conntrack has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The endpoint has not answered yet.
    Opening,
    /// The client may still wait for something; perhaps it has closed its own half.
    Open,
    /// The endpoint has closed its half, or both sides have.
    Closing,
}

/// A TCP connection as conntrack knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub client: SocketAddr,
    /// Where it goes to, and who answers.
    pub flow: Flow,
    /// How far it has come.
    pub stage: Stage,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Stays,
    /// The kernel forgets it, so that the client's next SYN goes to another endpoint.
    IsForgotten,
    /// The client is told at once that it is over.
    IsReset,
}

/// What one look judges by: all that stood at any of these moments.
#[derive(Clone, Debug)]
pub struct Gone {
    before: Option<Snapshot>,
    /// What stood when the grace began.
    then: Snapshot,
    now: Snapshot,
}

impl Gone {
    /// What becomes of `connection`. Costs O(log n) of the number of ports and of endpoints.
    pub fn fate(&self, connection: &Connection) -> Fate {
        match connection.stage {
            _ if !self.is_gone(&connection.flow) => Fate::Stays,
            Stage::Opening => Fate::IsForgotten,
            Stage::Open => Fate::IsReset,
            Stage::Closing => Fate::Stays,
        }
    }

    /// What stands now.
    pub fn now(&self) -> &Snapshot {
        &self.now
    }

    /// Whether the endpoint of `flow` was missing at both ends of the grace, from every Service that has answered at
    /// its destination.
    fn is_gone(&self, flow: &Flow) -> bool {
        // A relay ends connections to endpoints itself, also while it gives way to another mode.
        if !flow.is_translated() || Doors::default().leads_to(self.now.node(), flow.replier) {
            return false;
        }
        let all = [self.before.as_ref(), Some(&self.then), Some(&self.now)];
        let mut owners = all.into_iter().flatten().filter_map(|snapshot| {
            let frontend = snapshot.frontend(flow.protocol, flow.destination)?;
            snapshot.owner(&frontend).map(|port| &port.key)
        });
        let missing = |key: &PortKey| {
            let lists = |snapshot: &Snapshot| lists(snapshot, key, flow.replier);
            !lists(&self.then) && !lists(&self.now)
        };
        let Some(owner) = owners.next() else {
            return false;
        };
        missing(owner) && owners.all(missing)
    }
}

/// Whether `key` lists an endpoint at `address`, in whatever condition.
fn lists(snapshot: &Snapshot, key: &PortKey, address: SocketAddr) -> bool {
    let listed = |endpoints: &[crate::Endpoint]| {
        let found = endpoints.binary_search_by_key(&address, |endpoint| endpoint.address);
        found.is_ok()
    };
    snapshot.port(key).is_some_and(|p| listed(&p.endpoints))
}

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Everything was looked at.
    Whole,
    /// There was more than can be done at once.
    Part,
    /// It was refused.
    Failed,
}

/// What has been looked at and what has not. Times count from any fixed moment.
#[derive(Debug, Default)]
pub struct Resetter {
    /// What stood at the last whole look.
    looked: Option<Snapshot>,
    /// An endpoint is missing since this moment, when this stood.
    missing: Option<(Duration, Snapshot)>,
    newest: Option<Snapshot>,
    failures: u32,
    not_before: Duration,
}

impl Resetter {
    /// `snapshot` stands in the kernel at `now`. It costs what has changed since the last look.
    pub fn on_stands(&mut self, now: Duration, snapshot: &Snapshot) {
        self.newest = Some(snapshot.clone());
        if self.missing.is_some() {
            return;
        }
        match lacks(snapshot, self.looked.as_ref()) {
            true => self.missing = Some((now, snapshot.clone())),
            false => self.looked = Some(snapshot.clone()),
        }
    }

    /// When the next look is due, if one is.
    pub fn due(&self) -> Option<Duration> {
        let (since, _) = self.missing.as_ref()?;
        Some((*since + GRACE).max(self.not_before))
    }

    /// The look that is due at `now`, if one is. Report it with [`Resetter::end`].
    pub fn begin(&self, now: Duration) -> Option<Gone> {
        self.due().filter(|due| *due <= now)?;
        let (_, then) = self.missing.as_ref()?;
        Some(Gone {
            before: self.looked.clone(),
            then: then.clone(),
            now: self.newest.clone()?,
        })
    }

    /// The look that was begun is over at `now` and took `took`.
    pub fn end(&mut self, now: Duration, took: Duration, look: Look) {
        match look {
            Look::Whole => {
                self.looked = self.missing.take().map(|(_, then)| then);
                self.failures = 0;
                self.not_before = now + took * REST;
                if let Some(newest) = self.newest.take() {
                    self.on_stands(now, &newest);
                }
            }
            Look::Part => {
                self.failures = 0;
                self.not_before = now + AGAIN_FIRST.max(took * REST);
            }
            Look::Failed => {
                let wait = AGAIN_FIRST * (1 << self.failures.min(16));
                self.not_before = now + wait.min(AGAIN_MAX);
                self.failures = self.failures.saturating_add(1);
            }
        }
    }
}

/// Whether a TCP port of `before` has an endpoint that it lacks in `now`; without `before`, whether there may be one.
fn lacks(now: &Snapshot, before: Option<&Snapshot>) -> bool {
    let Some(before) = before else {
        return now.ports().any(|port| port.key.protocol == Protocol::Tcp);
    };
    let touched = now.touched(before);
    let mut tcp = touched.iter().filter(|key| key.protocol == Protocol::Tcp);
    tcp.any(|key| {
        let had = before.port(key).map(|port| &port.endpoints[..]);
        let mut had = had.unwrap_or_default().iter();
        had.any(|endpoint| !lists(now, key, endpoint.address))
    })
}

/// When a connection that is being reset is provoked, counted from the first time: a client may lose a packet, and
/// Linux answers one packet out of order in half a second.
const PROVOKED_AT: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(600),
    Duration::from_millis(1_500),
    Duration::from_secs(4),
];
/// When it is over: by then clients that are silent have been told, and those that write have written again.
pub const OVER_AFTER: Duration = Duration::from_secs(10);

/// What is to be done for connections that are being reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provocation<T> {
    /// Who is provoked.
    pub whom: Vec<T>,
    /// Counts from 0.
    pub round: usize,
}

/// Connections that are being reset, in the order in which that began.
#[derive(Debug)]
pub struct Resetting<T> {
    batches: Vec<(Duration, Provocation<T>)>,
}

impl<T> Default for Resetting<T> {
    fn default() -> Self {
        let batches = Vec::new();
        Resetting { batches }
    }
}

impl<T: Clone> Resetting<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|(_, b)| b.whom.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// The reset of these begins at `now`.
    pub fn add(&mut self, now: Duration, whom: Vec<T>) {
        if !whom.is_empty() {
            self.batches.push((now, Provocation { whom, round: 0 }));
        }
    }

    /// When something is due.
    pub fn due(&self) -> Option<Duration> {
        let at = |(since, batch): &(Duration, Provocation<T>)| *since + offset(batch.round);
        self.batches.iter().map(at).min()
    }

    /// What is due at `now`; what is over leaves.
    pub fn step(&mut self, now: Duration) -> Vec<Provocation<T>> {
        let mut due = Vec::new();
        self.batches.retain_mut(|(since, batch)| {
            if *since + offset(batch.round) > now {
                return true;
            }
            if batch.round >= PROVOKED_AT.len() {
                return false;
            }
            due.push(batch.clone());
            batch.round += 1;
            true
        });
        due
    }
}

fn offset(round: usize) -> Duration {
    PROVOKED_AT.get(round).copied().unwrap_or(OVER_AFTER)
}

#[cfg(test)]
mod tests;
