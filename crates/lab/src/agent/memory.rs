//! What became of containers whose shim is gone: a pod's runs as the API, or this agent, remembers them. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use crate::shim::protocol::{Ended, PodState, Run};

/// How a container ended that went with its shim: as if it were killed.
const KILLED: i32 = 137;
/// `state` and `lastState` are all that is ever shown.
const RUNS_MAX: usize = 2;

/// The runs that a status tells of.
pub fn of_status(status: &PodStatus) -> PodState {
    let init = status.init_container_statuses.iter().flatten();
    let all = status.container_statuses.iter().flatten().chain(init);
    let mut state = PodState::default();
    for container in all {
        let runs: Vec<_> = run(container).into_iter().collect();
        if !runs.is_empty() {
            state.containers.insert(container.name.clone(), runs);
        }
    }
    state
}

fn run(container: &ContainerStatus) -> Option<Run> {
    let attempt = u32::try_from(container.restart_count).ok()?;
    let state = container.state.as_ref()?;
    if let Some(running) = &state.running {
        return Some(Run {
            attempt,
            started_at: running.started_at.as_ref()?.0,
            ended: None,
        });
    }
    // While a container waits to be started again, its last end is in the other field.
    let last = || container.last_state.as_ref()?.terminated.as_ref();
    let terminated = state.terminated.as_ref().or_else(last)?;
    let finished_at = terminated.finished_at.as_ref()?.0;
    let ended = Ended {
        exit_code: terminated.exit_code,
        signal: None,
        finished_at,
        start_error: terminated
            .message
            .clone()
            .filter(|_| terminated.reason.as_deref() == Some("StartError")),
    };
    Some(Run {
        attempt,
        started_at: terminated
            .started_at
            .as_ref()
            .map_or(finished_at, |time| time.0),
        ended: Some(ended),
    })
}

/// The same, knowing that nothing runs any more.
pub fn without_shim(mut state: PodState, now: Timestamp) -> PodState {
    for run in state.containers.values_mut().flatten() {
        let killed = Ended {
            exit_code: KILLED,
            signal: None,
            finished_at: now,
            start_error: None,
        };
        run.ended.get_or_insert(killed);
    }
    state
}

/// What the shim says, after what was before it.
pub fn merge(before: &PodState, now: PodState) -> PodState {
    let mut merged = before.clone();
    for (name, runs) in now.containers {
        let all = merged.containers.entry(name).or_default();
        let first = runs.first().map_or(0, |run| run.attempt);
        all.retain(|run| run.attempt < first);
        all.extend(runs);
        let surplus = all.len().saturating_sub(RUNS_MAX);
        all.drain(..surplus);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_lost_container_counts_as_killed_and_its_number_goes_on() {
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 3,
                "state": {"running": {"startedAt": "1970-01-01T00:00:05Z"}}},
            {"name": "b", "image": "", "imageID": "", "ready": false, "restartCount": 1, "state": {"waiting": {}},
                "lastState": {"terminated": {"exitCode": 2, "finishedAt": "1970-01-01T00:00:06Z"}}},
            {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {}}}
        ]}))
        .unwrap();
        let memory = without_shim(of_status(&status), at(9));
        let a = memory.last_run("a").unwrap();
        assert_eq!((a.attempt, a.ended.as_ref().unwrap().exit_code), (3, 137));
        let b = memory.last_run("b").unwrap();
        assert_eq!((b.attempt, b.ended.as_ref().unwrap().exit_code), (1, 2));
        assert!(memory.last_run("c").is_none());

        let next = Run {
            attempt: 4,
            started_at: at(10),
            ended: None,
        };
        let shim = PodState {
            containers: [("a".to_string(), vec![next])].into(),
        };
        let merged = merge(&memory, shim);
        let attempts: Vec<_> = merged.containers["a"]
            .iter()
            .map(|run| run.attempt)
            .collect();
        assert_eq!(attempts, [3, 4]);
    }

    #[test]
    fn the_shim_knows_better_than_the_memory() {
        let run = |attempt, ended: bool| Run {
            attempt,
            started_at: at(1),
            ended: ended.then(|| Ended {
                exit_code: 0,
                signal: None,
                finished_at: at(2),
                start_error: None,
            }),
        };
        let state = |runs: &[Run]| PodState {
            containers: [("a".to_string(), runs.to_vec())].into(),
        };
        let merged = merge(
            &state(&[run(1, false)]),
            state(&[run(1, true), run(2, false)]),
        );
        assert_eq!(merged, state(&[run(1, true), run(2, false)]));
    }
}
