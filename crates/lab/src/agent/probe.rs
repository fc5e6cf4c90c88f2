//! One probe of one run of a container: when it is due, and what its results mean. The kubelet's rules; pure.
//!
//! One thing is quicker than in the kubelet: until the first success a readiness or startup probe is also tried between
//! its periods, so that a pod is ready soon after its server is up. Failures of these extra tries do not count.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;

/// Extra tries come no closer together than this …
const EXTRA_MIN: Duration = Duration::from_millis(50);
/// … and no farther apart than this.
const EXTRA_MAX: Duration = Duration::from_secs(1);

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Holds the other two back until it has succeeded once.
    Startup,
    /// Restarts the container when it fails.
    Liveness,
    /// Says whether the pod may get traffic.
    Readiness,
}

impl Kind {
    /// As events name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }
}

/// The numbers of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// From the container's start to the first try.
    pub initial_delay: Duration,
    /// Between tries.
    pub period: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// How many successes in a row turn the result.
    pub successes: u32,
    /// How many failures in a row turn the result.
    pub failures: u32,
}

impl From<&Probe> for Rules {
    fn from(probe: &Probe) -> Rules {
        let seconds = |value: Option<i32>, default: u64| {
            let given = value.and_then(|value| u64::try_from(value).ok());
            Duration::from_secs(given.filter(|value| *value > 0).unwrap_or(default))
        };
        let count = |value: Option<i32>, default: u32| {
            let given = value.and_then(|value| u32::try_from(value).ok());
            given.filter(|value| *value > 0).unwrap_or(default)
        };
        Rules {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: count(probe.success_threshold, 1),
            failures: count(probe.failure_threshold, 3),
        }
    }
}

/// A probe over time.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// What it is for.
    pub kind: Kind,
    /// Its numbers.
    pub rules: Rules,
    /// Its result so far: success?
    pub result: bool,
    begin: Timestamp,
    next_tick: Timestamp,
    next_extra: Option<Timestamp>,
    /// Whether a try is under way, and whether its failure will count.
    trying: Option<bool>,
    streak: (bool, u32),
}

/// What one try has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effect {
    /// The result is another one now.
    pub changed: bool,
    /// The failure counts, so people should hear of it.
    pub failed: bool,
    /// A liveness or startup probe has failed for good: the container must be restarted.
    pub fatal: bool,
}

impl Schedule {
    /// The probe of a run that began at `started`. `known` is the result that an earlier agent had found.
    pub fn new(
        kind: Kind,
        rules: Rules,
        started: Timestamp,
        now: Timestamp,
        known: Option<bool>,
    ) -> Schedule {
        let begin = started + rules.initial_delay;
        let result = known.unwrap_or(kind == Kind::Liveness);
        let first = begin.max(now);
        let extra = kind != Kind::Liveness && !result && rules.successes == 1;
        Schedule {
            kind,
            rules,
            result,
            begin,
            next_tick: first,
            next_extra: extra.then_some(first),
            trying: None,
            streak: (result, 0),
        }
    }

    /// When the next try is due; none while one is under way.
    pub fn due(&self) -> Option<Timestamp> {
        if self.trying.is_some() {
            return None;
        }
        Some(
            self.next_extra
                .map_or(self.next_tick, |extra| extra.min(self.next_tick)),
        )
    }

    /// A try begins.
    pub fn begin(&mut self, now: Timestamp) {
        let counts = now >= self.next_tick;
        self.trying = Some(counts);
        if counts {
            // A tick that was missed (the last try took long) is not made up for.
            while self.next_tick <= now {
                self.next_tick += self.rules.period;
            }
        }
        if self.next_extra.is_some() {
            let age = Duration::try_from(now.duration_since(self.begin)).unwrap_or_default();
            self.next_extra = Some(now + (age / 4).clamp(EXTRA_MIN, EXTRA_MAX));
        }
    }

