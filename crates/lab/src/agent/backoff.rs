//! How long a container that has ended waits before it is started again: the kubelet's rules. Pure.

use std::time::Duration;

use jiff::Timestamp;

/// The wait after the first restart.
pub const INITIAL: Duration = Duration::from_secs(10);
/// No wait is longer.
pub const MAX: Duration = Duration::from_secs(300);
/// A container that ran this long begins anew.
const RESET: Duration = Duration::from_secs(600);

/// The back-off of one container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    wait: Option<Duration>,
}

/// What is to be done about a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Start it.
    Now,
    /// Not before this time; the wait's full length is for people.
    At(Timestamp, Duration),
}

impl Backoff {
    /// The back-off of a container that was restarted this often; for an agent that is new itself.
    pub fn after(restarts: u32) -> Backoff {
        let wait = match restarts {
            0 => None,
            _ => Some((INITIAL * (1 << (restarts - 1).min(5))).min(MAX)),
        };
        Backoff { wait }
    }

    /// When the next run may start, after a run from `started` to `finished`.
    pub fn next(&self, started: Timestamp, finished: Timestamp, now: Timestamp) -> Restart {
        let Some(wait) = self.wait.filter(|_| ran(started, finished) < RESET) else {
            return Restart::Now;
        };
        match finished.checked_add(wait) {
            Ok(at) if now < at => Restart::At(at, wait),
            _ => Restart::Now,
        }
    }

    /// The container is started again: the next wait is twice as long, or the first one after a long run.
    pub fn restarted(&mut self, started: Timestamp, finished: Timestamp) {
        let wait = self.wait.filter(|_| ran(started, finished) < RESET);
        self.wait = Some(wait.map_or(INITIAL, |wait| (wait * 2).min(MAX)));
    }
}

fn ran(started: Timestamp, finished: Timestamp) -> Duration {
    Duration::try_from(finished.duration_since(started)).unwrap_or_default()
}

/// "10s", "1m20s", as the kubelet writes it.
pub fn spell(wait: Duration) -> String {
    match (wait.as_secs() / 60, wait.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        assert_eq!(
            backoff.next(at(0), at(1), at(1)),
            Restart::Now,
            "the first restart is immediate"
        );
        let mut waits = Vec::new();
        for _ in 0..7 {
            backoff.restarted(at(0), at(1));
            let Restart::At(when, wait) = backoff.next(at(0), at(1), at(1)) else {
                panic!("no wait")
            };
            assert_eq!(when, at(1 + wait.as_secs() as i64));
            waits.push(wait.as_secs());
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.next(at(0), at(1), at(301)), Restart::Now);
    }

    #[test]
    fn ten_minutes_of_life_reset_the_wait() {
        let mut backoff = Backoff::default();
        (0..5).for_each(|_| backoff.restarted(at(0), at(1)));
        assert_eq!(backoff.next(at(0), at(600), at(600)), Restart::Now);
        backoff.restarted(at(0), at(600));
        assert!(matches!(
            backoff.next(at(0), at(1), at(1)),
            Restart::At(_, INITIAL)
        ));
    }

    #[test]
    fn waits_are_spelled_as_the_kubelet_does() {
        assert_eq!(
            [10, 80, 300].map(|s| spell(Duration::from_secs(s))),
            ["10s", "1m20s", "5m0s"]
        );
    }
}
