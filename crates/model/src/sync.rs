//! The loop that makes a [`Target`] look like the newest [`Snapshot`]: when to compile, to diff, to apply, to wait.
//!
//! A pure state machine: its owner passes time in, waits until [`Sync::due`], and calls [`Sync::step`].
//!
//! ```text
//!   on_snapshot ──▶ wanted ─┐
//!                           ▼
//!   step: compile or update ─▶ read back what stands, if it is not known ─▶ diff ─▶ apply
//!              │ ok: known; next step not before `min`                            │ failed: not known
//!              └ after `max` without a change: is it still so?                    └ back off, read back or rewrite
//! ```
//!
//! Before the first Snapshot nothing is done at all, so a restart leaves what stands until everything is known.

use std::time::Duration;

use crate::backend::{ApplyError, Backend, Target};
use crate::problem::Problem;
use crate::snapshot::Snapshot;

/// How often the target is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Time between two changes (`minSyncPeriod`): changes that arrive meanwhile are applied together.
    pub min: Duration,
    /// Time after which it is looked whether everything still stands (`syncPeriod`).
    pub max: Duration,
    /// Wait after the first failure; doubled by each further one.
    pub backoff_first: Duration,
    /// The longest wait after a failure.
    pub backoff_max: Duration,
}

impl Default for Pace {
    /// 10 ms, 30 s, 100 ms, 10 s.
    fn default() -> Self {
        Pace {
            min: Duration::from_millis(10),
            max: Duration::from_secs(30),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// What one step has done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is wrong with the Services that this step has compiled.
    pub problems: Vec<Problem>,
    /// Whether the newest Snapshot stands now (also if there was nothing to do).
    pub stands: bool,
    /// Whether the target was changed.
    pub applied: bool,
    /// Whether something had been changed behind our back and was put right.
    pub repaired: bool,
    /// How many Service ports this step has compiled.
    pub compiled: usize,
    /// Why it failed; another try follows.
    pub error: Option<ApplyError>,
}

/// What is known of the target.
enum Standing<S> {
    /// It has to be read.
    Unknown,
    /// Reading did not help: everything is rewritten.
    Distrusted,
    /// This stands there.
    Known(S),
}

/// The state of one target: what is wanted, what stands, when to do something. Times count from any fixed moment.
pub struct Sync<B: Backend> {
    backend: B,
    pace: Pace,
    wanted: Option<Snapshot>,
    /// The last Snapshot that was compiled, and what it became.
    compiled: Option<(Snapshot, B::State)>,
    standing: Standing<B::State>,
    /// Whether `wanted` differs from what was compiled and applied last.
    pending: bool,
    failures: u32,
    /// Nothing is done before this time.
    not_before: Duration,
    /// When it is looked whether everything still stands.
    verify_at: Duration,
}

impl<B: Backend> Sync<B> {
    /// A loop that knows nothing yet.
    pub fn new(backend: B, pace: Pace) -> Self {
        Sync {
            backend,
            pace,
            wanted: None,
            compiled: None,
            standing: Standing::Unknown,
            pending: false,
            failures: 0,
            not_before: Duration::ZERO,
            verify_at: Duration::ZERO,
        }
    }

    /// The newest Snapshot; it replaces one that was not applied yet. Only complete ones may come here.
    pub fn on_snapshot(&mut self, snapshot: Snapshot) {
        self.wanted = Some(snapshot);
        self.pending = true;
    }

    /// When [`Sync::step`] wants to be called; `None` before the first Snapshot.
    pub fn due(&self) -> Option<Duration> {
        self.wanted.as_ref()?;
        match self.pending {
            true => Some(self.not_before),
            // After a look that failed, its time has passed.
            false => Some(self.verify_at.max(self.not_before)),
        }
    }

    /// What stands in the target, if the newest Snapshot does: for listings and `trace`.
    pub fn state(&self) -> Option<&B::State> {
        match &self.standing {
            Standing::Known(state) => Some(state),
            _ => None,
        }
    }

    /// The Snapshot that was compiled last.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.compiled.as_ref().map(|(snapshot, _)| snapshot)
    }

    /// Does what is due at `now`, if anything is.
    pub fn step(&mut self, now: Duration, target: &mut impl Target<B>) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(wanted) = self.wanted.clone() else {
            return outcome;
        };
        if self.due().is_none_or(|due| due > now) {
            return outcome;
        }
        self.compile(&wanted, &mut outcome);
        match self.bring(now, target, &mut outcome) {
            Ok(()) => {
                outcome.stands = true;
                self.pending = false;
                self.failures = 0;
                self.not_before = now + self.pace.min;
            }
            Err(error) => {
                outcome.error = Some(error);
                // The first try after a failure reads back, later ones rewrite everything.
                self.standing = match self.failures {
                    0 => Standing::Unknown,
                    _ => Standing::Distrusted,
                };
                let doublings = self.failures.min(16);
                let wait = self.pace.backoff_first * (1 << doublings);
                self.not_before = now + wait.min(self.pace.backoff_max);
                self.failures = self.failures.saturating_add(1);
            }
        }
        outcome
    }

    /// Brings the compiled State to the wanted Snapshot, at the cost of what has changed.
    fn compile(&mut self, wanted: &Snapshot, outcome: &mut Outcome) {
        match &mut self.compiled {
            Some((snapshot, state)) if snapshot.node() == wanted.node() => {
                let touched = wanted.touched(snapshot);
                outcome.compiled = touched.len();
                outcome.problems = self.backend.update(state, wanted, &touched);
                *snapshot = wanted.clone();
            }
            _ => {
                let (state, problems) = self.backend.compile(wanted);
                outcome.compiled = wanted.len();
                outcome.problems = problems;
                self.compiled = Some((wanted.clone(), state));
            }
        }
    }

    /// Makes the target look like the compiled State.
    fn bring(
        &mut self,
        now: Duration,
        target: &mut impl Target<B>,
        outcome: &mut Outcome,
    ) -> Result<(), ApplyError> {
        let Some((_, state)) = &self.compiled else {
            return Ok(());
        };
        let verified = now >= self.verify_at;
        let mut suspected = None;
        if let Standing::Known(before) = &self.standing
            && verified
            && !target.unchanged()?
        {
            suspected = Some(before.clone());
            self.standing = Standing::Unknown;
        }
        let from = match &self.standing {
            Standing::Known(state) => Some(state.clone()),
            Standing::Unknown => target.read()?,
            Standing::Distrusted => None,
        };
        // Somebody may change other tables all the time: it is a repair only if ours had been changed.
        outcome.repaired = suspected.is_some_and(|before| from != Some(before));
        let ops = self.backend.diff(from.as_ref(), state);
        if !self.backend.is_empty(&ops) {
            target.apply(&ops)?;
            outcome.applied = true;
        }
        self.standing = Standing::Known(state.clone());
        if verified || from.is_none() {
            self.verify_at = now + self.pace.max;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
