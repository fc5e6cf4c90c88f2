//! Pods in words: `name=state` for each container, and what is decided.

use serde_json::json;

use super::*;
use crate::shim::protocol::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn spec(policy: &str, init: &[&str], containers: &[&str]) -> PodSpec {
    let list = |names: &[&str]| {
        let one = |name: &&str| match name.strip_suffix('*') {
            Some(sidecar) => json!({"name": sidecar, "restartPolicy": "Always"}),
            None => json!({"name": name}),
        };
        names.iter().map(one).collect::<Vec<_>>()
    };
    serde_json::from_value(json!({
        "restartPolicy": policy, "initContainers": list(init), "containers": list(containers)
    }))
    .unwrap()
}

/// `a=run` runs, `a=0` ended with code 0 in its first run.
fn state(words: &str) -> PodState {
    let run = |word: &str| {
        let (name, how) = word.split_once('=').unwrap();
        let ended = how.parse().ok().map(|exit_code| Ended {
            exit_code,
            signal: None,
            finished_at: at(1),
            start_error: None,
        });
        let run = Run {
            attempt: 0,
            started_at: at(0),
            ended,
        };
        (name.to_string(), vec![run])
    };
    PodState {
        containers: words.split_whitespace().map(run).collect(),
    }
}

fn started(decision: &Decision) -> String {
    let words: Vec<_> = decision
        .starts
        .iter()
        .map(|(name, attempt)| format!("{name}#{attempt}"))
        .collect();
    words.join(" ")
}

#[test]
fn containers_are_started_in_the_right_order() {
    let up = |names: &[&str]| Seen {
        started: names.iter().map(|name| name.to_string()).collect(),
        ..Seen::default()
    };
    let with_init = spec("Always", &["i1", "i2"], &["a", "b"]);
    let with_sidecar = spec("Always", &["s*", "i"], &["a"]);
    let cases: &[(&PodSpec, &str, Seen, &str, Phase)] = &[
        (&with_init, "", up(&[]), "i1#0", Phase::Pending),
        (&with_init, "i1=run", up(&[]), "", Phase::Pending),
        (&with_init, "i1=0", up(&[]), "i2#0", Phase::Pending),
        (&with_init, "i1=0 i2=1", up(&[]), "i2#1", Phase::Pending),
        (&with_init, "i1=0 i2=0", up(&[]), "a#0 b#0", Phase::Pending),
        (
            &with_init,
            "i1=0 i2=0 a=run b=0",
            up(&[]),
            "b#1",
            Phase::Running,
        ),
        (&with_sidecar, "s=run", up(&[]), "", Phase::Pending),
        (&with_sidecar, "s=run", up(&["s"]), "i#0", Phase::Pending),
        (
            &with_sidecar,
            "s=0 i=0 a=run",
            up(&[]),
            "s#1",
            Phase::Running,
        ),
    ];
    for (spec, words, seen, want, phase) in cases {
        let got = decide(spec, &state(words), seen, at(2));
        assert_eq!(
            (started(&got).as_str(), got.phase),
            (*want, *phase),
            "{words}"
        );
    }
}

#[test]
fn the_restart_policy_decides_how_a_pod_ends() {
    let cases = [
        ("Always", "a=0 b=1", "a#1 b#1", Phase::Running),
        ("OnFailure", "a=0 b=1", "b#1", Phase::Running),
        ("OnFailure", "a=0 b=0", "", Phase::Succeeded),
        ("Never", "a=0 b=1", "", Phase::Failed),
        ("Never", "a=0 b=run", "", Phase::Running),
        ("Never", "a=0 b=0", "", Phase::Succeeded),
    ];
    for (policy, words, want, phase) in cases {
        let spec = spec(policy, &[], &["a", "b"]);
        let got = decide(&spec, &state(words), &Seen::default(), at(2));
        assert_eq!(
            (started(&got).as_str(), got.phase),
            (want, phase),
            "{policy} {words}"
        );
    }
    let failed_init = spec("Never", &["i"], &["a"]);
    let got = decide(&failed_init, &state("i=3"), &Seen::default(), at(2));
    assert_eq!(got.phase, Phase::Failed);
}

#[test]
fn a_crashing_container_waits() {
    let mut seen = Seen::default();
    seen.backoffs.insert("a".into(), Backoff::after(2));
    let spec = spec("Always", &[], &["a"]);
    let got = decide(&spec, &state("a=1"), &seen, at(2));
    assert_eq!(got.waits["a"], (at(21), Duration::from_secs(20)));
    assert_eq!(got.phase, Phase::Running);
    assert_eq!(started(&decide(&spec, &state("a=1"), &seen, at(21))), "a#1");
}
