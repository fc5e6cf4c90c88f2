//! Finds endpoints that do not answer, from the flows that go to them and from checks of its own.
//!
//! ```text
//!   new connection ─▶ after 0.25 s: has it been answered? ─▶ finished: it lives
//!                                  │ nothing came back, or it is quiet
//!                                  ▼
//!        trial: a check of the endpoint; 0.6 s later another one, and checks of up to three siblings
//!                                  │ 1 s later: neither was answered, a sibling's was
//!                                  ▼
//!        ejected ─▶ trials go on, with backoff ─▶ a check is answered, or no sibling's is ─▶ readmitted
//! ```
//!
//! One rule protects the healthy: an endpoint is out of rotation only while it does not answer *and another one of the
//! same Service port answers the same kind of check meanwhile*. A node that is cut off itself, a policy that drops our
//! checks and a protocol that makes nothing of them make all siblings fail alike, and nobody is ejected.
//! docs/decisions/0004-endpoints-that-do-not-answer.md says why it is done so, and what else was thought of.
//!
//! TCP only: nothing that can be sent to any server of UDP tells whether it lives.
//!
//! Pure: time is an argument, flows and answers come in, [`Order`]s go out; the overlay says who is ejected.

mod bucket;
mod detector;
mod trial;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::service::Listener;

pub use detector::Detector;

/// What users may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the ready endpoints of a Service port, so many percent may be ejected; one may always be, the last one never.
    pub percent_max: u8,
    /// How long an endpoint may take to answer a check.
    pub patience: Duration,
    /// Checks that are begun in one second at most.
    pub checks_per_second: u32,
    /// An ejected endpoint is checked after this time, then after twice as long, …
    pub backoff_first: Duration,
    /// … and at last after this time, again and again.
    pub backoff_max: Duration,
}

impl Default for Config {
    /// 50 %, 1 s, 200 checks, 500 ms, 10 s.
    fn default() -> Self {
        Config {
            percent_max: 50,
            patience: Duration::from_secs(1),
            checks_per_second: 200,
            backoff_first: Duration::from_millis(500),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// Names a flow of TCP: the original tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// The client.
    pub source: SocketAddr,
    /// Where it wants to go: an address of a Service.
    pub destination: SocketAddr,
}

/// What can be seen of a flow some time after it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowState {
    /// Nothing has come back, or a refusal that conntrack remembers.
    Unanswered,
    /// It is connected, and nothing tells whether the process has noticed.
    Quiet,
    /// The process has answered: both sides have closed.
    Finished,
    /// conntrack does not know it any more.
    Gone,
    /// It could not be looked at.
    Unknown,
}

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The process answered: it closed a connection that we closed, or sent something.
    Answered,
    /// The kernel took the connection, the process did nothing with it.
    Silent,
    /// Nobody listens there.
    Refused,
    /// No connection came about.
    Unreachable,
    /// We could not check: it tells nothing about the endpoint.
    Unknown,
}

/// Why an endpoint counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It takes connections and does nothing with them.
    Silent,
    /// It refuses connections.
    Refused,
    /// It does not answer at all.
    Unreachable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 3] = [Reason::Silent, Reason::Refused, Reason::Unreachable];

    /// One word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Silent => "silent",
            Reason::Refused => "refused",
            Reason::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Silent => "it takes connections but its process does nothing with them",
            Reason::Refused => "it refuses connections",
            Reason::Unreachable => "it does not answer at all",
        })
    }
}

/// What the owner of a [`Detector`] has to do. Each is reported back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Look what became of this flow, and say it with [`Detector::on_look`].
    Look(Listener, FlowKey),
    /// Check this endpoint, and say it with [`Detector::on_check`] within `patience`.
    Check {
        /// Names the check.
        id: u64,
        /// Whom to check.
        listener: Listener,
        /// How long to wait for an answer.
        patience: Duration,
    },
}

/// What people want to know. The overlay has it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Out of rotation.
    Ejected(Listener, Reason),
    /// Back in rotation, after this time.
    Readmitted(Listener, Duration),
    /// It does not answer, but stays, because no more of its siblings may be ejected.
    KeptByLimit(Listener, Reason),
    /// It does not answer, but stays, because no sibling answers either, or because it serves without answering checks.
    KeptAlone(Listener, Reason),
}

#[cfg(test)]
mod tests;
