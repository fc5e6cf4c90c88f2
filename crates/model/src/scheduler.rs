//! The kernel's own ways to choose a real server, for ipvs mode (`--ipvs-scheduler`, annotation
//! `portolan.dev/ipvs-scheduler`). Other modes cannot do most of them; `balance` is what every mode can do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A scheduler of IPVS: net/netfilter/ipvs/ip_vs_NAME.c of Linux.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Scheduler {
    /// One after the other; with weights it is `wrr`.
    #[default]
    RoundRobin,
    /// One after the other, by weight.
    WeightedRoundRobin,
    /// The fewest connections; with weights it is `wlc`.
    LeastConnection,
    /// The fewest connections for its weight.
    WeightedLeastConnection,
    /// The heaviest that answers: the others are spares.
    Failover,
    /// The heaviest until it has as many connections as it weighs.
    Overflow,
    /// By destination, unless it is overloaded; meant for caches.
    LocalityLeastConnection,
    /// The same with several servers for a destination.
    LocalityLeastConnectionReplicated,
    /// By a hash of the destination.
    DestinationHash,
    /// By a hash of the client's address.
    SourceHash,
    /// By Maglev's hash of the client's address.
    MaglevHash,
    /// The shortest expected delay.
    ShortestDelay,
    /// Whoever is idle, else the shortest expected delay.
    NeverQueue,
    /// The better of two at random.
    PowerOfTwo,
}

impl Scheduler {
    /// All of them.
    pub const ALL: [Scheduler; 14] = [
        Scheduler::RoundRobin,
        Scheduler::WeightedRoundRobin,
        Scheduler::LeastConnection,
        Scheduler::WeightedLeastConnection,
        Scheduler::Failover,
        Scheduler::Overflow,
        Scheduler::LocalityLeastConnection,
        Scheduler::LocalityLeastConnectionReplicated,
        Scheduler::DestinationHash,
        Scheduler::SourceHash,
        Scheduler::MaglevHash,
        Scheduler::ShortestDelay,
        Scheduler::NeverQueue,
        Scheduler::PowerOfTwo,
    ];

    /// The kernel's name of it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheduler::RoundRobin => "rr",
            Scheduler::WeightedRoundRobin => "wrr",
            Scheduler::LeastConnection => "lc",
            Scheduler::WeightedLeastConnection => "wlc",
            Scheduler::Failover => "fo",
            Scheduler::Overflow => "ovf",
            Scheduler::LocalityLeastConnection => "lblc",
            Scheduler::LocalityLeastConnectionReplicated => "lblcr",
            Scheduler::DestinationHash => "dh",
            Scheduler::SourceHash => "sh",
            Scheduler::MaglevHash => "mh",
            Scheduler::ShortestDelay => "sed",
            Scheduler::NeverQueue => "nq",
            Scheduler::PowerOfTwo => "twos",
        }
    }

    /// The same way to choose, of those that look at weights.
    pub const fn weighted(self) -> Self {
        match self {
            Scheduler::RoundRobin => Scheduler::WeightedRoundRobin,
            Scheduler::LeastConnection => Scheduler::WeightedLeastConnection,
            other => other,
        }
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scheduler {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |scheduler: &Scheduler| scheduler.as_str() == text;
        let known = || Scheduler::ALL.map(Scheduler::as_str).join(", ");
        let found = Scheduler::ALL.into_iter().find(named);
        found.ok_or_else(|| format!("{text:?} is none of {}", known()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheduler_has_the_kernels_name() {
        for scheduler in Scheduler::ALL {
            assert_eq!(scheduler.as_str().parse(), Ok(scheduler));
        }
        let wrong = "rrr".parse::<Scheduler>().unwrap_err();
        assert!(wrong.contains("\"rrr\" is none of rr, wrr, lc"), "{wrong}");
    }

    #[test]
    fn weights_count() {
        let weighted = |name: &str| name.parse::<Scheduler>().unwrap().weighted().as_str();
        assert_eq!(
            [weighted("rr"), weighted("lc"), weighted("sh")],
            ["wrr", "wlc", "sh"]
        );
    }
}
