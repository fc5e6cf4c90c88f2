//! What follows from the health of a node: conditions and taints. Pure.

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition Ready of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// True.
    Ready,
    /// False: the node says so itself.
    NotReady,
    /// Unknown: the node says nothing.
    Unknown,
}

/// What the node's own condition says.
pub(super) fn health(node: &Node) -> Health {
    match ready(node).map(|condition| condition.status.as_str()) {
        Some("True") => Health::Ready,
        Some("Unknown") => Health::Unknown,
        _ => Health::NotReady,
    }
}

/// A silent node is told to be so, once.
pub(super) fn status_patch(node: &Node, health: Health, now: Timestamp) -> Option<Value> {
    let told = ready(node).is_some_and(|condition| condition.status == "Unknown");
    (health == Health::Unknown && !told).then(|| {
        let condition = NodeCondition {
            type_: "Ready".into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_heartbeat_time: ready(node)
                .and_then(|condition| condition.last_heartbeat_time.clone()),
            last_transition_time: Some(whole(now)),
        };
        json!({"status": {"conditions": [condition]}})
    })
}

/// The taints that the node should have, if they differ from those it has.
pub(super) fn taints(node: &Node, health: Health, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.clone().unwrap_or_default();
    let before = spec.taints.unwrap_or_default();
    let mut wanted: Vec<(&str, &str)> = match health {
        Health::Ready => Vec::new(),
        Health::NotReady => vec![(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")],
        Health::Unknown => vec![(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")],
    };
    if spec.unschedulable.unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours =
        |taint: &Taint| [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str());
    let is =
        |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    let mut after: Vec<Taint> = before.clone();
    after.retain(|taint| !ours(taint) || wanted.iter().any(|wish| is(taint, *wish)));
    for wish in wanted {
        if !after.iter().any(|taint| is(taint, wish)) {
            let time_added = (wish.1 == "NoExecute").then(|| whole(now));
            after.push(Taint {
                key: wish.0.into(),
                effect: wish.1.into(),
                time_added,
                value: None,
            });
        }
    }
    (after != before).then_some(after)
}

/// Condition Ready of a pod on a node that is not Ready.
pub(super) fn unready_patch(now: Timestamp) -> Value {
    json!({"status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": whole(now)}]}})
}

/// Whether a pod tolerates for ever that its node is not there.
pub(super) fn stays(pod: &Pod) -> bool {
    let tolerations = pod
        .spec
        .iter()
        .flat_map(|spec| spec.tolerations.iter().flatten());
    let taint = |key: &str| Taint {
        key: key.into(),
        effect: "NoExecute".into(),
        ..Taint::default()
    };
    let mut for_ever = tolerations.filter(|toleration| toleration.toleration_seconds.is_none());
    for_ever.any(|toleration| {
        [NOT_READY, UNREACHABLE]
            .iter()
            .any(|key| crate::scheduler::covers(toleration, &taint(key)))
    })
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    node.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready")
}

fn whole(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}
