//! How many pods come, which ones go, and what the status says.

use serde_json::{Value, json};

use super::*;

fn set(replicas: i32, ready_seconds: i32) -> ReplicaSet {
    serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "rs"},
        "spec": {"replicas": replicas, "minReadySeconds": ready_seconds, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}}}}))
    .unwrap()
}

fn pod(name: &str, more: Value) -> Arc<Pod> {
    let mut pod = json!({"metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]}});
    for (key, value) in more.as_object().unwrap() {
        match key.as_str() {
            "metadata" => value
                .as_object()
                .unwrap()
                .iter()
                .for_each(|(k, v)| pod["metadata"][k] = v.clone()),
            _ => pod[key] = value.clone(),
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn ready(name: &str, node: &str, since: &str) -> Arc<Pod> {
    pod(
        name,
        json!({"spec": {"nodeName": node, "containers": []}, "status": {"phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}}),
    )
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter()
        .filter_map(|pod| pod.metadata.name.as_deref())
        .collect()
}

#[test]
fn missing_pods_come_and_the_least_useful_go() {
    let old = "2026-01-01T00:00:00Z";
    let pods = [
        ready("a", "n1", old),
        ready("b", "n1", "2026-01-02T00:00:00Z"),
        ready("c", "n2", old),
        pod("pending", json!({})),
        pod("over", json!({"status": {"phase": "Failed"}})),
        pod("going", json!({"metadata": {"deletionTimestamp": old}})),
    ];
    assert_eq!(plan(&set(6, 0), &pods, &pods).create, 2);
    let plans = |replicas| plan(&set(replicas, 0), &pods, &pods).delete;
    assert_eq!(names(&plans(3)), ["pending"]);
    assert_eq!(
        names(&plans(2)),
        ["pending", "b"],
        "of two on one node the younger"
    );
    assert_eq!(names(&plans(0)).len(), 4);
}

#[test]
fn orphans_are_adopted_and_strangers_released() {
    let orphan = pod("orphan", json!({"metadata": {"ownerReferences": []}}));
    let stranger = pod(
        "stranger",
        json!({"metadata": {"labels": {"app": "other"}}}),
    );
    let plan = plan(&set(2, 0), &[orphan, stranger], &[]);
    assert_eq!(
        (names(&plan.adopt), names(&plan.release), plan.create),
        (vec!["orphan"], vec!["stranger"], 1)
    );
}

#[test]
fn available_is_ready_for_long_enough() {
    let now: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
    let pods = [
        ready("a", "n1", "2026-01-01T00:00:00Z"),
        ready("b", "n1", "2026-01-01T00:00:25Z"),
        pod("c", json!({})),
    ];
    let (status, soon) = status(&set(3, 10), &pods, now);
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.available_replicas
        ),
        (3, Some(2), Some(1))
    );
    assert_eq!(soon, Some(Duration::from_secs(5)));
}
