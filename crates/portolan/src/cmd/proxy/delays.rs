//! How long changes take from their event to the kernel, exactly: quantiles of the newest ones, as gauges.
//!
//! A histogram that says whether the 99th percentile is 3 or 5 ms would need hundreds of buckets.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Changes that are remembered: ten for what the last quantile leaves out, in 16 KiB.
const DELAYS_MAX: usize = 1000;

/// The quantiles that are told, in thousandths, and their label.
const QUANTILES: [(usize, &str); 4] = [(500, "0.5"), (900, "0.9"), (990, "0.99"), (1000, "1")];

/// The newest delays.
#[derive(Debug, Default)]
pub(super) struct Delays {
    newest: Mutex<VecDeque<Duration>>,
    /// One for each quantile.
    gauges: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
}

impl Delays {
    /// What to register.
    pub(super) fn gauges(
        &self,
    ) -> Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>> {
        self.gauges.clone()
    }

    /// One more change stands in the kernel.
    pub(super) fn observe(&self, delay: Duration) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len() == DELAYS_MAX {
            newest.pop_front();
        }
        newest.push_back(delay);
    }

    /// Brings the gauges up to date.
    pub(super) fn tell(&self) {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<Duration> = newest.iter().copied().collect();
        drop(newest);
        sorted.sort_unstable();
        for (thousandths, label) in QUANTILES {
            let rank = (sorted.len() * thousandths).div_ceil(1000).max(1);
            if let Some(delay) = sorted.get(rank - 1) {
                let gauge = self.gauges.get_or_create(&[("quantile", label)]);
                gauge.set(delay.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(delays: &Delays, label: &'static str) -> f64 {
        delays.tell();
        delays.gauges.get_or_create(&[("quantile", label)]).get()
    }

    #[test]
    fn quantiles_are_those_of_the_newest_changes() {
        let delays = Delays::default();
        assert_eq!(told(&delays, "0.5"), 0.0);
        (1..=100).for_each(|n| delays.observe(Duration::from_secs(n)));
        assert_eq!(told(&delays, "0.5"), 50.0);
        assert_eq!(told(&delays, "0.99"), 99.0);
        assert_eq!(told(&delays, "1"), 100.0);
        (0..DELAYS_MAX).for_each(|_| delays.observe(Duration::from_secs(1)));
        assert_eq!(told(&delays, "1"), 1.0);
        assert_eq!(delays.newest.lock().unwrap().len(), DELAYS_MAX);
    }
}
