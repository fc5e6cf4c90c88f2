//! Which container is started when.

use serde_json::json;

use super::*;
use crate::shim::protocol::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn spec(policy: &str) -> PodSpec {
    serde_json::from_value(json!({
        "restartPolicy": policy,
        "initContainers": [{"name": "one"}, {"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}, {"name": "b"}]
    }))
    .unwrap()
}

fn run(attempt: u32, code: Option<i32>) -> Run {
    let ended = code.map(|exit_code| Ended {
        exit_code,
        signal: None,
        finished_at: at(1),
        start_error: None,
    });
    Run {
        attempt,
        started_at: at(0),
        ended,
    }
}

fn state(runs: &[(&str, Run)]) -> PodState {
    PodState {
        containers: runs
            .iter()
            .map(|(name, run)| (name.to_string(), vec![run.clone()]))
            .collect(),
    }
}

fn starts(spec: &PodSpec, state: &PodState, memory: &Memory) -> Vec<(String, u32)> {
    let plan = plan(spec, "p_ns(u)", state, memory, at(2));
    plan.starts(spec)
        .into_iter()
        .map(|(container, attempt)| (container.name.clone(), attempt))
        .collect()
}

#[test]
fn init_containers_run_one_after_the_other_before_the_rest() {
    let (spec, none) = (spec("Always"), Memory::default());
    let begun = |runs: &[(&str, Run)]| starts(&spec, &state(runs), &none);
    assert_eq!(begun(&[]), [("one".into(), 0)]);
    assert_eq!(begun(&[("one", run(0, None))]), []);
    assert_eq!(begun(&[("one", run(0, Some(0)))]), [("side".into(), 0)]);
    let ready = [("one", run(0, Some(0))), ("side", run(0, None))];
    assert_eq!(begun(&ready), [("a".into(), 0), ("b".into(), 0)]);
}

#[test]
fn a_sidecar_must_have_started_first() {
    let waiting = Health {
        started: false,
        ready: false,
    };
    let memory = Memory {
        health: [("side".to_string(), waiting)].into(),
        ..Memory::default()
    };
    assert_eq!(
        starts(
            &spec("Always"),
            &state(&[("one", run(0, Some(0))), ("side", run(0, None))]),
            &memory
        ),
        []
    );
}

#[test]
fn the_restart_policy_decides_about_ended_containers() {
    let ended = |code| {
        state(&[
            ("one", run(0, Some(0))),
            ("side", run(0, None)),
            ("a", run(3, Some(code))),
            ("b", run(0, None)),
        ])
    };
    let none = Memory::default();
    let again = vec![("a".to_string(), 4)];
    assert_eq!(starts(&spec("Always"), &ended(0), &none), again);
    assert_eq!(starts(&spec("OnFailure"), &ended(1), &none), again);
    assert_eq!(starts(&spec("OnFailure"), &ended(0), &none), []);
    assert_eq!(starts(&spec("Never"), &ended(1), &none), []);
}

#[test]
fn a_failing_init_container_is_repeated_unless_the_policy_is_never() {
    let failed = state(&[("one", run(0, Some(1)))]);
    assert_eq!(
        starts(&spec("Always"), &failed, &Memory::default()),
        [("one".into(), 1)]
    );
    let plan = plan(&spec("Never"), "p", &failed, &Memory::default(), at(2));
    assert_eq!(
        (plan.stands["one"].clone(), plan.stands["a"].clone()),
        (Stand::Finished, Stand::Later)
    );
}

#[test]
fn a_crash_loop_waits_and_says_so() {
    let mut memory = Memory::default();
    memory
        .backoff
        .entry("a".into())
        .or_default()
        .restarted(at(0), at(1));
    let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap();
    let plan = plan(
        &spec,
        "p_ns(u)",
        &state(&[("a", run(1, Some(1)))]),
        &memory,
        at(2),
    );
    let text = "back-off 10s restarting failed container=a pod=p_ns(u)".to_string();
    assert_eq!(plan.stands["a"], Stand::BackOff(at(11), text));
    assert_eq!(plan.wake_at(), Some(at(11)));
}

#[test]
fn attempts_go_on_after_a_lost_sandbox() {
    let memory = Memory {
        first_attempt: [("a".to_string(), 5)].into(),
        ..Memory::default()
    };
    let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap();
    assert_eq!(
        starts(&spec, &PodState::default(), &memory),
        [("a".into(), 5)]
    );
}
