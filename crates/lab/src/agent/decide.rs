//! What to do next with a pod's containers: which to start now, which have to wait, what is finished. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::backoff::{self, Backoff, Restart};
use crate::shim::protocol::{PodState, Run};

/// What the agent remembers of a pod besides what the shim does. All of it may be lost with the agent.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The back-off of each container that was restarted.
    pub backoff: BTreeMap<String, Backoff>,
    /// Where attempts begin when the shim knows no run: after those that an earlier sandbox had.
    pub first_attempt: BTreeMap<String, u32>,
    /// Containers that could not be prepared, why, and when to try again.
    pub blocked: BTreeMap<String, Blocked>,
    /// Whether a running container counts as started (its startup probe has succeeded) and as ready.
    pub health: BTreeMap<String, Health>,
}

/// A container that can't be started for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The kubelet's word, such as CreateContainerConfigError.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// When to try again.
    pub until: Timestamp,
}

/// What the probes say of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    /// The startup probe, true without one.
    pub started: bool,
    /// The readiness probe, true without one.
    pub ready: bool,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// Not its turn yet (an init container before it has not finished).
    Later,
    /// It is to be started now, as this attempt.
    Start(u32),
    /// It runs.
    Running,
    /// It will not be started again.
    Finished,
    /// It is started again at this time; the text is the kubelet's for CrashLoopBackOff.
    BackOff(Timestamp, String),
    /// It can't be prepared.
    Blocked(Blocked),
}

/// What is to be done with a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Where each container stands, by name.
    pub stands: BTreeMap<String, Stand>,
    /// Whether all init containers have done their work.
    pub initialized: bool,
}

impl Plan {
    /// When something is to be done even if nothing happens.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let times = self.stands.values().filter_map(|stand| match stand {
            Stand::BackOff(at, _) => Some(*at),
            Stand::Blocked(blocked) => Some(blocked.until),
            _ => None,
        });
        times.min()
    }

    /// The containers to start, in the order of the manifest.
    pub fn starts<'a>(&self, spec: &'a PodSpec) -> Vec<(&'a Container, u32)> {
        let all = spec
            .init_containers
            .iter()
            .flatten()
            .chain(&spec.containers);
        all.filter_map(|container| match self.stands.get(&container.name) {
            Some(Stand::Start(attempt)) => Some((container, *attempt)),
            _ => None,
        })
        .collect()
    }
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Always,
    OnFailure,
    Never,
}

/// Decides. `name` is what the kubelet calls the pod in texts: `web-1_shop(uid)`.
pub fn plan(spec: &PodSpec, name: &str, state: &PodState, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan {
        initialized: true,
        ..Plan::default()
    };
    let policy = match spec.restart_policy.as_deref() {
        Some("Never") => Policy::Never,
        Some("OnFailure") => Policy::OnFailure,
        _ => Policy::Always,
    };
    for container in spec.init_containers.iter().flatten() {
        if !plan.initialized {
            plan.stands.insert(container.name.clone(), Stand::Later);
            continue;
        }
        let sidecar = is_sidecar(container);
        let policy = match policy {
            _ if sidecar => Policy::Always,
            Policy::Always => Policy::OnFailure,
            other => other,
        };
        let stand = stand(container, policy, name, state, memory, now);
        let started = || {
            memory
                .health
                .get(&container.name)
                .is_none_or(|health| health.started)
        };
        plan.initialized = match (&stand, sidecar) {
            (Stand::Running, true) => started(),
            (Stand::Finished, false) => succeeded(state.last_run(&container.name)),
            _ => false,
        };
        plan.stands.insert(container.name.clone(), stand);
    }
    for container in &spec.containers {
        let stand = match plan.initialized {
            true => stand(container, policy, name, state, memory, now),
            // A sidecar that restarts does not stop the others.
            false if state.last_run(&container.name).is_some_and(Run::is_running) => Stand::Running,
            false => Stand::Later,
        };
        plan.stands.insert(container.name.clone(), stand);
    }
    plan
}

/// An init container that goes on running beside the others (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn succeeded(run: Option<&Run>) -> bool {
    run.and_then(|run| run.ended.as_ref())
        .is_some_and(|ended| ended.exit_code == 0)
}

fn stand(
    container: &Container,
    policy: Policy,
    pod: &str,
    state: &PodState,
    memory: &Memory,
    now: Timestamp,
) -> Stand {
    let name = &container.name;
    let next = match state.last_run(name) {
        None => memory.first_attempt.get(name).copied().unwrap_or_default(),
        Some(run) => {
            let Some(ended) = &run.ended else {
                return Stand::Running;
            };
            if policy == Policy::Never || policy == Policy::OnFailure && ended.exit_code == 0 {
                return Stand::Finished;
            }
            let backoff = memory.backoff.get(name).copied().unwrap_or_default();
            if let Restart::At(at, wait) = backoff.next(run.started_at, ended.finished_at, now) {
                let wait = backoff::spell(wait);
                let text = format!("back-off {wait} restarting failed container={name} pod={pod}");
                return Stand::BackOff(at, text);
            }
            run.attempt + 1
        }
    };
    match memory.blocked.get(name) {
        Some(blocked) if now < blocked.until => Stand::Blocked(blocked.clone()),
        _ => Stand::Start(next),
    }
}

#[cfg(test)]
mod tests;
