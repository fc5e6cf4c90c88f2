//! The kubelet's status rules.

use serde_json::json;

use super::*;
use crate::agent::decide::{self, Health};
use crate::shim::protocol::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}
    }))
    .unwrap()
}

fn run(attempt: u32, code: Option<i32>) -> Run {
    let ended = code.map(|exit_code| Ended {
        exit_code,
        signal: None,
        finished_at: at(5),
        start_error: None,
    });
    Run {
        attempt,
        started_at: at(0),
        ended,
    }
}

fn status_of(pod: &Pod, runs: Vec<Run>, memory: &Memory) -> PodStatus {
    let state = PodState {
        containers: [("a".to_string(), runs)].into(),
    };
    let plan = decide::plan(pod.spec.as_ref().unwrap(), "p_ns(u)", &state, memory, at(6));
    let facts = Facts {
        pod_ips: vec!["10.1.0.2".into()],
        host_ips: vec!["192.168.0.11".into()],
    };
    build(&Input {
        pod,
        facts: &facts,
        sandbox: true,
        state: &state,
        memory,
        plan: &plan,
        now: at(6),
    })
}

fn is_ready(status: &PodStatus) -> (&str, Option<&str>) {
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready")
        .unwrap();
    (&ready.status, ready.reason.as_deref())
}

#[test]
fn a_running_container_is_ready_when_its_probe_says_so() {
    let status = status_of(&pod("Always"), vec![run(0, None)], &Memory::default());
    assert_eq!(
        (status.phase.as_deref(), is_ready(&status)),
        (Some("Running"), ("True", None))
    );
    let health = [(
        "a".to_string(),
        Health {
            started: true,
            ready: false,
        },
    )]
    .into();
    let status = status_of(
        &pod("Always"),
        vec![run(0, None)],
        &Memory {
            health,
            ..Memory::default()
        },
    );
    assert_eq!(is_ready(&status), ("False", Some("ContainersNotReady")));
}

#[test]
fn ended_pods_have_succeeded_or_failed() {
    for (policy, code, phase) in [
        ("Never", 0, "Succeeded"),
        ("Never", 1, "Failed"),
        ("OnFailure", 0, "Succeeded"),
        ("Always", 1, "Running"),
    ] {
        let status = status_of(&pod(policy), vec![run(0, Some(code))], &Memory::default());
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_shows_why_it_waits_and_how_it_ended() {
    let mut memory = Memory::default();
    memory
        .backoff
        .entry("a".into())
        .or_default()
        .restarted(at(0), at(1));
    let status = status_of(
        &pod("Always"),
        vec![run(1, Some(2)), run(2, Some(3))],
        &memory,
    );
    let container = &status.container_statuses.unwrap()[0];
    let waiting = container.state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(
        (
            last.exit_code,
            last.reason.as_deref(),
            container.restart_count
        ),
        (3, Some("Error"), 2)
    );
}

#[test]
fn a_restarted_container_shows_its_previous_end() {
    let status = status_of(
        &pod("Always"),
        vec![run(0, Some(1)), run(1, None)],
        &Memory::default(),
    );
    let container = &status.container_statuses.unwrap()[0];
    assert!(container.state.clone().unwrap().running.is_some());
    assert_eq!(
        container
            .last_state
            .clone()
            .unwrap()
            .terminated
            .unwrap()
            .exit_code,
        1
    );
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut pod = pod("Always");
    let mut first = status_of(&pod, vec![run(0, None)], &Memory::default());
    for condition in first.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(time(at(1)));
    }
    pod.status = Some(first);
    let health = [(
        "a".to_string(),
        Health {
            started: true,
            ready: false,
        },
    )]
    .into();
    let second = status_of(
        &pod,
        vec![run(0, None)],
        &Memory {
            health,
            ..Memory::default()
        },
    );
    let times: Vec<_> = second
        .conditions
        .unwrap()
        .into_iter()
        .map(|c| (c.type_, c.last_transition_time.unwrap().0))
        .collect();
    for (kind, when) in times {
        let moved = matches!(kind.as_str(), "Ready" | "ContainersReady");
        assert_eq!(when, if moved { at(6) } else { at(1) }, "{kind}");
    }
}
