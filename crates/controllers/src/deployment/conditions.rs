//! The status of a Deployment, as `kubectl rollout status` reads it. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::rollout::{available, limits, replicas, size};

/// `progressDeadlineSeconds` when nothing is given.
const DEADLINE_SECONDS: i32 = 600;
/// This value means that there is no deadline.
const NO_DEADLINE: i32 = i32::MAX;

/// The status as it should be, and after which while it will change by itself (the deadline of a rollout).
pub(super) fn status(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    sets: &[&ReplicaSet],
    now: Timestamp,
) -> (DeploymentStatus, Option<Duration>) {
    let old = deployment.status.clone().unwrap_or_default();
    let status_of = |set: &ReplicaSet| set.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| of(set)).sum::<i32>();
    let working = sum(&available);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(&|set| status_of(set).replicas)),
        updated_replicas: some(new.map_or(0, |new| status_of(new).replicas)),
        ready_replicas: some(sum(&|set| status_of(set).ready_replicas.unwrap_or(0))),
        available_replicas: some(working),
        unavailable_replicas: some((sum(&size) - working).max(0)),
        ..old.clone()
    };
    let minimum = replicas(deployment) - limits(deployment).1;
    let enough = match working >= minimum {
        true => condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.".into(),
        ),
        false => condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.".into(),
        ),
    };
    set_condition(&mut status, enough, now);
    let soon = progress(deployment, new, &old, &mut status, now);
    (status, soon)
}

/// The conditions right after the new ReplicaSet was made.
pub(super) fn created(deployment: &Deployment, name: &str, now: Timestamp) -> DeploymentStatus {
    let mut status = deployment.status.clone().unwrap_or_default();
    let message = format!("Created new replica set {name:?}");
    set_condition(
        &mut status,
        condition("Progressing", "True", "NewReplicaSetCreated", message),
        now,
    );
    DeploymentStatus {
        conditions: status.conditions,
        ..DeploymentStatus::default()
    }
}

/// Whether the rollout has ended, as the status tells.
pub(super) fn is_complete(deployment: &Deployment) -> bool {
    deployment
        .status
        .as_ref()
        .is_some_and(|status| completes(deployment, status))
}

fn completes(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let total = replicas(deployment);
    let all = [
        status.replicas,
        status.updated_replicas,
        status.available_replicas,
    ];
    all.iter().all(|n| n.unwrap_or(0) == total)
        && status.observed_generation >= deployment.metadata.generation
}

fn progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    old: &DeploymentStatus,
    status: &mut DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let deadline = spec.progress_deadline_seconds.unwrap_or(DEADLINE_SECONDS);
    if deadline == NO_DEADLINE {
        return None;
    }
    let current = find(status, "Progressing").cloned();
    let reason = current
        .as_ref()
        .and_then(|c| c.reason.as_deref())
        .unwrap_or_default();
    if spec.paused.unwrap_or(false) {
        if reason != "DeploymentPaused" && reason != "ProgressDeadlineExceeded" {
            let paused = condition(
                "Progressing",
                "Unknown",
                "DeploymentPaused",
                "Deployment is paused".into(),
            );
            set_condition(status, paused, now);
        }
        return None;
    }
    if reason == "DeploymentPaused" {
        let resumed = condition(
            "Progressing",
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed".into(),
        );
        set_condition(status, resumed, now);
    }
    let done = status.replicas == status.updated_replicas && reason == "NewReplicaSetAvailable";
    if done && completes(deployment, status) {
        return None;
    }
    let subject = match new.and_then(|new| new.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!(
            "Deployment {:?}",
            deployment.metadata.name.as_deref().unwrap_or_default()
        ),
    };
    if completes(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set_condition(
            status,
            condition("Progressing", "True", "NewReplicaSetAvailable", message),
            now,
        );
        return None;
    }
    if current.is_none() || progressed(old, status) {
        let message = format!("{subject} is progressing.");
        renew(
            status,
            condition("Progressing", "True", "ReplicaSetUpdated", message),
            now,
        );
    }
    let running = find(status, "Progressing")?;
    let since = running.last_update_time.as_ref().map_or(now, |time| time.0);
    let gone = Duration::from_millis(
        u64::try_from(now.as_millisecond() - since.as_millisecond()).unwrap_or(0),
    );
    let left = Duration::from_secs(u64::try_from(deadline).unwrap_or(0)).saturating_sub(gone);
    if running.reason.as_deref() == Some("NewReplicaSetAvailable") || done {
        return None;
    }
    if left.is_zero() {
        let message = format!("{subject} has timed out progressing.");
        set_condition(
            status,
            condition("Progressing", "False", "ProgressDeadlineExceeded", message),
            now,
        );
        return None;
    }
    Some(left)
}

fn progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |value: Option<i32>| value.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| n(status.replicas) - n(status.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn find<'a>(status: &'a DeploymentStatus, type_: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == type_)
}

fn condition(type_: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        ..DeploymentCondition::default()
    }
}

/// Sets a condition, unless it stands already with the same status and reason.
fn set_condition(status: &mut DeploymentStatus, new: DeploymentCondition, now: Timestamp) {
    let same = |c: &DeploymentCondition| c.status == new.status && c.reason == new.reason;
    if !find(status, &new.type_).is_some_and(same) {
        renew(status, new, now);
    }
}

/// Sets a condition, with a new time of update in any case.
fn renew(status: &mut DeploymentStatus, mut new: DeploymentCondition, now: Timestamp) {
    let before = find(status, &new.type_).filter(|c| c.status == new.status);
    new.last_transition_time = before
        .and_then(|c| c.last_transition_time.clone())
        .or(Some(whole(now)));
    new.last_update_time = Some(whole(now));
    let all = status.conditions.get_or_insert_default();
    match all
        .iter_mut()
        .find(|condition| condition.type_ == new.type_)
    {
        Some(there) => *there = new,
        None => all.push(new),
    }
}

/// Times in conditions have whole seconds.
fn whole(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

#[cfg(test)]
mod tests;
