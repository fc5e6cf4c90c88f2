//! A budget: so many in a second, and no more at once.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct Bucket {
    per_second: u32,
    left: f64,
    at: Duration,
}

impl Bucket {
    pub fn full(per_second: u32) -> Self {
        Bucket {
            per_second,
            left: f64::from(per_second),
            at: Duration::ZERO,
        }
    }

    /// Takes `count`, or nothing.
    pub fn take(&mut self, now: Duration, count: usize) -> bool {
        let most = f64::from(self.per_second);
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * most).min(most);
        self.at = now;
        let enough = self.left >= count as f64;
        if enough {
            self.left -= count as f64;
        }
        enough
    }
}
