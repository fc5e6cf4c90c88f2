//! What a ReplicaSet must do, and what its status says: pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::selects;
use crate::endpoints::owner_reference;
use crate::endpoints::pods::{condition, is_over, is_ready, is_terminating};
use crate::world::controller_of;

/// Pods made or deleted in one go; the next go follows at once.
const BURST_MAX: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods without controller that match.
    pub(super) adopt: Vec<Arc<Pod>>,
    /// Own pods that match no longer.
    pub(super) release: Vec<Arc<Pod>>,
    /// How many new pods.
    pub(super) create: usize,
    /// Pods that are too many.
    pub(super) delete: Vec<Arc<Pod>>,
}

/// Compares what is with what is asked for. `related` are the pods of all ReplicaSets with the same owner.
pub(super) fn plan(set: &ReplicaSet, pods: &[Arc<Pod>], related: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::default();
    let mut active = Vec::new();
    for pod in pods {
        let owned = controller_of(&pod.metadata).is_some();
        match (owned, selects(set, pod)) {
            (true, false) => plan.release.push(Arc::clone(pod)),
            (false, true) if !is_terminating(pod) && !is_over(pod) => {
                plan.adopt.push(Arc::clone(pod));
                active.push(Arc::clone(pod));
            }
            (true, true) if is_active(pod) => active.push(Arc::clone(pod)),
            _ => {}
        }
    }
    let wanted = usize::try_from(
        set.spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
    )
    .unwrap_or(0);
    plan.create = wanted.saturating_sub(active.len()).min(BURST_MAX);
    let surplus = active.len().saturating_sub(wanted).min(BURST_MAX);
    let crowd = crowding(related);
    active.sort_by_cached_key(|pod| preference(pod, &crowd));
    active.truncate(surplus);
    plan.delete = active;
    plan
}

/// The status as it should be, and after which while it will change by itself (`minReadySeconds`).
pub(super) fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.clone().unwrap_or_default();
    let mine = |pod: &&Arc<Pod>| {
        controller_of(&pod.metadata).is_some() && is_active(pod) && selects(set, pod)
    };
    let active: Vec<&Arc<Pod>> = pods.iter().filter(mine).collect();
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    let template = spec
        .template
        .as_ref()
        .and_then(|t| t.metadata.as_ref())
        .and_then(|m| m.labels.clone());
    let labelled = |pod: &&&Arc<Pod>| {
        let has = |(key, value): (&String, &String)| {
            pod.metadata.labels.as_ref().and_then(|l| l.get(key)) == Some(value)
        };
        template.iter().flatten().all(has)
    };
    let minimum =
        Duration::from_secs(u64::try_from(spec.min_ready_seconds.unwrap_or(0)).unwrap_or(0));
    let waits = active
        .iter()
        .filter(|pod| is_ready(pod))
        .map(|pod| available_in(pod, minimum, now));
    let (available, waiting): (Vec<Duration>, Vec<Duration>) = waits.partition(Duration::is_zero);
    let old = set.status.clone().unwrap_or_default();
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some(count(active.iter().filter(labelled).count())),
        ready_replicas: some(count(active.iter().filter(|pod| is_ready(pod)).count())),
        available_replicas: some(count(available.len())),
        observed_generation: set.metadata.generation,
        ..old
    };
    (status, waiting.into_iter().min())
}

/// A new pod of the template.
pub(super) fn pod(set: &ReplicaSet, name: &str) -> Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.name = Some(name.to_string());
    metadata.generate_name = set.metadata.name.as_ref().map(|name| format!("{name}-"));
    metadata.namespace = set.metadata.namespace.clone();
    metadata.owner_references = Some(vec![owner_reference(set)]);
    Pod {
        metadata,
        spec: template.spec,
        status: None,
    }
}

fn is_active(pod: &Pod) -> bool {
    !is_over(pod) && !is_terminating(pod)
}

fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

/// How long a ready pod still has to be ready until it counts as available.
fn available_in(pod: &Pod, minimum: Duration, now: Timestamp) -> Duration {
    let since = condition(pod, "Ready")
        .and_then(|ready| ready.last_transition_time.as_ref())
        .map(|time| time.0);
    let ready_for = since.map_or(0, |since| {
        (now.as_millisecond() - since.as_millisecond()).max(0)
    });
    minimum.saturating_sub(Duration::from_millis(u64::try_from(ready_for).unwrap_or(0)))
}

/// How many related pods each node has.
fn crowding(related: &[Arc<Pod>]) -> HashMap<String, usize> {
    let mut crowd = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        let node = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default();
        *crowd.entry(node).or_insert(0) += 1;
    }
    crowd
}

/// The smallest goes first (ActivePodsWithRanks upstream): not bound, not running, not ready, cheap, on a crowded node,
/// ready for a short time, often restarted, young.
fn preference(pod: &Pod, crowd: &HashMap<String, usize>) -> impl Ord + use<> {
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let node = spec
        .and_then(|spec| spec.node_name.clone())
        .unwrap_or_default();
    let phase = match status.and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(DELETION_COST));
    let cost = cost.and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    let ready = is_ready(pod);
    let since = condition(pod, "Ready")
        .and_then(|c| c.last_transition_time.as_ref())
        .map(|time| time.0);
    let restarts: i32 = status
        .and_then(|status| status.container_statuses.as_ref())
        .map_or(0, |all| {
            all.iter().map(|c| c.restart_count).max().unwrap_or(0)
        });
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        (!node.is_empty(), phase, ready, cost),
        Reverse(crowd.get(&node).copied().unwrap_or(0)),
        Reverse(since.filter(|_| ready)),
        Reverse(restarts),
        Reverse(created),
        pod.metadata.name.clone(),
    )
}

#[cfg(test)]
mod tests;
