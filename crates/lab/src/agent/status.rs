//! A pod's status, from its manifest, what the shim says and what the probes found: the kubelet's rules; pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::spell;
use super::conditions::{self, Readiness};
use super::decide::{Decision, Phase, is_sidecar};
use crate::shim::protocol::{PodState, Run};

/// What the agent knows of a container beyond the shim's state.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Startup probe and postStart hook are done.
    pub started: bool,
    /// The readiness probe says yes (or there is none).
    pub ready: bool,
    /// Why it can't be started: reason and message.
    pub trouble: Option<(String, String)>,
}

/// Everything that a status is made of.
#[derive(Debug)]
pub struct Input<'a> {
    /// The pod, with the status that the API has.
    pub pod: &'a Pod,
    /// What the shim says; empty without one.
    pub state: &'a PodState,
    /// What was decided about the containers.
    pub decision: &'a Decision,
    /// By container.
    pub found: &'a BTreeMap<String, Found>,
    /// The pod's addresses; empty as long as it has no network.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Whether the pod's namespaces stand.
    pub sandbox: bool,
    /// The time.
    pub now: Timestamp,
}

/// API times have whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The status.
pub fn build(input: &Input<'_>) -> PodStatus {
    let old = input.pod.status.clone().unwrap_or_default();
    let spec = input.pod.spec.clone().unwrap_or_default();
    let statuses = |containers: &[Container], init: bool| {
        let one = |container: &Container| container_status(input, container, init);
        containers.iter().map(one).collect::<Vec<_>>()
    };
    let init = spec
        .init_containers
        .as_deref()
        .map(|list| statuses(list, true));
    let containers = statuses(&spec.containers, false);
    let readiness = Readiness {
        pod: input.pod,
        sandbox: input.sandbox,
        initialized: input.decision.initialized,
        incomplete: incomplete(&spec.init_containers.unwrap_or_default(), input),
        unready: unready(&containers, init.as_deref(), input),
        phase: input.decision.phase,
    };
    PodStatus {
        phase: Some(input.decision.phase.name().to_string()),
        conditions: Some(conditions::build(&readiness, input.now)),
        host_ip: input.host_ips.first().map(IpAddr::to_string),
        host_ips: Some(
            input
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.to_string() })
                .collect(),
        ),
        pod_ip: input.pod_ips.first().map(IpAddr::to_string),
        pod_ips: (!input.pod_ips.is_empty()).then(|| {
            input
                .pod_ips
                .iter()
                .map(|ip| PodIP { ip: ip.to_string() })
                .collect()
        }),
        start_time: old.start_time.or(Some(time(input.now))),
        init_container_statuses: init,
        container_statuses: Some(containers),
        observed_generation: input.pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// The init containers that are not done.
fn incomplete(containers: &[Container], input: &Input<'_>) -> Vec<String> {
    let done = |container: &&Container| {
        let run = input.state.last_run(&container.name);
        let succeeded = run
            .and_then(|run| run.ended.as_ref())
            .is_some_and(|ended| ended.exit_code == 0);
        let found = input.found.get(&container.name);
        succeeded || (is_sidecar(container) && found.is_some_and(|found| found.started))
    };
    let open = containers.iter().filter(|container| !done(container));
    open.map(|container| container.name.clone()).collect()
}

fn unready(
    containers: &[ContainerStatus],
    init: Option<&[ContainerStatus]>,
    input: &Input<'_>,
) -> Vec<String> {
    let spec = input.pod.spec.as_ref();
    let sidecar = |name: &str| {
        let mut init = spec
            .into_iter()
            .flat_map(|spec| spec.init_containers.iter().flatten());
        init.any(|container| container.name == name && is_sidecar(container))
    };
    let sidecars = init
        .into_iter()
        .flatten()
        .filter(|status| sidecar(&status.name));
    let open = sidecars.chain(containers).filter(|status| !status.ready);
    open.map(|status| status.name.clone()).collect()
}

fn container_status(input: &Input<'_>, container: &Container, init: bool) -> ContainerStatus {
    let name = &container.name;
    let uid = input.pod.metadata.uid.as_deref().unwrap_or_default();
    let id = |attempt: u32| format!("portolan://{uid}/{name}/{attempt}");
    let run = input.state.last_run(name);
    let found = input.found.get(name).cloned().unwrap_or_default();
    let is_running = run.is_some_and(Run::is_running);
    let terminated = |run: &Run| terminated_state(run, id(run.attempt));
    let (state, last) = match run {
        None => (waiting(input, &found, init), None),
        Some(run) if run.is_running() => {
            let running = ContainerStateRunning {
                started_at: Some(time(run.started_at)),
            };
            let state = ContainerState {
                running: Some(running),
                ..ContainerState::default()
            };
            (state, input.state.previous_run(name).and_then(terminated))
        }
        Some(run) => match input.decision.waits.get(name) {
            Some((_, wait)) => (crash_loop(input.pod, name, *wait), terminated(run)),
            None => (
                terminated(run).unwrap_or_default(),
                input.state.previous_run(name).and_then(terminated),
            ),
        },
    };
    ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        container_id: run.map(|run| id(run.attempt)),
        restart_count: run.map_or(0, |run| run.attempt as i32),
        ready: match (&state.terminated, init && !is_sidecar(container)) {
            (Some(ended), true) => ended.exit_code == 0,
            _ => is_running && found.started && found.ready,
        },
        started: Some(is_running && found.started),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ..ContainerStatus::default()
    }
}

fn terminated_state(run: &Run, id: String) -> Option<ContainerState> {
    let ended = run.ended.as_ref()?;
    let reason = match (&ended.start_error, ended.exit_code) {
        (Some(_), _) => "StartError",
        (None, 0) => "Completed",
        (None, _) => "Error",
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(id),
        exit_code: ended.exit_code,
        finished_at: Some(time(ended.finished_at)),
        message: ended.start_error.clone(),
        reason: Some(reason.to_string()),
        signal: None,
        started_at: Some(time(run.started_at)),
    };
    Some(ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    })
}

fn waiting(input: &Input<'_>, found: &Found, init: bool) -> ContainerState {
    let has_init = input.pod.spec.as_ref().is_some_and(|spec| {
        spec.init_containers
            .as_ref()
            .is_some_and(|list| !list.is_empty())
    });
    let (reason, message) = match &found.trouble {
        Some((reason, message)) => (reason.as_str(), Some(message.clone())),
        // With init containers everything waits for them, as the kubelet says it.
        None if init || has_init => ("PodInitializing", None),
        None => ("ContainerCreating", None),
    };
    waiting_state(reason, message)
}

fn crash_loop(pod: &Pod, container: &str, wait: Duration) -> ContainerState {
    let message = format!(
        "back-off {} restarting failed container={container} pod={}",
        spell(wait),
        full_name(pod)
    );
    waiting_state("CrashLoopBackOff", Some(message))
}

/// `web-1_shop(uid)`, as the kubelet's messages name a pod.
pub fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        text(&meta.name),
        text(&meta.namespace),
        text(&meta.uid)
    )
}

fn waiting_state(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_string()),
            message,
        }),
        ..ContainerState::default()
    }
}

/// The status of a pod that this node refuses.
pub fn refused(reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some(Phase::Failed.name().to_string()),
        reason: Some(reason.to_string()),
        message: Some(format!("Pod was rejected: {message}")),
        ..PodStatus::default()
    }
}

#[cfg(test)]
mod tests;
