//! A pod's status as the kubelet would report it, from what the shim and the probes say. Pure.

use jiff::{Timestamp, Unit};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decide::{Memory, Plan, Stand, is_sidecar};
use super::env::Facts;
use crate::shim::protocol::{PodState, Run};

/// Everything that a status is made of.
pub struct Input<'a> {
    /// The pod as the API has it; its conditions keep their transition times.
    pub pod: &'a Pod,
    /// Its addresses and the node's.
    pub facts: &'a Facts,
    /// Whether its network and shim stand.
    pub sandbox: bool,
    /// The shim's view.
    pub state: &'a PodState,
    /// The agent's view.
    pub memory: &'a Memory,
    /// What is to be done.
    pub plan: &'a Plan,
    /// The present.
    pub now: Timestamp,
}

/// Builds the status.
pub fn build(input: &Input) -> PodStatus {
    let empty = PodSpec::default();
    let spec = input.pod.spec.as_ref().unwrap_or(&empty);
    let old = input.pod.status.clone().unwrap_or_default();
    let of = |containers: &[Container]| -> Vec<ContainerStatus> {
        containers
            .iter()
            .map(|container| container_status(input, container))
            .collect()
    };
    let init = of(spec.init_containers.as_deref().unwrap_or_default());
    let main = of(&spec.containers);
    let phase = phase(input, spec, &main);
    let conditions = conditions(input, spec, &old, &init, &main, phase);
    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions),
        host_ip: input.facts.host_ips.first().cloned(),
        host_ips: Some(
            input
                .facts
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect(),
        ),
        pod_ip: input.facts.pod_ips.first().cloned(),
        pod_ips: Some(
            input
                .facts
                .pod_ips
                .iter()
                .map(|ip| PodIP { ip: ip.clone() })
                .collect(),
        ),
        start_time: Some(old.start_time.unwrap_or_else(|| time(input.now))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        qos_class: old.qos_class.or_else(|| Some("BestEffort".into())),
        ..PodStatus::default()
    }
}

/// API times have whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(at.round(Unit::Second).unwrap_or(at))
}

fn container_status(input: &Input, container: &Container) -> ContainerStatus {
    let (name, uid) = (
        &container.name,
        input.pod.metadata.uid.as_deref().unwrap_or_default(),
    );
    let (last, previous) = (input.state.last_run(name), input.state.previous_run(name));
    let running = last.is_some_and(Run::is_running);
    let health = input.memory.health.get(name).copied();
    let state = state(input, name, last);
    let shows_last = state.waiting.is_none();
    let last_state = if shows_last { previous } else { last };
    let finished_init = is_init(input.pod, name)
        && last.is_some_and(|run| run.ended.as_ref().is_some_and(|e| e.exit_code == 0));
    let first_attempt = input
        .memory
        .first_attempt
        .get(name)
        .copied()
        .unwrap_or_default();
    ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        image_id: String::new(),
        container_id: last.map(|run| container_id(uid, name, run.attempt)),
        ready: (running && health.is_none_or(|health| health.started && health.ready))
            || finished_init,
        started: Some(running && health.is_none_or(|health| health.started)),
        restart_count: last
            .map_or(first_attempt, |run| run.attempt)
            .try_into()
            .unwrap_or(i32::MAX),
        last_state: last_state.and_then(|run| terminated(uid, name, run)),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

fn is_init(pod: &Pod, name: &str) -> bool {
    let mut init = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    init.any(|container| container.name == name && !is_sidecar(container))
}

fn state(input: &Input, name: &str, last: Option<&Run>) -> ContainerState {
    let uid = input.pod.metadata.uid.as_deref().unwrap_or_default();
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..ContainerState::default()
    };
    match (input.plan.stands.get(name), last) {
        (Some(Stand::BackOff(_, text)), _) => waiting("CrashLoopBackOff", Some(text.clone())),
        (Some(Stand::Blocked(blocked)), _) => {
            waiting(blocked.reason, Some(blocked.message.clone()))
        }
        (_, Some(run)) => terminated(uid, name, run).unwrap_or_else(|| ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(run.started_at)),
            }),
            ..ContainerState::default()
        }),
        (Some(Stand::Later), None) => waiting("PodInitializing", None),
        _ => waiting("ContainerCreating", None),
    }
}

