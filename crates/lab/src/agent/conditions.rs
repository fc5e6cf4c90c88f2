//! The conditions of a pod, in the kubelet's words. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};

use super::decide::Phase;
use super::status::time;

/// What the conditions are made of.
#[derive(Debug)]
pub struct Readiness<'a> {
    /// The pod, with the conditions that the API has.
    pub pod: &'a Pod,
    /// Whether the pod's namespaces stand.
    pub sandbox: bool,
    /// Whether all init containers are done.
    pub initialized: bool,
    /// The init containers that are not done.
    pub incomplete: Vec<String>,
    /// The containers that are not ready.
    pub unready: Vec<String>,
    /// The pod's phase.
    pub phase: Phase,
}

/// The conditions that are ours.
const OWN: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// One answer: yes, or no with reason and message.
type Answer = Result<Option<&'static str>, (&'static str, Option<String>)>;

/// All conditions: ours, and unchanged those of others.
pub fn build(readiness: &Readiness<'_>, now: Timestamp) -> Vec<PodCondition> {
    let old = readiness
        .pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let others = old
        .iter()
        .filter(|condition| !OWN.contains(&condition.type_.as_str()));
    let containers = containers_ready(readiness);
    let answers = [
        if readiness.sandbox {
            Ok(None)
        } else {
            Err(("", None))
        },
        initialized(readiness),
        containers.clone().and_then(|_| gates(readiness, old)),
        containers,
        Ok(None),
    ];
    let own = OWN
        .iter()
        .zip(answers)
        .map(|(kind, answer)| condition(kind, answer, old, now));
    own.chain(others.cloned()).collect()
}

fn initialized(readiness: &Readiness<'_>) -> Answer {
    match readiness.phase {
        Phase::Succeeded => Ok(Some("PodCompleted")),
        _ if readiness.initialized => Ok(None),
        _ => Err((
            "ContainersNotInitialized",
            Some(format!(
                "containers with incomplete status: [{}]",
                readiness.incomplete.join(" ")
            )),
        )),
    }
}

fn containers_ready(readiness: &Readiness<'_>) -> Answer {
    match readiness.phase {
        Phase::Succeeded => Err(("PodCompleted", None)),
        Phase::Failed => Err(("PodFailed", None)),
        _ if readiness.unready.is_empty() => Ok(None),
        _ => Err((
            "ContainersNotReady",
            Some(format!(
                "containers with unready status: [{}]",
                readiness.unready.join(" ")
            )),
        )),
    }
}

fn gates(readiness: &Readiness<'_>, conditions: &[PodCondition]) -> Answer {
    let spec = readiness.pod.spec.as_ref();
    let gates = spec
        .into_iter()
        .flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed = gates.filter_map(|gate| {
        let kind = &gate.condition_type;
        match conditions.iter().find(|condition| &condition.type_ == kind) {
            None => Some(format!(
                "corresponding condition of pod readiness gate {kind:?} does not exist."
            )),
            Some(found) if found.status != "True" => Some(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                found.status
            )),
            Some(_) => None,
        }
    });
    let closed: Vec<_> = closed.collect();
    match closed.is_empty() {
        true => Ok(None),
        false => Err(("ReadinessGatesNotReady", Some(closed.join(", ")))),
    }
}

fn condition(kind: &str, answer: Answer, old: &[PodCondition], now: Timestamp) -> PodCondition {
    let (status, reason, message) = match answer {
        Ok(reason) => ("True", reason, None),
        Err((reason, message)) => ("False", Some(reason), message),
    };
    let before = old.iter().find(|condition| condition.type_ == kind);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: kind.to_string(),
        status: status.to_string(),
        reason: reason
            .filter(|reason| !reason.is_empty())
            .map(str::to_string),
        message,
        last_transition_time: since.or(Some(time(now))),
        ..PodCondition::default()
    }
}
