//! The state of one probe: when it is due, and what its results mean. Pure; time is an argument.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Probe;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Has the container started? Until then the other probes wait.
    Startup,
    /// May it get traffic?
    Readiness,
    /// Does it live? If not it is killed.
    Liveness,
}

impl Purpose {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Purpose::Startup => "Startup",
            Purpose::Readiness => "Readiness",
            Purpose::Liveness => "Liveness",
        }
    }
}

/// One probe of one run of a container.
#[derive(Debug, Clone)]
pub struct ProbeState {
    period: Duration,
    first: Instant,
    last: Option<Instant>,
    thresholds: (u32, u32),
    /// Results of the same kind in a row: how many, and whether they were successes.
    streak: (u32, bool),
    verdict: bool,
}

impl ProbeState {
    /// A probe of a container that started at `started`, with the API's defaults for what is not given.
    /// `verdict` is what holds until the first result: a readiness that an earlier agent had found stays.
    pub fn new(probe: &Probe, started: Instant, verdict: bool) -> ProbeState {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.map_or(default, |v| v.max(0) as u64))
        };
        let count = |value: Option<i32>, default: u32| value.map_or(default, |v| v.max(1) as u32);
        ProbeState {
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            first: started + seconds(probe.initial_delay_seconds, 0),
            last: None,
            thresholds: (
                count(probe.success_threshold, 1),
                count(probe.failure_threshold, 3),
            ),
            streak: (0, false),
            verdict,
        }
    }

    /// How long one try may take.
    pub fn timeout(probe: &Probe) -> Duration {
        Duration::from_secs(
            probe
                .timeout_seconds
                .map_or(1, |seconds| seconds.max(1) as u64),
        )
    }

    /// When it is next due.
    pub fn due(&self) -> Instant {
        self.last.map_or(self.first, |last| last + self.period)
    }

    /// A try began at `began` and had this result. Returns the new verdict if it has changed, or has been confirmed
    /// by a full row of failures (a liveness probe acts on each).
    pub fn observe(&mut self, began: Instant, success: bool) -> Option<bool> {
        self.last = Some(began);
        self.streak = if self.streak.1 == success {
            (self.streak.0 + 1, success)
        } else {
            (1, success)
        };
        let (successes, failures) = self.thresholds;
        if self.streak.0 < if success { successes } else { failures } {
            return None;
        }
        if !success {
            self.streak.0 = 0;
        }
        let changed = self.verdict != success;
        self.verdict = success;
        (changed || !success).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state(probe: serde_json::Value, verdict: bool) -> (ProbeState, Instant) {
        let start = Instant::now();
        (
            ProbeState::new(&serde_json::from_value(probe).unwrap(), start, verdict),
            start,
        )
    }

    #[test]
    fn it_is_due_after_the_delay_and_then_every_period() {
        let (mut probe, start) =
            state(json!({"initialDelaySeconds": 5, "periodSeconds": 2}), false);
        assert_eq!(probe.due() - start, Duration::from_secs(5));
        probe.observe(start + Duration::from_secs(6), true);
        assert_eq!(probe.due() - start, Duration::from_secs(8));
    }

    #[test]
    fn thresholds_count_results_in_a_row() {
        let (mut probe, now) = state(json!({"successThreshold": 2, "failureThreshold": 3}), false);
        let mut see = |success| probe.observe(now, success);
        assert_eq!([see(true), see(false), see(true)], [None, None, None]);
        assert_eq!(see(true), Some(true));
        assert_eq!(see(true), None, "no news");
        assert_eq!(
            [see(false), see(false), see(false)],
            [None, None, Some(false)]
        );
        assert_eq!(
            [see(false), see(false), see(false)],
            [None, None, Some(false)],
            "each full row counts"
        );
    }

    #[test]
    fn the_defaults_are_the_apis() {
        let (mut probe, now) = state(json!({}), true);
        assert_eq!(probe.due(), now);
        assert_eq!(
            [false, false, false].map(|ok| probe.observe(now, ok)),
            [None, None, Some(false)]
        );
        assert_eq!(probe.due() - now, Duration::from_secs(10));
    }
}
