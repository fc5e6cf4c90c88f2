//! What `kubectl rollout status` gets to read.

use serde_json::json;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn deployment(status: Option<DeploymentStatus>) -> Deployment {
    let mut deployment: Deployment =
        serde_json::from_value(json!({"metadata": {"name": "web", "generation": 2},
        "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}}}))
        .unwrap();
    deployment.status = status;
    deployment
}

fn set(available: i32) -> ReplicaSet {
    serde_json::from_value(
        json!({"metadata": {"name": "web-1", "uid": "1"}, "spec": {"replicas": 2, "selector": {}},
        "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available}}),
    )
    .unwrap()
}

fn reason<'a>(status: &'a DeploymentStatus, type_: &str) -> &'a str {
    find(status, type_)
        .and_then(|condition| condition.reason.as_deref())
        .unwrap_or_default()
}

#[test]
fn a_rollout_progresses_and_completes() {
    let (begun, soon) = status(&deployment(None), Some(&set(0)), &[&set(0)], at(0));
    assert_eq!(reason(&begun, "Progressing"), "ReplicaSetUpdated");
    assert_eq!(reason(&begun, "Available"), "MinimumReplicasUnavailable");
    assert_eq!(
        (begun.unavailable_replicas, begun.updated_replicas),
        (Some(2), Some(2))
    );
    assert_eq!(soon, Some(Duration::from_secs(60)));
    let (half, soon) = status(&deployment(Some(begun)), Some(&set(1)), &[&set(1)], at(40));
    assert_eq!(
        (reason(&half, "Progressing"), soon),
        ("ReplicaSetUpdated", Some(Duration::from_secs(60)))
    );
    let (done, soon) = status(&deployment(Some(half)), Some(&set(2)), &[&set(2)], at(50));
    assert_eq!(
        (reason(&done, "Progressing"), soon),
        ("NewReplicaSetAvailable", None)
    );
    assert_eq!(reason(&done, "Available"), "MinimumReplicasAvailable");
    let again = status(
        &deployment(Some(done.clone())),
        Some(&set(2)),
        &[&set(2)],
        at(99),
    )
    .0;
    assert_eq!(again, done, "nothing has changed");
    let hurt = status(&deployment(Some(done)), Some(&set(1)), &[&set(1)], at(999)).0;
    assert_eq!(
        reason(&hurt, "Progressing"),
        "NewReplicaSetAvailable",
        "a pod that fails later is no rollout"
    );
}

#[test]
fn a_rollout_that_stands_still_times_out() {
    let (begun, _) = status(&deployment(None), Some(&set(0)), &[&set(0)], at(0));
    let (late, _) = status(&deployment(Some(begun)), Some(&set(0)), &[&set(0)], at(61));
    assert_eq!(reason(&late, "Progressing"), "ProgressDeadlineExceeded");
    let words = find(&late, "Progressing").and_then(|c| c.message.clone());
    assert_eq!(
        words.as_deref(),
        Some("ReplicaSet \"web-1\" has timed out progressing.")
    );
}
