//! The arithmetic of a rollout: how many replicas each ReplicaSet should have next. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

mod proportion;

const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

/// One ReplicaSet gets another size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) name: String,
    pub(super) from: i32,
    pub(super) to: i32,
}

/// The next step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// ReplicaSets to be scaled, in this order.
    pub(super) scales: Vec<Scale>,
    /// The new ReplicaSet is not there yet and should be made with so many replicas.
    pub(super) create: Option<i32>,
}

/// `spec.replicas` of a Deployment.
pub(super) fn replicas(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// Pods that a ReplicaSet has, as far as its status knows.
fn live(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// Whether the strategy is Recreate.
pub(super) fn is_recreate(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// `maxSurge` and `maxUnavailable` as numbers: the one is rounded up, the other down, and not both are 0.
pub(super) fn limits(deployment: &Deployment) -> (i32, i32) {
    if is_recreate(deployment) {
        return (0, 0);
    }
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let total = replicas(deployment);
    let surge = part(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = part(
        rolling.and_then(|r| r.max_unavailable.as_ref()),
        total,
        false,
    );
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        (surge, unavailable) => (surge, unavailable.min(total)),
    }
}

fn part(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let percent = |text: &str| {
        text.strip_suffix('%')
            .and_then(|number| number.parse::<i64>().ok())
    };
    let percent = match value {
        None => 25,
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => percent(text).unwrap_or(25),
    };
    let product = percent.max(0) * i64::from(total);
    let rounded = if up {
        (product + 99) / 100
    } else {
        product / 100
    };
    i32::try_from(rounded).unwrap_or(i32::MAX)
}

/// What every ReplicaSet that is written says about the Deployment's size, so that a later scaling is noticed.
pub(super) fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let total = replicas(deployment);
    let maximum = total.saturating_add(limits(deployment).0);
    BTreeMap::from([
        (DESIRED.into(), total.to_string()),
        (MAXIMUM.into(), maximum.to_string()),
    ])
}

/// Whether the Deployment has been scaled since its ReplicaSets were written.
pub(super) fn is_scaled(deployment: &Deployment, sets: &[std::sync::Arc<ReplicaSet>]) -> bool {
    let active = sets.iter().filter(|set| size(set) > 0);
    active
        .filter_map(|set| annotated(set, DESIRED))
        .any(|desired| desired != replicas(deployment))
}

pub(super) fn annotated(set: &ReplicaSet, key: &str) -> Option<i32> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The next step of a rolling update.
pub(super) fn rolling(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    sets: &[&ReplicaSet],
) -> Step {
    let wanted = new_size(deployment, new, sets);
    let Some(new) = new else {
        return Step {
            create: Some(wanted),
            ..Step::default()
        };
    };
    if wanted != size(new) {
        return Step {
            scales: vec![scale_to(new, wanted)],
            create: None,
        };
    }
    Step {
        scales: shrink_old(deployment, new, sets),
        create: None,
    }
}

/// All old pods go first, then the new ones come.
pub(super) fn recreate(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    sets: &[&ReplicaSet],
    old_pods: bool,
) -> Step {
    let old = sets.iter().filter(|set| !is_same(set, new));
    let scales: Vec<Scale> = old
        .filter(|set| size(set) > 0)
        .map(|set| scale_to(set, 0))
        .collect();
    if !scales.is_empty() {
        return Step {
            scales,
            create: None,
        };
    }
    let wanted = replicas(deployment);
    match new {
        _ if old_pods => Step::default(),
        None => Step {
            create: Some(wanted),
            ..Step::default()
        },
        Some(new) if size(new) != wanted => Step {
            scales: vec![scale_to(new, wanted)],
            create: None,
        },
        Some(_) => Step::default(),
    }
}

/// A Deployment that was scaled, or that is paused: its ReplicaSets grow or shrink in proportion.
pub(super) fn scale(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    sets: &[&ReplicaSet],
) -> Step {
    let total = replicas(deployment);
    let active: Vec<&ReplicaSet> = sets.iter().copied().filter(|set| size(set) > 0).collect();
    let newest = || new.or_else(|| sets.last().copied());
    let only = match active[..] {
        [] => newest(),
        [one] => Some(one),
        _ => None,
    };
    if let Some(only) = only {
        let stale = annotated(only, DESIRED) != Some(total);
        let scales = (size(only) != total || stale).then(|| scale_to(only, total));
        return Step {
            scales: scales.into_iter().collect(),
            create: None,
        };
    }
    if let Some(new) = new.filter(|new| is_saturated(deployment, new)) {
        let old = active.iter().filter(|set| !is_same(set, Some(new)));
        return Step {
            scales: old.map(|set| scale_to(set, 0)).collect(),
            create: None,
        };
    }
    match is_recreate(deployment) {
        true => Step::default(),
        false => Step {
            scales: proportion::spread(deployment, &active),
            create: None,
        },
    }
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let total = replicas(deployment);
    size(set) == total && annotated(set, DESIRED) == Some(total) && available(set) == total
}

fn is_same(set: &ReplicaSet, other: Option<&ReplicaSet>) -> bool {
    other.is_some_and(|other| other.metadata.uid == set.metadata.uid)
}

fn scale_to(set: &ReplicaSet, to: i32) -> Scale {
    Scale {
        name: set.metadata.name.clone().unwrap_or_default(),
        from: size(set),
        to,
    }
}

/// As many new ones as `maxSurge` lets in above the total.
fn new_size(deployment: &Deployment, new: Option<&ReplicaSet>, sets: &[&ReplicaSet]) -> i32 {
    let total = replicas(deployment);
    let have = new.map_or(0, size);
    if have >= total {
        return total;
    }
    // Pods that a smaller ReplicaSet has not let go of yet still count.
    let all: i32 = sets.iter().map(|set| size(set).max(live(set))).sum();
    let room = total
        .saturating_add(limits(deployment).0)
        .saturating_sub(all);
    have + room.clamp(0, total - have)
}

/// Old ones go as far as `maxUnavailable` allows: first those that do not work anyway, then working ones.
fn shrink_old(deployment: &Deployment, new: &ReplicaSet, sets: &[&ReplicaSet]) -> Vec<Scale> {
    let old: Vec<&ReplicaSet> = sets
        .iter()
        .copied()
        .filter(|set| !is_same(set, Some(new)) && size(set) > 0)
        .collect();
    let minimum = replicas(deployment) - limits(deployment).1;
    let all: i32 = sets.iter().map(|set| size(set)).sum();
    let starting = (size(new) - available(new)).max(0);
    let mut budget = all - minimum - starting;
    if old.is_empty() || budget <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|set| size(set)).collect();
    for (set, left) in old.iter().zip(&mut sizes) {
        let broken = (*left - available(set)).clamp(0, budget);
        *left -= broken;
        budget -= broken;
    }
    // A status may be older than the size that was just written: no set keeps more than it asks for.
    let kept = old.iter().zip(&sizes);
    let kept: i32 = kept.map(|(set, left)| available(set).min(*left)).sum();
    let working = kept + available(new).min(size(new));
    let mut surplus = (working - minimum).min(budget);
    for left in &mut sizes {
        let gone = surplus.clamp(0, *left);
        *left -= gone;
        surplus -= gone;
    }
    let changed = old
        .iter()
        .zip(sizes)
        .filter(|(set, left)| size(set) != *left);
    changed.map(|(set, left)| scale_to(set, left)).collect()
}

#[cfg(test)]
mod tests;