fn terminated(uid: &str, name: &str, run: &Run) -> Option<ContainerState> {
    let ended = run.ended.as_ref()?;
    let reason = match (&ended.start_error, ended.exit_code) {
        (Some(_), _) => "StartError",
        (None, 0) => "Completed",
        (None, _) => "Error",
    };
    let terminated = ContainerStateTerminated {
        container_id: Some(container_id(uid, name, run.attempt)),
        exit_code: ended.exit_code,
        finished_at: Some(time(ended.finished_at)),
        message: ended.start_error.clone(),
        reason: Some(reason.into()),
        signal: None,
        started_at: Some(time(run.started_at)),
    };
    Some(ContainerState {
        terminated: Some(terminated),
        ..ContainerState::default()
    })
}

fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    format!("portolan://{uid}-{name}-{attempt}")
}

/// The kubelet's getPhase.
fn phase(input: &Input, spec: &PodSpec, main: &[ContainerStatus]) -> &'static str {
    let stand = |name: &str| input.plan.stands.get(name);
    if !input.plan.initialized {
        let init = spec.init_containers.iter().flatten();
        let failed = init.into_iter().any(|c| {
            !is_sidecar(c)
                && stand(&c.name) == Some(&Stand::Finished)
                && !exited_well(input, &c.name)
        });
        let ran = main.iter().any(|status| status.container_id.is_some());
        return if failed {
            "Failed"
        } else if ran {
            "Running"
        } else {
            "Pending"
        };
    }
    let finished = |status: &&ContainerStatus| stand(&status.name) == Some(&Stand::Finished);
    if main.iter().any(|status| status.container_id.is_none()) {
        "Pending"
    } else if !main.iter().all(|status| finished(&status)) || main.is_empty() {
        "Running"
    } else if main.iter().all(|status| exited_well(input, &status.name)) {
        "Succeeded"
    } else {
        "Failed"
    }
}

fn exited_well(input: &Input, name: &str) -> bool {
    let ended = input
        .state
        .last_run(name)
        .and_then(|run| run.ended.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

fn conditions(
    input: &Input,
    spec: &PodSpec,
    old: &PodStatus,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
    phase: &str,
) -> Vec<PodCondition> {
    let names = |list: Vec<&ContainerStatus>| {
        list.iter()
            .map(|status| status.name.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    };
    let over = matches!(phase, "Succeeded" | "Failed");
    let unready = main.iter().filter(|status| !status.ready).chain(
        // A sidecar counts for readiness like the others.
        init.iter()
            .filter(|status| !status.ready && !is_init(input.pod, &status.name)),
    );
    let unready = names(unready.collect());
    let containers = match (over, unready.is_empty()) {
        (true, _) => Some(("PodCompleted", String::new())),
        (false, true) => None,
        (false, false) => Some((
            "ContainersNotReady",
            format!("containers with unready status: [{unready}]"),
        )),
    };
    let gates: Vec<&str> = spec
        .readiness_gates
        .iter()
        .flatten()
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| {
            !old.conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == *gate && condition.status == "True")
        })
        .collect();
    let ready = containers.clone().or_else(|| match gates.first() {
        Some(gate) => Some((
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate \"{gate}\" does not exist."),
        )),
        None => None,
    });
    let incomplete = names(init.iter().filter(|status| !status.ready).collect());
    let initialized = (!input.plan.initialized).then(|| {
        (
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{incomplete}]"),
        )
    });
    let sandbox = (!input.sandbox).then_some(("", String::new()));
    let ours = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers),
        ("PodScheduled", None),
    ];
    let built = ours
        .into_iter()
        .map(|(kind, why)| condition(old, kind, why, input.now));
    let others = old
        .conditions
        .iter()
        .flatten()
        .filter(|condition| ours_not(&condition.type_))
        .cloned();
    built.chain(others).collect()
}

fn ours_not(kind: &str) -> bool {
    !matches!(
        kind,
        "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled"
    )
}

/// A condition that is true unless there is a reason; its transition time moves only when its status does.
fn condition(
    old: &PodStatus,
    kind: &str,
    why: Option<(&str, String)>,
    now: Timestamp,
) -> PodCondition {
    let status = if why.is_none() { "True" } else { "False" };
    let known = old
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind && condition.status == status);
    let (reason, message) = why.unwrap_or_default();
    PodCondition {
        type_: kind.into(),
        status: status.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: known
            .and_then(|known| known.last_transition_time.clone())
            .or_else(|| Some(time(now))),
        ..PodCondition::default()
    }
}

#[cfg(test)]
mod tests;
