//! Which addresses NodePorts get.

use serde_json::json;

use super::*;

const INTERFACES: [&str; 8] = [
    "127.0.0.1",
    "::1",
    "192.168.0.11",
    "192.168.0.111",
    "203.0.113.1",
    "fd00:192:168::11",
    "2001:db8:113::1",
    "fe80::1",
];

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn chosen(primary: bool, ranges: &[&str], listed: &[&str]) -> BTreeSet<IpAddr> {
    let ranges = ranges.iter().map(|text| text.parse().unwrap());
    let wanted = NodePortAddresses {
        primary,
        ranges: ranges.collect(),
    };
    let listed: Vec<IpAddr> = listed.iter().map(|text| text.parse().unwrap()).collect();
    wanted.choose(&listed, &ips(&INTERFACES))
}

/// R-NODEPORT-1, R-NODEPORT-3.
#[test]
fn node_port_addresses_are_primary_ones_ranges_or_both() {
    let listed = ["192.168.0.11", "192.168.0.111", "fd00:192:168::11"];
    let primary = ips(&["192.168.0.11", "fd00:192:168::11"]);
    assert_eq!(chosen(true, &[], &listed), primary);
    let all = ["0.0.0.0/0", "::/0"];
    assert_eq!(chosen(false, &all, &listed), ips(&INTERFACES[2..]));
    let with_outer = ips(&["192.168.0.11", "fd00:192:168::11", "203.0.113.1"]);
    assert_eq!(chosen(true, &["203.0.113.0/24"], &listed), with_outer);
    assert_eq!(
        chosen(false, &["203.0.113.0/24"], &listed),
        ips(&["203.0.113.1"])
    );
    assert_eq!(
        chosen(false, &["127.0.0.0/8", "::1/128"], &listed),
        ips(&[])
    );
    assert_eq!(chosen(false, &["198.51.100.0/24"], &listed), ips(&[]));
}

/// Whoever runs outside a cluster has no Node object.
#[test]
fn without_a_node_object_all_addresses_that_others_reach_are_primary() {
    assert_eq!(chosen(true, &[], &[]), ips(&INTERFACES[2..7]));
    assert_eq!(chosen(true, &[], &["203.0.113.1"]), ips(&["203.0.113.1"]));
}

/// R-CHECK-4.
#[test]
fn a_node_that_is_about_to_go_is_not_eligible() {
    let eligible = |node: serde_json::Value| is_eligible(&serde_json::from_value(node).unwrap());
    let taint = |key: &str| {
        let taints = [json!({"key": key, "effect": "NoSchedule"})];
        json!({"metadata": {"name": "n1"}, "spec": {"taints": taints}})
    };
    assert!(eligible(json!({"metadata": {"name": "n1"}})));
    assert!(eligible(taint("node.kubernetes.io/unschedulable")));
    assert!(!eligible(taint("ToBeDeletedByClusterAutoscaler")));
    let deleted = json!({"name": "n1", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    assert!(!eligible(json!({ "metadata": deleted })));
}

/// `--bind-address` goes before the Node object, in its own family.
#[test]
fn a_primary_address_that_is_named_goes_first() {
    let options = |primary: Option<&str>| NodeOptions {
        name: "n1".into(),
        primary_address: primary.map(|text| text.parse().unwrap()),
        detect_local: DetectLocal::ClusterCidr(Vec::new()),
        node_port_addresses: NodePortAddresses::PRIMARY,
        masquerade_all: false,
        service_cidrs: Vec::new(),
    };
    let addresses = [
        json!({"type": "InternalIP", "address": "192.168.0.11"}),
        json!({"type": "InternalIP", "address": "fd00:192:168::11"}),
    ];
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": addresses}});
    let node: wire::Node = serde_json::from_value(node).unwrap();
    let chosen = |primary| {
        let facts = facts(&options(primary), Some(&node), &ips(&INTERFACES));
        facts.unwrap().node_port_addresses
    };
    assert_eq!(chosen(None), ips(&["192.168.0.11", "fd00:192:168::11"]));
    let other = ips(&["203.0.113.1", "fd00:192:168::11"]);
    assert_eq!(chosen(Some("203.0.113.1")), other);
}
