//! Chances as fractions, so that the trace can say exactly which share of the flows an endpoint gets: the kernel's
//! numbers are rounded, but only one simple fraction is rounded to each.

use super::rule::CHANCE_ONE;

/// `above / below`, in the smallest numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fraction {
    pub above: u128,
    pub below: u128,
}

impl Fraction {
    pub const ZERO: Fraction = Fraction { above: 0, below: 1 };
    pub const ONE: Fraction = Fraction { above: 1, below: 1 };

    /// The simplest fraction that the kernel holds as `chance / 2^31`.
    pub fn of_chance(chance: u32) -> Self {
        // Half a step to both sides, so in steps of 2^-32.
        let (chance, one) = (u128::from(chance), u128::from(CHANCE_ONE));
        let low = Fraction {
            above: (2 * chance).saturating_sub(1),
            below: 2 * one,
        };
        let high = Fraction {
            above: 2 * chance + 1,
            below: 2 * one,
        };
        simplest(low, high)
    }

    pub fn plus(self, other: Self) -> Self {
        let below = lcm(self.below, other.below);
        let above = self.above * (below / self.below) + other.above * (below / other.below);
        reduced(above, below)
    }

    pub fn times(self, other: Self) -> Self {
        reduced(self.above * other.above, self.below * other.below)
    }

    /// What is left of one.
    pub fn rest(self) -> Self {
        reduced(self.below.saturating_sub(self.above), self.below)
    }
}

/// The fraction with the smallest numbers between two positive ones, by their continued fractions: as long as both have
/// the same whole part it is that of the result, and what is behind it is turned over.
fn simplest(low: Fraction, high: Fraction) -> Fraction {
    let whole = low.above / low.below;
    let rest = low.above % low.below;
    if rest == 0 {
        return Fraction {
            above: whole,
            below: 1,
        };
    }
    if high.above / high.below > whole {
        return Fraction {
            above: whole + 1,
            below: 1,
        };
    }
    let turned = |one: Fraction| Fraction {
        above: one.below,
        below: one.above % one.below,
    };
    let behind = simplest(turned(high), turned(low));
    Fraction {
        above: whole * behind.above + behind.below,
        below: behind.above,
    }
}

fn reduced(above: u128, below: u128) -> Fraction {
    let common = gcd(above, below).max(1);
    Fraction {
        above: above / common,
        below: below / common,
    }
}

fn gcd(a: u128, b: u128) -> u128 {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

/// The least common multiple of two numbers that are not 0.
pub(crate) fn lcm(a: u128, b: u128) -> u128 {
    a / gcd(a, b) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rounded_is_found_again() {
        for below in 2..=4096_u32 {
            for above in [1, below / 3, below / 2, below - 1] {
                let share = f64::from(above) / f64::from(below);
                let chance = (share * CHANCE_ONE as f64).round() as u32;
                let found = Fraction::of_chance(chance);
                assert_eq!(found, reduced(above.into(), below.into()));
            }
        }
    }

    #[test]
    fn chances_add_up() {
        let third = Fraction { above: 1, below: 3 };
        let half = Fraction { above: 1, below: 2 };
        assert_eq!(third.rest().times(half), third);
        assert_eq!(third.plus(third).plus(third), Fraction::ONE);
        assert_eq!(Fraction::ZERO.plus(half), half);
    }
}
