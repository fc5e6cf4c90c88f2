//! The proof with faults: events in random order through the tracker and the sync loop into a target that fails.
//!
//! ```text
//!   steps ──▶ events, shuffled ──▶ Tracker ──▶ Sync ──▶ Faulty<fake>     time is a number that this module counts
//! ```
//!
//! One call in ten fails, half of these after it has done its work; now and then the agent is killed and starts anew,
//! and somebody flushes all rules. At the end the newest Snapshot must stand, whatever happened.

use std::time::Duration;

use fastrand::Rng;
use portolan_model::sync::{Pace, Sync};
use portolan_model::{ApplyError, Backend, Snapshot, Target};

use crate::cluster::{Change, Cluster, name_of};
use crate::scenario::Scenario;

/// Of a hundred calls, so many fail.
const FAILURES_PERCENT: u8 = 10;

/// Of a hundred events, so many are followed by a restart of the agent; and by a wiped target.
const ACCIDENTS_PERCENT: u8 = 5;

/// Steps of the sync loop after the last event, before it counts as stuck. With one failure in ten, that many in a row
/// are as good as impossible.
const SETTLING_STEPS_MAX: usize = 60;

/// A target that fails at random around one that does not.
#[derive(Debug)]
pub struct Faulty<T> {
    /// The target that does the work.
    pub inner: T,
    /// Somebody has wiped it, and nothing has stood in it since: it may refuse what builds on what stood before.
    wiped: bool,
    rng: Rng,
}

impl<T> Faulty<T> {
    /// Fails as `seed` says.
    pub fn new(inner: T, seed: u64) -> Self {
        Faulty {
            inner,
            wiped: false,
            rng: Rng::with_seed(seed),
        }
    }

    /// Whether something whole stands in it, asked without faults.
    fn has_all<B: Backend>(&mut self) -> bool
    where
        T: Target<B>,
    {
        matches!(self.inner.read(), Ok(Some(_)))
    }

    fn fails(&mut self) -> bool {
        self.rng.u8(0..100) < FAILURES_PERCENT
    }
}

/// Marks the faults that tests make.
pub(crate) const OURS: &str = "a fault of the test";

fn fault(doing: &str) -> ApplyError {
    ApplyError {
        doing: doing.to_owned(),
        words: format!("No buffer space available ({OURS})"),
    }
}

impl<B: Backend, T: Target<B>> Target<B> for Faulty<T> {
    fn apply(&mut self, ops: &B::Ops) -> Result<(), ApplyError> {
        if !self.fails() {
            return self.inner.apply(ops);
        }
        // The kernel may have done it all, and only its answer was lost.
        if self.rng.bool() {
            self.inner.apply(ops)?;
        }
        Err(fault("apply"))
    }

    fn read(&mut self) -> Result<Option<B::State>, ApplyError> {
        match self.fails() {
            true => Err(fault("read")),
            false => self.inner.read(),
        }
    }
}

/// Runs a scenario with faults that `seed` chooses; says what is wrong at the end.
/// `wipe` is what somebody does who flushes all rules behind our back.
pub fn against_faults<B, T>(
    backend: &B,
    target: T,
    wipe: fn(&mut T),
    scenario: &Scenario,
    seed: u64,
) -> Vec<String>
where
    B: Backend + Clone,
    T: Target<B>,
{
    let mut rng = Rng::with_seed(seed);
    let mut agent = Agent::new(backend, scenario);
    let mut target = Faulty::new(target, rng.u64(..));
    let mut standing: Vec<Change> = Vec::new();
    let mut wrong = Vec::new();
    for change in shuffled(scenario, &mut rng) {
        agent.take(change.clone());
        keep(&mut standing, change);
        if rng.bool() {
            agent.step(
                &mut target,
                Duration::from_millis(rng.u64(0..200)),
                &mut wrong,
            );
        }
        if rng.u8(0..100) < ACCIDENTS_PERCENT {
            wipe(&mut target.inner);
            target.wiped = true;
        }
        if rng.u8(0..100) < ACCIDENTS_PERCENT {
            agent = Agent::new(backend, scenario);
            rng.shuffle(&mut standing);
            standing
                .iter()
                .cloned()
                .for_each(|change| agent.take(change));
        }
    }
    wrong.extend(agent.settle(&mut target));
    wrong.extend(compare(backend, scenario, &agent, &mut target.inner));
    wrong
}

/// The agent's parts between the watches and the kernel, and its clock.
struct Agent<B: Backend> {
    cluster: Cluster,
    sync: Sync<B>,
    now: Duration,
}

