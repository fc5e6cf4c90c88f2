//! Which node a pod gets, or what is in the way on each of them. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use super::NodeFacts;

/// A node, and how much it carries.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) name: String,
    pub(super) facts: NodeFacts,
    pub(super) same_owner: usize,
    pub(super) pods: usize,
}

/// The node with the fewest pods of the same owner, then with the fewest pods. `Err` is upstream's text.
pub(super) fn choose(pod: &Pod, candidates: Vec<Candidate>) -> Result<String, String> {
    let total = candidates.len();
    let mut obstacles: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for candidate in candidates {
        match obstacle(pod, &candidate) {
            None => fitting.push(candidate),
            Some(words) => *obstacles.entry(words).or_insert(0) += 1,
        }
    }
    let best = fitting
        .into_iter()
        .min_by(|a, b| (a.same_owner, a.pods, &a.name).cmp(&(b.same_owner, b.pods, &b.name)));
    best.map(|candidate| candidate.name).ok_or_else(|| {
        if total == 0 {
            return "no nodes available to schedule pods".to_string();
        }
        let reasons: Vec<String> = obstacles.iter().map(|(words, count)| format!("{count} {words}")).collect();
        format!(
            "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {total} Preemption is not \
             helpful for scheduling.",
            reasons.join(", ")
        )
    })
}

fn obstacle(pod: &Pod, candidate: &Candidate) -> Option<String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let facts = &candidate.facts;
    let tolerations = spec.tolerations.unwrap_or_default();
    let tolerates = |taint: &Taint| {
        tolerations
            .iter()
            .any(|toleration| covers(toleration, taint))
    };
    let plain = |key: &str| Taint {
        key: key.into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    if facts.unschedulable && !tolerates(&plain("node.kubernetes.io/unschedulable")) {
        return Some("node(s) were unschedulable".into());
    }
    let hinders = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    let mut taints = facts
        .taints
        .iter()
        .filter(hinders)
        .cloned()
        .collect::<Vec<_>>();
    if !facts.ready {
        taints.push(plain("node.kubernetes.io/not-ready"));
    }
    if let Some(taint) = taints.iter().find(|taint| !tolerates(taint)) {
        let value = taint.value.as_deref().unwrap_or_default();
        return Some(format!(
            "node(s) had untolerated taint {{{}: {value}}}",
            taint.key
        ));
    }
    let wanted = spec.node_selector.unwrap_or_default();
    let has = |(key, value): (&String, &String)| facts.labels.get(key) == Some(value);
    match wanted.iter().all(has) {
        true => None,
        false => Some("node(s) didn't match Pod's node affinity/selector".into()),
    }
}

/// Whether a toleration tolerates a taint.
pub(crate) fn covers(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect_fits = effect.is_empty() || effect == taint.effect;
    let key_fits = key.is_empty() || key == taint.key;
    let value_fits = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        _ => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
    };
    effect_fits && key_fits && value_fits
}

#[cfg(test)]
mod tests;
