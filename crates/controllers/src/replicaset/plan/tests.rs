//! Which pods go, come, and count.

use serde_json::{Value, json};

use super::*;

fn set(replicas: usize) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "uid": "set", "generation": 4},
        "spec": {
            "replicas": replicas,
            "minReadySeconds": 10,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}},
        },
    }))
    .unwrap()
}

/// A running pod of the set that is ready since a second; `extra` is merged over it.
fn pod(name: &str, ready_since: i64, extra: Value) -> Arc<Pod> {
    let since = Timestamp::from_second(ready_since).unwrap();
    let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set", "controller": true});
    let mut pod = json!({
        "metadata": {
            "name": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web"},
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": []},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}],
        },
    });
    for (part, fields) in extra.as_object().into_iter().flatten() {
        for (key, value) in fields.as_object().into_iter().flatten() {
            pod[part.as_str()][key.as_str()] = value.clone();
        }
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter()
        .map(|pod| pod.metadata.name.as_deref().unwrap())
        .collect()
}

#[test]
fn the_order_of_deletion() {
    let cost = |cost: &str| json!({"metadata": {"annotations": {DELETION_COST: cost}}});
    let phase = |phase: &str| json!({"status": {"phase": phase, "conditions": []}});
    let restarts = json!({"status": {"containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3},
    ]}});
    let expected = [
        pod(
            "unbound",
            0,
            json!({"spec": {"nodeName": ""}, "status": {"phase": "Pending", "conditions": []}}),
        ),
        pod("pending", 0, phase("Pending")),
        pod("unknown", 0, phase("Unknown")),
        pod("unready", 0, phase("Running")),
        pod("cheap", 100, cost("-5")),
        pod("crowded", 100, json!({"spec": {"nodeName": "n2"}})),
        pod("ready late", 200, json!({})),
        pod("restarted", 100, restarts),
        pod(
            "newer",
            100,
            json!({"metadata": {"creationTimestamp": "2026-01-02T00:00:00Z"}}),
        ),
        pod("older", 100, json!({})),
        pod("dear", 200, cost("100")),
    ];
    let mut crowd: Vec<Arc<Pod>> = Vec::new();
    crowd.extend((0..9).map(|n| pod(&format!("n2-{n}"), 0, json!({"spec": {"nodeName": "n2"}}))));
    let mut shuffled = expected.to_vec();
    fastrand::Rng::with_seed(7).shuffle(&mut shuffled);
    let all = plan(&set(0), &shuffled, &crowd);
    assert_eq!(names(&all.delete), names(&expected));
    let some = plan(&set(8), &shuffled, &crowd);
    assert_eq!(names(&some.delete), ["unbound", "pending", "unknown"]);
}

#[test]
fn pods_that_end_or_go_are_replaced() {
    let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let pods = [
        pod("a", 0, json!({})),
        pod("b", 0, going),
        pod("c", 0, json!({"status": {"phase": "Failed"}})),
    ];
    let plan = plan(&set(3), &pods, &pods);
    assert_eq!((plan.create, plan.delete.len()), (2, 0));
}

#[test]
fn pods_are_adopted_and_released_by_their_labels() {
    let pods = [
        pod("stranger", 0, json!({"metadata": {"ownerReferences": []}})),
        pod("lost", 0, json!({"metadata": {"labels": {"app": "db"}}})),
    ];
    let plan = plan(&set(2), &pods, &[]);
    assert_eq!(names(&plan.adopt), ["stranger"]);
    assert_eq!(names(&plan.release), ["lost"]);
    assert_eq!(plan.create, 1);
}

#[test]
fn ready_is_not_yet_available() {
    let pods = [
        pod("unready", 0, json!({"status": {"conditions": []}})),
        pod("fresh", 96, json!({})),
        pod("almost", 91, json!({})),
        pod("available", 90, json!({})),
    ];
    let (status, soon) = status(&set(4), &pods, Timestamp::from_second(100).unwrap());
    assert_eq!(status.replicas, 4);
    assert_eq!(status.ready_replicas, Some(3));
    assert_eq!(status.available_replicas, Some(1));
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(soon, Some(Duration::from_secs(1)));
}
