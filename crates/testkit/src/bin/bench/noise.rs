//! How sure a ratio is: two programs are measured in turns, and each turn gives a ratio of its own.

use std::fmt;

/// The range that the middle ratio lies in with at least this confidence.
const CONFIDENCE: f64 = 0.95;

/// A ratio of two programs over all turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The smallest and the largest that the middle one may be.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { low, high } = self;
        write!(f, "within the noise, between {low:.2} and {high:.2} times")
    }
}

/// The range of the middle of `over / under`, turn by turn; a slow moment of the machine meets both. The bounds are the
/// `k`th smallest and the `k`th largest of all ratios, with the largest `k` that leaves the wanted confidence: whatever
/// the ratios' distribution, their middle is outside with the probability that of `n` coins fewer than `k` show heads,
/// or fewer than `k` tails. `None` with fewer turns than that takes.
pub fn range(over: &[f64], under: &[f64]) -> Option<Range> {
    let mut ratios: Vec<f64> = over.iter().zip(under).map(|(o, u)| o / u).collect();
    ratios.sort_by(f64::total_cmp);
    let rank = rank(ratios.len())?;
    Some(Range {
        low: ratios[rank],
        high: ratios[ratios.len() - 1 - rank],
    })
}

/// How many of so many ratios are outside on each side.
fn rank(count: usize) -> Option<usize> {
    let all = 0.5f64.powi(i32::try_from(count).ok()?);
    let (mut ways, mut outside) = (1.0, 0.0);
    for heads in 0..count {
        outside += 2.0 * ways * all;
        if outside > 1.0 - CONFIDENCE {
            return heads.checked_sub(1);
        }
        ways *= (count - heads) as f64 / (heads + 1) as f64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As tables of the sign test have it: of 15, the 4th and the 12th; of 6, the first and the last.
    #[test]
    fn bounds_are_those_of_the_sign_test() {
        let ranks = [1, 5, 6, 7, 9, 15, 25].map(rank);
        let expected = [None, None, Some(0), Some(0), Some(1), Some(3), Some(7)];
        assert_eq!(ranks, expected);
        let ours: Vec<f64> = (1..=15).map(f64::from).collect();
        let range = range(&ours, &[2.0; 15]).unwrap();
        assert_eq!((range.low, range.high), (2.0, 6.0));
    }

    #[test]
    fn a_slow_moment_meets_both() {
        let ours = [10.0, 1.0, 10.0, 10.0, 2.0, 10.0];
        let theirs = ours.map(|value| value * 0.5);
        let range = range(&ours, &theirs).unwrap();
        assert_eq!((range.low, range.high), (2.0, 2.0));
    }
}
