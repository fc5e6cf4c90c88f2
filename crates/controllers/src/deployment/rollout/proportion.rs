//! Scaling in the middle of a rollout: every ReplicaSet grows or shrinks by its share.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{MAXIMUM, Scale, annotated, limits, replicas, scale_to, size};

/// The sizes of several active ReplicaSets (oldest first) after a scaling. What rounding leaves over goes to the first,
/// which is the largest one. A set whose size stays is written nevertheless, to note the new size of the Deployment.
pub(super) fn spread(deployment: &Deployment, active: &[&ReplicaSet]) -> Vec<Scale> {
    let total = replicas(deployment);
    let allowed = if total > 0 {
        total + limits(deployment).0
    } else {
        0
    };
    let change = allowed - active.iter().map(|set| size(set)).sum::<i32>();
    let mut order: Vec<(usize, &ReplicaSet)> = active.iter().copied().enumerate().collect();
    // Growing, the newer of two equal ones is first; shrinking, the older.
    match change > 0 {
        true => order.sort_by_key(|(age, set)| (Reverse(size(set)), Reverse(*age))),
        false => order.sort_by_key(|(age, set)| (Reverse(size(set)), *age)),
    }
    let mut given = 0;
    let mut sizes: Vec<i32> = Vec::new();
    for (_, set) in &order {
        let share = match change {
            0 => 0,
            _ => share(deployment, set, change, given),
        };
        given += share;
        sizes.push((size(set) + share).max(0));
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    order
        .iter()
        .zip(sizes)
        .map(|((_, set), to)| scale_to(set, to))
        .collect()
}

fn share(deployment: &Deployment, set: &ReplicaSet, change: i32, given: i32) -> i32 {
    let left = change - given;
    if size(set) == 0 || left == 0 {
        return 0;
    }
    let fraction = fraction(deployment, set);
    if change > 0 {
        fraction.min(left)
    } else {
        fraction.max(left)
    }
}

fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let total = replicas(deployment);
    if total == 0 {
        return -size(set);
    }
    let status = deployment
        .status
        .as_ref()
        .and_then(|status| status.replicas)
        .unwrap_or(0);
    let before = annotated(set, MAXIMUM)
        .filter(|n| *n > 0)
        .unwrap_or(status)
        .max(1);
    let after = total + limits(deployment).0;
    let scaled = f64::from(size(set)) * f64::from(after) / f64::from(before);
    scaled.round() as i32 - size(set)
}