impl<B: Backend + Clone> Agent<B> {
    fn new(backend: &B, scenario: &Scenario) -> Self {
        let mut cluster = Cluster::new(&scenario.node);
        // Who does not answer at the end does not answer all along: what is ejected depends on what is listed by then.
        let mut orderly = Cluster::new(&scenario.node);
        scenario.steps.iter().for_each(|step| orderly.take(step));
        cluster.set_silent(orderly.silent().clone());
        let mut sync = Sync::new(backend.clone(), Pace::default());
        sync.on_snapshot(cluster.snapshot().clone());
        Agent {
            cluster,
            sync,
            now: Duration::ZERO,
        }
    }

    fn take(&mut self, change: Change) {
        self.cluster.feed(change);
        self.cluster.reflect();
        self.sync.on_snapshot(self.cluster.snapshot().clone());
    }

    fn step<T: Target<B>>(
        &mut self,
        target: &mut Faulty<T>,
        later: Duration,
        wrong: &mut Vec<String>,
    ) -> bool {
        self.now += later;
        let outcome = self.sync.step(self.now, target);
        // A fault that we did not make is a refusal: the ops were wrong, or what they build on has been wiped.
        let refused = outcome.error.filter(|error| !error.words.contains(OURS));
        wrong.extend(
            refused
                .filter(|_| !target.wiped)
                .map(|error| error.to_string()),
        );
        // A change may build on none of what is gone, and then it mends nothing.
        target.wiped &= !(outcome.stands && outcome.applied && target.has_all());
        outcome.stands
    }

    /// Lets time pass until nothing is due before the next verification, and then until that has been done.
    fn settle<T: Target<B>>(&mut self, target: &mut Faulty<T>) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut verified = false;
        for _ in 0..SETTLING_STEPS_MAX {
            let due = self.sync.due().unwrap_or_default();
            let later = due.saturating_sub(self.now);
            let verifies = later > Pace::default().backoff_max;
            let stands = self.step(target, later, &mut wrong);
            verified |= verifies;
            if stands && verified {
                return wrong;
            }
        }
        wrong.push(format!(
            "after {SETTLING_STEPS_MAX} more steps the newest Snapshot still does not stand"
        ));
        wrong
    }
}

/// The events of all steps: those of one object in their order, apart from that in any.
fn shuffled(scenario: &Scenario, rng: &mut Rng) -> Vec<Change> {
    let mut source = Cluster::new(&scenario.node);
    let events: Vec<Change> = scenario
        .steps
        .iter()
        .flat_map(|step| source.changes(step))
        .collect();
    let mut by_object: Vec<Vec<Change>> = Vec::new();
    for event in events {
        match by_object
            .iter_mut()
            .find(|other| name_of(other[0].object()) == name_of(event.object()))
        {
            Some(same) => same.push(event),
            None => by_object.push(vec![event]),
        }
    }
    by_object.iter_mut().for_each(|events| events.reverse());
    let mut order = Vec::new();
    while !by_object.is_empty() {
        let chosen = rng.usize(0..by_object.len());
        order.extend(by_object[chosen].pop());
        by_object.retain(|events| !events.is_empty());
    }
    order
}

/// Keeps the list of objects that stand, each as an event that applies it.
fn keep(standing: &mut Vec<Change>, change: Change) {
    standing.retain(|other| name_of(other.object()) != name_of(change.object()));
    if let Change::Apply(_) = change {
        standing.push(change);
    }
}

/// What stands in the target must be what the last Snapshot, reached in order and without faults, compiles to.
fn compare<B: Backend + Clone, T: Target<B>>(
    backend: &B,
    scenario: &Scenario,
    agent: &Agent<B>,
    target: &mut T,
) -> Vec<String> {
    let mut orderly = Cluster::new(&scenario.node);
    scenario.steps.iter().for_each(|step| orderly.take(step));
    let right: &Snapshot = orderly.snapshot();
    let mut wrong = Vec::new();
    if agent.cluster.snapshot() != right {
        wrong.push("events in another order lead to another Snapshot".to_owned());
    }
    let (state, _) = backend.compile(right);
    match target.read() {
        Ok(Some(stands)) if stands == state => {}
        Ok(Some(_)) => wrong.push("what stands at the end is not the last Snapshot".to_owned()),
        Ok(None) => wrong.push("nothing stands at the end".to_owned()),
        Err(error) => wrong.push(error.to_string()),
    }
    wrong
}
