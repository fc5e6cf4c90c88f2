//! The thread that owns the kernel's rules: sleeps until a Snapshot comes or something is due, then takes one step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_model::sync::{Outcome, Pace, Sync};
use portolan_model::{Backend, Problem, SlowStart, Snapshot, Target};
use portolan_reflect::{Problems, Reflection};
use tokio::sync::{mpsc, watch};

use super::flows::Flows;
use super::metrics::Telemetry;
use super::trims::Trims;
use super::waiting;

/// What the thread works with.
pub(super) struct Loop {
    pub(super) flows: Flows,
    pub(super) reflections: watch::Receiver<Option<Reflection>>,
    /// What stands in the kernel, for those who look at flows elsewhere.
    pub(super) standing: watch::Sender<Option<Snapshot>>,
    pub(super) problems: mpsc::Sender<Vec<Problem>>,
    pub(super) telemetry: Arc<Telemetry>,
    /// What was wrong with Services as they are written when that was last told.
    pub(super) told: Problems,
    /// When its sender is gone, the loop changes nothing any more, and drops `stands`.
    pub(super) stopped: watch::Receiver<()>,
    /// When its sender is gone too, the loop lets its target go.
    pub(super) released: watch::Receiver<()>,
    /// Becomes true when the rules stand for the first time.
    pub(super) stands: watch::Sender<bool>,
}

impl Loop {
    /// Works until it is stopped, or no more Reflections can come, and then waits until it is released.
    pub(super) fn run<B: Backend, T: Target<B>>(
        mut self,
        backend: B,
        mut target: T,
        pace: Pace,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let runtime = waiting()?;
        let mut sync = Sync::new(backend, pace);
        let mut slow = SlowStart::default();
        let mut trims = Trims::default();
        // A Snapshot may be there already.
        self.reflections.mark_changed();
        loop {
            let due = [sync.due(), slow.due(), trims.due(), self.flows.due()]
                .into_iter()
                .flatten()
                .min();
            match runtime.block_on(self.wait(due.map(|due| due.saturating_sub(start.elapsed())))) {
                Wake::Ended => break,
                Wake::Due => {}
                Wake::News => self.take(start.elapsed(), &mut slow, &mut sync),
            }
            if slow.step(start.elapsed()) {
                sync.on_snapshot(slow.snapshot().clone());
            }
            let began = Instant::now();
            let outcome = sync.step(start.elapsed(), &mut target);
            self.report(&outcome, began.elapsed());
            trims.on_step(start.elapsed(), outcome.compiled);
            if trims.step(start.elapsed()) {
                portolan_kernel::memory::trim();
                portolan_kernel::memory::unmap_text();
            }
            // Flows are looked at by what stands now: in between, on this very thread, nothing changes.
            if let (true, Some(snapshot)) = (outcome.stands, sync.snapshot()) {
                self.flows.on_stands(snapshot, &self.telemetry.sockets);
                self.standing.send_replace(Some(snapshot.clone()));
                self.stands.send_replace(true);
            }
            self.flows.sweep(start, &self.telemetry);
        }
        drop(self.stands);
        // It comes as an error: nothing is ever sent.
        drop(runtime.block_on(self.released.changed()));
        Ok(())
    }

    async fn wait(&mut self, due: Option<Duration>) -> Wake {
        let clock = async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = self.stopped.changed() => Wake::Ended,
            changed = self.reflections.changed() => match changed {
                Ok(()) => Wake::News,
                Err(_) => Wake::Ended,
            },
            () = clock => Wake::Due,
        }
    }

    fn take<B: Backend>(&mut self, now: Duration, slow: &mut SlowStart, sync: &mut Sync<B>) {
        let Some(reflection) = self.reflections.borrow_and_update().clone() else {
            return;
        };
        slow.on_snapshot(now, (*reflection.snapshot).clone());
        sync.on_snapshot(slow.snapshot().clone());
        // What finds no room now is told with the next Reflection.
        if self.tell(reflection.problems.since(&self.told)) {
            self.told = reflection.problems.clone();
        }
        self.telemetry.wanted(reflection);
    }

    fn report(&self, outcome: &Outcome, took: Duration) {
        if let Some(error) = &outcome.error {
            tracing::error!(%error, "the rules could not be written, trying again");
        }
        if outcome.repaired {
            tracing::warn!("somebody else had changed our rules; they are put right");
        }
        if outcome.applied {
            tracing::debug!(ports = outcome.compiled, ?took, "rules written");
        }
        self.tell(outcome.problems.clone());
        self.telemetry.stepped(outcome, took);
    }

    /// Telling people never holds up traffic: false when too much waits already.
    fn tell(&self, problems: Vec<Problem>) -> bool {
        let told = problems.is_empty() || self.problems.try_send(problems).is_ok();
        if !told {
            tracing::debug!("too many problems wait to be told");
        }
        told
    }
}

enum Wake {
    News,
    Due,
    Ended,
}
