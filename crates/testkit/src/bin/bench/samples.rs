//! Many measured times of one thing, and what is said of them.

use std::time::Duration;

/// Measured times, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// The time that this share of all samples (0 to 100 percent) does not exceed, in milliseconds: the smallest sample
    /// with at least that many at or below it. `None` without samples.
    pub fn millis(&self, percent: u32) -> Option<f64> {
        let rank = (self.0.len() * percent as usize).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().map(millis)
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort_unstable();
        Samples(times)
    }
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Samples = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(samples.millis(50), Some(100.0));
        assert_eq!(samples.millis(99), Some(198.0));
        assert_eq!(samples.millis(100), Some(200.0));
        assert_eq!(samples.millis(0), Some(1.0));
    }

    #[test]
    fn one_sample_is_all_percentiles_and_none_is_none() {
        let one: Samples = [Duration::from_millis(7)].into_iter().collect();
        assert_eq!((one.millis(50), one.millis(99)), (Some(7.0), Some(7.0)));
        assert_eq!(Samples::default().millis(50), None);
    }
}
