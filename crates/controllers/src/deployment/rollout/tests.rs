//! The arithmetic of rollouts, as tables.

use serde_json::json;

use super::*;

fn deployment(replicas: i32, surge: &str, unavailable: &str) -> Deployment {
    let value = |text: &str| {
        text.parse::<i32>()
            .map_or_else(|_| json!(text), |number| json!(number))
    };
    serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas, "selector": {}, "template": {},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": value(surge), "maxUnavailable": value(unavailable)}}}}))
    .unwrap()
}

fn set(name: &str, size: i32, available: i32) -> ReplicaSet {
    serde_json::from_value(json!({"metadata": {"name": name, "uid": name,
        "annotations": {DESIRED: "10", MAXIMUM: "13"}},
        "spec": {"replicas": size, "selector": {}}, "status": {"replicas": size, "availableReplicas": available}}))
    .unwrap()
}

fn told(scales: &[Scale]) -> Vec<String> {
    scales
        .iter()
        .map(|scale| format!("{} {}>{}", scale.name, scale.from, scale.to))
        .collect()
}

#[test]
fn surge_rounds_up_and_unavailable_rounds_down() {
    for (replicas, surge, unavailable, expected) in [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (4, "0", "0", (0, 1)),
        (4, "0%", "10%", (0, 1)),
        (3, "1", "0", (1, 0)),
        (3, "100%", "100%", (3, 3)),
        (2, "0", "5", (0, 2)),
    ] {
        assert_eq!(
            limits(&deployment(replicas, surge, unavailable)),
            expected,
            "{replicas} {surge} {unavailable}"
        );
    }
}

#[test]
fn a_rolling_update_goes_step_by_step() {
    for (new, old, limits, expected) in [
        // new (size, available), old (size, available)
        ((0, 0), (3, 3), ("1", "0"), "new 0>1"),
        ((1, 0), (3, 3), ("1", "0"), ""),
        ((1, 1), (3, 3), ("1", "0"), "old 3>2"),
        ((1, 1), (2, 2), ("1", "0"), "new 1>2"),
        ((3, 2), (1, 1), ("1", "0"), ""),
        ((3, 3), (1, 1), ("1", "0"), "old 1>0"),
        ((3, 3), (0, 0), ("1", "0"), ""),
        ((0, 0), (3, 3), ("0", "1"), "old 3>2"),
        ((0, 0), (2, 2), ("0", "1"), "new 0>1"),
        // Old ones that do not work go first, without waiting for new ones.
        ((1, 0), (3, 0), ("1", "1"), "old 3>2"),
        ((5, 3), (0, 0), ("1", "0"), "new 5>3"),
    ] {
        let deployment = deployment(3, limits.0, limits.1);
        let (new, old) = (set("new", new.0, new.1), set("old", old.0, old.1));
        let step = rolling(&deployment, Some(&new), &[&old, &new]);
        assert_eq!(
            told(&step.scales).join(", "),
            expected,
            "{new:?} {old:?} {limits:?}"
        );
    }
}

#[test]
fn a_first_rollout_starts_with_everything() {
    let step = rolling(&deployment(3, "25%", "25%"), None, &[]);
    assert_eq!(
        step,
        Step {
            scales: vec![],
            create: Some(3)
        }
    );
    let step = rolling(&deployment(3, "1", "0"), None, &[&set("old", 3, 3)]);
    assert_eq!(step.create, Some(1));
}

#[test]
fn recreate_waits_until_all_old_pods_are_gone() {
    let mut recreated = deployment(3, "0", "0");
    recreated.spec.as_mut().unwrap().strategy =
        serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    let old = set("old", 3, 3);
    assert_eq!(
        told(&recreate(&recreated, None, &[&old], true).scales),
        ["old 3>0"]
    );
    let empty = set("old", 0, 0);
    assert_eq!(recreate(&recreated, None, &[&empty], true), Step::default());
    assert_eq!(recreate(&recreated, None, &[&empty], false).create, Some(3));
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_in_proportion() {
    let (new, old) = (set("new", 5, 5), set("old", 8, 8));
    let grown = scale(&deployment(20, "30%", "25%"), Some(&new), &[&old, &new]);
    assert_eq!(told(&grown.scales), ["old 8>16", "new 5>10"]);
    let shrunk = scale(&deployment(5, "30%", "25%"), Some(&new), &[&old, &new]);
    let total: i32 = shrunk.scales.iter().map(|scale| scale.to).sum();
    assert_eq!(total, 7);
    let none = scale(&deployment(0, "30%", "25%"), Some(&new), &[&old, &new]);
    assert_eq!(told(&none.scales), ["old 8>0", "new 5>0"]);
    let alone = scale(&deployment(4, "30%", "25%"), Some(&new), &[&new]);
    assert_eq!(told(&alone.scales), ["new 5>4"]);
}
