//! Who gets which node, and what is said when nobody does.

use serde_json::{Value, json};

use super::*;

fn candidate(name: &str, same_owner: usize, pods: usize) -> Candidate {
    let facts = NodeFacts {
        ready: true,
        unschedulable: false,
        taints: Vec::new(),
        labels: Default::default(),
    };
    Candidate {
        name: name.into(),
        facts,
        same_owner,
        pods,
    }
}

fn pod(spec: Value) -> Pod {
    let mut all = json!({"containers": []});
    spec.as_object()
        .unwrap()
        .iter()
        .for_each(|(key, value)| all[key] = value.clone());
    serde_json::from_value(json!({"spec": all})).unwrap()
}

#[test]
fn pods_are_spread_by_owner_then_by_number() {
    let pod = pod(json!({}));
    let of = |all: &[Candidate]| choose(&pod, all.to_vec()).unwrap();
    assert_eq!(of(&[candidate("n1", 1, 1), candidate("n2", 0, 9)]), "n2");
    assert_eq!(of(&[candidate("n1", 1, 5), candidate("n2", 1, 4)]), "n2");
    assert_eq!(of(&[candidate("n2", 0, 0), candidate("n1", 0, 0)]), "n1");
}

#[test]
fn what_is_in_the_way_is_told_as_upstream_does() {
    assert_eq!(
        choose(&pod(json!({})), Vec::new()).unwrap_err(),
        "no nodes available to schedule pods"
    );
    let mut cordoned = candidate("n1", 0, 0);
    cordoned.facts.unschedulable = true;
    let mut tainted = candidate("n2", 0, 0);
    tainted.facts.taints = vec![Taint {
        key: "gpu".into(),
        value: Some("yes".into()),
        effect: "NoSchedule".into(),
        ..Taint::default()
    }];
    let plain = candidate("n3", 0, 0);
    let all = [cordoned, tainted, plain];
    let picky = pod(json!({"nodeSelector": {"disk": "ssd"}}));
    assert_eq!(
        choose(&picky, all.to_vec()).unwrap_err(),
        "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint \
         {gpu: yes}, 1 node(s) were unschedulable. preemption: 0/3 nodes are available: 3 Preemption is not helpful for \
         scheduling."
    );
    let tolerant = pod(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]}));
    assert_eq!(choose(&tolerant, all[..2].to_vec()).unwrap(), "n2");
}
