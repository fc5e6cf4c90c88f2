//! Where pods go, and what keeps them out.

use serde_json::{Value, json};

use super::*;

fn node(name: &str, same_owner: usize, pods: usize) -> Candidate {
    Candidate {
        name: name.into(),
        facts: NodeFacts {
            ready: true,
            unschedulable: false,
            taints: Vec::new(),
            labels: [("zone".to_string(), name.to_string())].into(),
        },
        same_owner,
        pods,
    }
}

fn pod(mut spec: Value) -> Pod {
    spec["containers"] = json!([]);
    serde_json::from_value(json!({"spec": spec})).unwrap()
}

#[test]
fn pods_spread_by_owner_then_by_number_then_by_name() {
    let cases = [
        (vec![node("a", 1, 1), node("b", 0, 9)], "b"),
        (vec![node("a", 1, 5), node("b", 1, 4)], "b"),
        (vec![node("b", 0, 0), node("a", 0, 0)], "a"),
    ];
    for (nodes, expected) in cases {
        assert_eq!(choose(&pod(json!({})), nodes).as_deref(), Ok(expected));
    }
}

#[test]
fn a_node_selector_decides() {
    for (zone, expected) in [("b", Some("b")), ("c", None)] {
        let one = pod(json!({"nodeSelector": {"zone": zone}}));
        let found = choose(&one, vec![node("a", 0, 0), node("b", 0, 0)]);
        assert_eq!(found.ok().as_deref(), expected);
    }
}

#[test]
fn the_reasons_are_counted() {
    let mut nodes = vec![node("a", 0, 0), node("b", 0, 0), node("c", 0, 0)];
    nodes[0].facts.unschedulable = true;
    nodes[1].facts.ready = false;
    let wanted = pod(json!({"nodeSelector": {"zone": "x"}}));
    let words = choose(&wanted, nodes).unwrap_err();
    assert!(
        words.starts_with(
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated \
             taint {node.kubernetes.io/not-ready: }, 1 node(s) were unschedulable."
        ),
        "{words}"
    );
    let nowhere = choose(&wanted, Vec::new()).unwrap_err();
    assert_eq!(nowhere, "no nodes available to schedule pods");
}

#[test]
fn taints_and_tolerations() {
    let tainted = |effect: &str| {
        let mut node = node("a", 0, 0);
        node.facts.taints = vec![Taint {
            key: "gpu".into(),
            value: Some("yes".into()),
            effect: effect.into(),
            time_added: None,
        }];
        vec![node]
    };
    let cases = [
        (json!([]), false),
        (json!([{"key": "gpu", "operator": "Exists"}]), true),
        (json!([{"operator": "Exists"}]), true),
        (
            json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]),
            true,
        ),
        (json!([{"key": "gpu", "value": "no"}]), false),
        (
            json!([{"key": "gpu", "operator": "Exists", "effect": "NoExecute"}]),
            false,
        ),
    ];
    for (tolerations, expected) in cases {
        let one = pod(json!({"tolerations": tolerations}));
        let found = choose(&one, tainted("NoSchedule")).is_ok();
        assert_eq!(found, expected, "{tolerations}");
    }
    assert!(choose(&pod(json!({})), tainted("PreferNoSchedule")).is_ok());
}
