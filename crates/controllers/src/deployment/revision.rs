//! Revisions: what `kubectl rollout history` and `undo` read.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

/// Number of the template in the order in which templates were rolled out.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of a Deployment that are not copied to its ReplicaSets.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];
/// `revisionHistoryLimit` when nothing is given.
const HISTORY_LIMIT: i32 = 10;

/// The revision that an object shows; 0 if none.
pub(super) fn of(metadata: &ObjectMeta) -> i64 {
    let text = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(REVISION));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The highest revision of these.
pub(super) fn last(sets: &[Arc<ReplicaSet>]) -> i64 {
    sets.iter().map(|set| of(&set.metadata)).max().unwrap_or(0)
}

/// The revision that the new ReplicaSet should have: higher than that of all others.
pub(super) fn wanted(new: &ReplicaSet, sets: &[Arc<ReplicaSet>]) -> i64 {
    let others = sets
        .iter()
        .filter(|set| set.metadata.uid != new.metadata.uid);
    let highest = others.map(|set| of(&set.metadata)).max().unwrap_or(0);
    of(&new.metadata).max(highest + 1)
}

/// Annotations that ReplicaSets take over (`kubernetes.io/change-cause` above all).
pub(super) fn inherited(metadata: &ObjectMeta) -> BTreeMap<String, String> {
    let mut annotations = metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN.contains(&key.as_str()));
    annotations
}

/// What must be changed in the new ReplicaSet: revision, annotations, minReadySeconds.
pub(super) fn patch_set(
    deployment: &Deployment,
    new: &ReplicaSet,
    sets: &[Arc<ReplicaSet>],
) -> Option<Value> {
    let mut annotations = inherited(&deployment.metadata);
    let (before, wanted) = (of(&new.metadata), wanted(new, sets));
    let existing = new.metadata.annotations.clone().unwrap_or_default();
    if before != wanted {
        annotations.insert(REVISION.into(), wanted.to_string());
        if before > 0 {
            let history = existing
                .get(HISTORY)
                .map(|history| format!("{history},{before}"));
            annotations.insert(
                HISTORY.into(),
                history.unwrap_or_else(|| before.to_string()),
            );
        }
    }
    annotations.retain(|key, value| existing.get(key) != Some(value));
    let minimum = |seconds: Option<i32>| seconds.unwrap_or(0);
    let ours = minimum(
        deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds),
    );
    let theirs = minimum(new.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    if annotations.is_empty() && ours == theirs {
        return None;
    }
    Some(json!({"metadata": {"annotations": annotations}, "spec": {"minReadySeconds": ours}}))
}

/// Old ReplicaSets beyond `revisionHistoryLimit` that have nothing left, oldest revision first.
/// Nothing is cleaned up while a rollout is under way.
pub(super) fn surplus<'a>(
    deployment: &Deployment,
    sets: &'a [Arc<ReplicaSet>],
    new: Option<&ReplicaSet>,
) -> Vec<&'a Arc<ReplicaSet>> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.revision_history_limit)
        .unwrap_or(HISTORY_LIMIT);
    let Some(new) = new.filter(|_| super::conditions::is_complete(deployment)) else {
        return Vec::new();
    };
    let empty = |set: &&Arc<ReplicaSet>| {
        let status = set.status.clone().unwrap_or_default();
        let settled = set.metadata.generation <= status.observed_generation;
        let asked = set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        asked == 0 && status.replicas == 0 && settled && set.metadata.deletion_timestamp.is_none()
    };
    let others = sets
        .iter()
        .filter(|set| set.metadata.uid != new.metadata.uid);
    let mut old: Vec<&Arc<ReplicaSet>> = others.filter(empty).collect();
    old.sort_by_key(|set| of(&set.metadata));
    let surplus = old
        .len()
        .saturating_sub(usize::try_from(limit).unwrap_or(0));
    old.truncate(surplus);
    old
}