    /// The try is over.
    pub fn finish(&mut self, success: bool) -> Effect {
        let counts = self.trying.take().unwrap_or(true) || success;
        if !counts {
            return Effect::default();
        }
        if success {
            self.next_extra = None;
        }
        self.streak = match self.streak {
            (last, count) if last == success => (last, count.saturating_add(1)),
            _ => (success, 1),
        };
        let needed = if success {
            self.rules.successes
        } else {
            self.rules.failures
        };
        let decided = self.streak.1 >= needed;
        let changed = decided && self.result != success;
        if decided {
            self.result = success;
        }
        Effect {
            changed,
            failed: !success,
            fatal: decided && !success && self.kind != Kind::Readiness,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        successes: 1,
        failures: 3,
    };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    /// Runs the probe of a server that is up from `up` to `down`; the tries (in ms) and how each ended.
    fn drive(schedule: &mut Schedule, up: i64, down: i64, until: i64) -> Vec<(i64, Effect)> {
        let mut tries = Vec::new();
        while let Some(due) = schedule.due().filter(|due| *due < at(until)) {
            schedule.begin(due);
            let ms = due.as_millisecond();
            tries.push((ms, schedule.finish((up..down).contains(&ms))));
        }
        tries
    }

    #[test]
    fn readiness_is_found_quickly_and_then_checked_at_the_period() {
        let mut probe = Schedule::new(Kind::Readiness, RULES, at(0), at(0), None);
        let tries = drive(&mut probe, 300, i64::MAX, 25_000);
        let found = tries.iter().find(|(_, effect)| effect.changed).unwrap().0;
        assert!((300..400).contains(&found), "{tries:?}");
        let after: Vec<_> = tries.iter().map(|t| t.0).filter(|ms| *ms > found).collect();
        assert_eq!(after, [10_000, 20_000]);
        assert!(probe.result);
    }

    #[test]
    fn extra_tries_never_use_up_a_startup_probe() {
        let mut probe = Schedule::new(Kind::Startup, RULES, at(0), at(0), None);
        let tries = drive(&mut probe, i64::MAX, i64::MAX, 20_001);
        let fatal: Vec<_> = tries.iter().filter(|t| t.1.fatal).map(|t| t.0).collect();
        assert_eq!(fatal, [20_000], "the third period, as the kubelet counts");
        assert!(tries.len() > 20);
    }

    #[test]
    fn liveness_fails_after_its_threshold_only() {
        let rules = Rules {
            initial_delay: Duration::from_secs(5),
            ..RULES
        };
        let mut probe = Schedule::new(Kind::Liveness, rules, at(0), at(0), None);
        assert!(probe.result, "alive until the contrary is shown");
        let tries = drive(&mut probe, 0, 20_000, 60_000);
        let times: Vec<_> = tries.iter().map(|t| t.0).collect();
        assert_eq!(times, [5_000, 15_000, 25_000, 35_000, 45_000, 55_000]);
        let fatal = tries.iter().find(|t| t.1.fatal).unwrap().0;
        assert_eq!(fatal, 45_000);
    }

    #[test]
    fn one_success_between_failures_starts_the_count_again() {
        let mut probe = Schedule::new(Kind::Liveness, RULES, at(0), at(0), None);
        for success in [false, false, true, false, false] {
            assert!(!probe.finish(success).fatal);
        }
        assert!(probe.finish(false).fatal);
    }

    #[test]
    fn a_success_threshold_waits_for_that_many_periods() {
        let rules = Rules {
            successes: 3,
            ..RULES
        };
        let mut probe = Schedule::new(Kind::Readiness, rules, at(0), at(0), None);
        let tries = drive(&mut probe, 0, i64::MAX, 30_000);
        let changed: Vec<_> = tries.iter().map(|t| (t.0, t.1.changed)).collect();
        assert_eq!(changed, [(0, false), (10_000, false), (20_000, true)]);
    }

    #[test]
    fn a_new_agent_keeps_what_the_old_one_knew() {
        let probe = Schedule::new(Kind::Readiness, RULES, at(0), at(99_000), Some(true));
        assert!(probe.result);
        assert_eq!(probe.due(), Some(at(99_000)));
    }
}
