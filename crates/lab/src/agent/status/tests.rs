//! What `kubectl get pods` and `describe` are going to read.

use serde_json::{Value, json};

use super::*;
use crate::agent::decide::{Seen, decide};
use crate::shim::protocol::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn run(attempt: u32, exit_code: Option<i32>) -> Run {
    let ended = exit_code.map(|exit_code| Ended {
        exit_code,
        signal: None,
        finished_at: at(20),
        start_error: None,
    });
    Run {
        attempt,
        started_at: at(10),
        ended,
    }
}

/// The status of a pod with these runs.
fn status(pod: Value, runs: &[(&str, &[Run])], found: &[(&str, Found)], seen: &Seen) -> Value {
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let state = PodState {
        containers: runs
            .iter()
            .map(|(name, runs)| (name.to_string(), runs.to_vec()))
            .collect(),
    };
    let decision = decide(pod.spec.as_ref().unwrap(), &state, seen, at(21));
    let found = found
        .iter()
        .map(|(name, found)| (name.to_string(), found.clone()))
        .collect();
    let input = Input {
        pod: &pod,
        state: &state,
        decision: &decision,
        found: &found,
        pod_ips: &["10.1.0.2".parse().unwrap(), "fd00:10:1::2".parse().unwrap()],
        host_ips: &["192.168.0.11".parse().unwrap()],
        sandbox: true,
        now: at(21),
    };
    serde_json::to_value(build(&input)).unwrap()
}

fn pod(spec: Value, old: Value) -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec, "status": old})
}

fn one() -> Value {
    json!({"containers": [{"name": "c", "image": "portolan/echo"}]})
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let mut list = status["conditions"].as_array().unwrap().iter();
    list.find(|condition| condition["type"] == kind).unwrap()
}

const UP: Found = Found {
    started: true,
    ready: true,
    trouble: None,
};

#[test]
fn a_running_pod() {
    let got = status(
        pod(one(), json!({})),
        &[("c", &[run(0, None)])],
        &[("c", UP)],
        &Seen::default(),
    );
    assert_eq!(got["phase"], "Running");
    assert_eq!(
        got["podIPs"],
        json!([{"ip": "10.1.0.2"}, {"ip": "fd00:10:1::2"}])
    );
    let container = &got["containerStatuses"][0];
    assert_eq!(container["ready"], true);
    assert_eq!(
        container["state"],
        json!({"running": {"startedAt": "1970-01-01T00:00:10Z"}})
    );
    assert_eq!(condition(&got, "Ready")["status"], "True");
}

#[test]
fn an_unready_container_is_named() {
    let unready = Found { ready: false, ..UP };
    let got = status(
        pod(one(), json!({})),
        &[("c", &[run(0, None)])],
        &[("c", unready)],
        &Seen::default(),
    );
    for kind in ["Ready", "ContainersReady"] {
        let condition = condition(&got, kind);
        assert_eq!(condition["reason"], "ContainersNotReady");
        assert_eq!(condition["message"], "containers with unready status: [c]");
    }
}

#[test]
fn a_crash_loop_shows_the_wait_and_the_last_end() {
    let mut seen = Seen::default();
    seen.backoffs
        .insert("c".into(), crate::agent::backoff::Backoff::after(1));
    let got = status(
        pod(one(), json!({})),
        &[("c", &[run(0, Some(1)), run(1, Some(137))])],
        &[],
        &seen,
    );
    let container = &got["containerStatuses"][0];
    let waiting = &container["state"]["waiting"];
    assert_eq!(waiting["reason"], "CrashLoopBackOff");
    assert_eq!(
        waiting["message"],
        "back-off 10s restarting failed container=c pod=web_shop(u)"
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(container["restartCount"], 1);
    assert_eq!(got["phase"], "Running");
}

#[test]
fn init_containers_come_first() {
    let spec = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let got = status(
        pod(spec, json!({})),
        &[("i", &[run(0, None)])],
        &[("i", UP)],
        &Seen::default(),
    );
    assert_eq!(got["phase"], "Pending");
    assert_eq!(
        got["containerStatuses"][0]["state"]["waiting"]["reason"],
        "PodInitializing"
    );
    assert_eq!(
        condition(&got, "Initialized")["message"],
        "containers with incomplete status: [i]"
    );
}

#[test]
fn a_finished_pod_is_not_ready_but_initialized() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c"}]});
    let got = status(
        pod(spec, json!({})),
        &[("c", &[run(0, Some(0))])],
        &[],
        &Seen::default(),
    );
    assert_eq!(got["phase"], "Succeeded");
    assert_eq!(
        got["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    assert_eq!(condition(&got, "Ready")["reason"], "PodCompleted");
    assert_eq!(condition(&got, "Initialized")["status"], "True");
}

#[test]
fn times_of_conditions_change_only_with_them_and_gates_are_kept() {
    let mut spec = one();
    spec["readinessGates"] = json!([{"conditionType": "example.com/lb"}]);
    let old = json!({"conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
        {"type": "example.com/lb", "status": "False"}
    ]});
    let got = status(
        pod(spec, old),
        &[("c", &[run(0, None)])],
        &[("c", UP)],
        &Seen::default(),
    );
    assert_eq!(
        condition(&got, "Initialized")["lastTransitionTime"],
        "1970-01-01T00:00:05Z"
    );
    assert_eq!(condition(&got, "ContainersReady")["status"], "True");
    assert_eq!(condition(&got, "Ready")["reason"], "ReadinessGatesNotReady");
    assert_eq!(condition(&got, "example.com/lb")["status"], "False");
}
