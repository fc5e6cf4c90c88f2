//! When a thread lets datagrams gather before it takes the next ones: under load, and while that saves packets.
//!
//! A pause makes batches longer, and a longer batch has more answers to the same client, which go as one packet. Clients
//! that ask one question at a time have nothing of it, so pauses are tried for a while, and given up for longer.

use super::limits::{BATCH_MAX, GATHER_FROM, PAUSES_TRIED, PAUSES_UNTRIED};
use super::outbox::Sent;

/// Decides about pauses; time comes in as batches.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The last batch came after a pause.
    paused: bool,
    /// Batches with a pause before them since the last judgement, and what was sent for them.
    tried: u32,
    sent: Sent,
    /// Batches until pauses are tried again.
    untried: u32,
}

impl Pace {
    /// Whether there is a pause after a batch of so many datagrams, for which this was sent.
    pub fn pauses_after(&mut self, datagrams: usize, sent: Sent) -> bool {
        if self.paused {
            self.tried += 1;
            self.sent.answers += sent.answers;
            self.sent.packets += sent.packets;
            self.judge();
        }
        // Behind a full batch others wait already.
        let loaded = (GATHER_FROM..BATCH_MAX).contains(&datagrams);
        self.paused = loaded && self.untried == 0;
        self.untried = self.untried.saturating_sub(1);
        self.paused
    }

    /// A pause costs about as much as every sixth packet does, so a fourth of them must have been saved.
    fn judge(&mut self) {
        if self.tried < PAUSES_TRIED {
            return;
        }
        if self.sent.packets * 4 > self.sent.answers * 3 {
            self.untried = PAUSES_UNTRIED;
        }
        (self.tried, self.sent) = (0, Sent::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pauses there are after so many batches, all alike.
    fn pauses(pace: &mut Pace, batches: u32, datagrams: usize, packets: usize) -> usize {
        let answers = datagrams;
        let after = |_: &u32| pace.pauses_after(datagrams, Sent { answers, packets });
        (0..batches).filter(after).count()
    }

    /// One who asks alone, a pair of questions of a resolver, and a batch behind which others wait are answered at once.
    #[test]
    fn there_are_pauses_only_under_load() {
        for datagrams in 0..GATHER_FROM {
            assert_eq!(pauses(&mut Pace::default(), 100, datagrams, 1), 0);
        }
        for datagrams in GATHER_FROM..BATCH_MAX {
            assert_eq!(pauses(&mut Pace::default(), 100, datagrams, 1), 100);
        }
        assert_eq!(pauses(&mut Pace::default(), 100, BATCH_MAX, 1), 0);
    }

    #[test]
    fn pauses_that_save_nothing_are_given_up_for_a_while() {
        let mut pace = Pace::default();
        let round = PAUSES_TRIED + PAUSES_UNTRIED;
        let tried = PAUSES_TRIED as usize;
        assert_eq!(pauses(&mut pace, round, 16, 16), tried);
        assert_eq!(pauses(&mut pace, 10 * round, 16, 13), 10 * tried);
        // Clients with several questions have come.
        let later = pauses(&mut pace, 10 * round, 16, 12);
        assert!(later >= 9 * round as usize, "{later}");
    }
}
