//! Which containers of a pod are to be started now, which wait, and what phase the pod is in. The kubelet's rules; pure.
//!
//! Init containers run one after the other, each to its success; one with `restartPolicy: Always` (a sidecar) only has
//! to be started before the next. Then all containers run at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::backoff::{Backoff, Restart};
use crate::shim::protocol::{PodState, Run};

/// What the decision needs besides the manifest and the shim's state.
#[derive(Debug, Default)]
pub struct Seen {
    /// Containers that are started (startup probe and postStart hook are done).
    pub started: BTreeSet<String>,
    /// The back-off of each container.
    pub backoffs: BTreeMap<String, Backoff>,
}

/// What to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Containers to start, with the number of the run.
    pub starts: Vec<(String, u32)>,
    /// Containers that wait for their next run: until when, and the wait's full length.
    pub waits: BTreeMap<String, (Timestamp, Duration)>,
    /// Whether all init containers are done.
    pub initialized: bool,
    /// The pod's phase.
    pub phase: Phase,
}

/// `status.phase`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have been started.
    #[default]
    Pending,
    /// At least one runs or will run again.
    Running,
    /// All ended well and stay ended.
    Succeeded,
    /// All ended, at least one of them badly, and stay ended.
    Failed,
}

impl Phase {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }

    /// Whether nothing will run any more.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Succeeded | Phase::Failed)
    }
}

/// Whether an init container keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Decides.
pub fn decide(spec: &PodSpec, state: &PodState, seen: &Seen, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    match go_through_init(spec, policy, state, seen, now, &mut decision) {
        Init::Done => decision.initialized = true,
        Init::UnderWay => return decision,
        Init::Failed => {
            decision.phase = Phase::Failed;
            return decision;
        }
    }
    for container in &spec.containers {
        let again = |run: &Run| restarts(policy, run);
        start_or_wait(container, state, seen, now, again, &mut decision);
    }
    decision.phase = phase(spec, policy, state);
    decision
}

enum Init {
    Done,
    UnderWay,
    Failed,
}

fn go_through_init(
    spec: &PodSpec,
    policy: &str,
    state: &PodState,
    seen: &Seen,
    now: Timestamp,
    decision: &mut Decision,
) -> Init {
    // Once a container has been started, init containers are history; only sidecars are kept running.
    let begun = spec
        .containers
        .iter()
        .any(|container| state.last_run(&container.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        let run = state.last_run(&container.name);
        if is_sidecar(container) {
            start_or_wait(container, state, seen, now, |_| true, decision);
            let is_up = run.is_some_and(Run::is_running) && seen.started.contains(&container.name);
            if !is_up && !begun {
                return Init::UnderWay;
            }
            continue;
        }
        let failed = match run.and_then(|run| run.ended.as_ref()) {
            _ if begun => continue,
            Some(ended) if ended.exit_code == 0 => continue,
            ended => ended.is_some(),
        };
        if failed && policy == "Never" {
            return Init::Failed;
        }
        start_or_wait(container, state, seen, now, |_| true, decision);
        return Init::UnderWay;
    }
    Init::Done
}

fn start_or_wait(
    container: &Container,
    state: &PodState,
    seen: &Seen,
    now: Timestamp,
    again: impl Fn(&Run) -> bool,
    decision: &mut Decision,
) {
    let name = &container.name;
    let Some(run) = state.last_run(name) else {
        decision.starts.push((name.clone(), 0));
        return;
    };
    let Some(ended) = &run.ended else { return };
    if !again(run) {
        return;
    }
    let backoff = seen.backoffs.get(name).copied().unwrap_or_default();
    match backoff.next(run.started_at, ended.finished_at, now) {
        Restart::Now => decision.starts.push((name.clone(), run.attempt + 1)),
        Restart::At(when, wait) => {
            decision.waits.insert(name.clone(), (when, wait));
        }
    }
}

/// Whether a container that has ended is started again.
fn restarts(policy: &str, run: &Run) -> bool {
    let failed = run.ended.as_ref().is_some_and(|ended| ended.exit_code != 0);
    policy == "Always" || (policy == "OnFailure" && failed)
}

fn phase(spec: &PodSpec, policy: &str, state: &PodState) -> Phase {
    let mut all_well = true;
    let mut all_final = true;
    for container in &spec.containers {
        let Some(run) = state.last_run(&container.name) else {
            return Phase::Pending;
        };
        match &run.ended {
            Some(ended) if !restarts(policy, run) => all_well &= ended.exit_code == 0,
            _ => all_final = false,
        }
    }
    match (all_final, all_well) {
        (false, _) => Phase::Running,
        (true, true) => Phase::Succeeded,
        (true, false) => Phase::Failed,
    }
}

#[cfg(test)]
mod tests;
