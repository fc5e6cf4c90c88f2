//! How long to wait before the next try: doubling, jittered, capped.

use std::time::Duration;

use kube::runtime::utils::Backoff as KubeBackoff;

/// Waits from `first`, doubled each time, up to `cap`; up to half of each is cut off at random, so that many clients
/// that lost one server do not come back all at once.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first`, never above `cap`.
    pub fn new(first: Duration, cap: Duration) -> Self {
        Backoff {
            first,
            cap,
            next: first,
        }
    }

    /// The next time to wait.
    pub fn delay(&mut self) -> Duration {
        let full = self.next.min(self.cap);
        self.next = full.saturating_mul(2);
        full.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// Something worked: the next failure starts from the beginning.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.delay())
    }
}

impl KubeBackoff for Backoff {
    fn reset(&mut self) {
        Backoff::reset(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let waits: Vec<Duration> = (0..8).map(|_| backoff.delay()).collect();
        assert!(waits[0] <= Duration::from_millis(100) && waits[0] >= Duration::from_millis(50));
        assert!(waits[7] <= Duration::from_secs(1) && waits[7] >= Duration::from_millis(500));
        backoff.reset();
        assert!(backoff.delay() <= Duration::from_millis(100));
    }
}
