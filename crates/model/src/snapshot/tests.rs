//! Who owns a frontend, and what a change touches.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::*;
use crate::{Endpoint, LocalPods, Packet, Protocol, Verdict};

fn port(name: &str, created: i64, ip: &str) -> ServicePort {
    let key = PortKey::new("shop", name, "http", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::new(80).unwrap());
    port.created = created;
    port.cluster_ips = vec![ip.parse().unwrap()];
    port.endpoints = Arc::new([Endpoint::ready("10.1.0.1:8080".parse().unwrap())]);
    port
}

fn node() -> NodeFacts {
    NodeFacts {
        local_pods: LocalPods::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]),
        service_cidrs: vec!["172.30.0.0/16".parse().unwrap()],
        ..NodeFacts::default()
    }
}

fn packet(source: &str, destination: &str) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: format!("{source}:40000").parse().unwrap(),
        destination: destination.parse().unwrap(),
        interface: Some("eth0".into()),
    }
}

#[test]
fn the_oldest_service_owns_a_shared_address() {
    let mut snapshot = Snapshot::new(node());
    snapshot.set(ServicePort {
        external_ips: vec!["192.168.99.11".parse().unwrap()],
        ..port("young", 9, "172.30.0.2")
    });
    snapshot.set(ServicePort {
        external_ips: vec!["192.168.99.11".parse().unwrap()],
        ..port("old", 3, "172.30.0.3")
    });
    let young = PortKey::new("shop", "young", "http", Protocol::Tcp);
    let old = PortKey::new("shop", "old", "http", Protocol::Tcp);
    assert_eq!(snapshot.port(&young).unwrap().lost.len(), 1);
    assert_eq!(snapshot.problems(snapshot.port(&young).unwrap()).len(), 1);
    assert!(snapshot.port(&old).unwrap().lost.is_empty());
    let before = snapshot.clone();
    snapshot.remove(&old);
    assert!(snapshot.port(&young).unwrap().lost.is_empty());
    assert_eq!(snapshot.touched(&before), vec![old, young]);
}

/// A Service that was deleted and made again under its name is the younger one.
#[test]
fn who_is_made_again_loses_a_shared_address() {
    let mut snapshot = Snapshot::new(node());
    let shared = |name, created| port(name, created, "172.30.0.9");
    snapshot.set(shared("a", 3));
    snapshot.set(shared("b", 6));
    let owner = |snapshot: &Snapshot| {
        let (frontend, _) = shared("a", 0).wanted()[0];
        snapshot.owner(&frontend).unwrap().key.clone()
    };
    assert_eq!(owner(&snapshot), shared("a", 0).key);
    snapshot.set(shared("a", 9));
    assert_eq!(owner(&snapshot), shared("b", 0).key);
}

#[test]
fn a_change_touches_only_itself() {
    let mut snapshot = Snapshot::new(node());
    for index in 0..1000 {
        snapshot.set(port(
            &format!("s{index:04}"),
            0,
            &format!("172.30.{}.{}", index / 250, index % 250),
        ));
    }
    let before = snapshot.clone();
    snapshot.set(port("s0500", 0, "172.30.2.0"));
    assert!(snapshot.touched(&before).is_empty());
    snapshot.set(ServicePort {
        endpoints: Arc::new([]),
        ..port("s0500", 0, "172.30.2.0")
    });
    assert_eq!(
        snapshot.touched(&before),
        vec![PortKey::new("shop", "s0500", "http", Protocol::Tcp)]
    );
}

#[test]
fn order_of_events_does_not_matter() {
    let ports = [
        port("a", 1, "172.30.0.9"),
        port("b", 1, "172.30.0.9"),
        port("c", 0, "172.30.0.9"),
    ];
    let of = |order: [usize; 3]| {
        let mut snapshot = Snapshot::new(node());
        order.iter().for_each(|&i| snapshot.set(ports[i].clone()));
        snapshot
    };
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert!(of(order) == of([0, 1, 2]), "{order:?}");
    }
}

#[test]
fn the_oracle_knows_the_four_ends() {
    let mut snapshot = Snapshot::new(node());
    snapshot.set(port("web", 0, "172.30.0.1"));
    snapshot.set(ServicePort {
        endpoints: Arc::new([]),
        ..port("empty", 0, "172.30.0.2")
    });
    let at = |source, destination| snapshot.route(&packet(source, destination));
    let endpoint: SocketAddr = "10.1.0.1:8080".parse().unwrap();
    assert_eq!(
        at("10.2.0.9", "172.30.0.1:80"),
        Verdict::Deliver([(endpoint, false)].into())
    );
    assert_eq!(
        at("10.1.0.1", "172.30.0.1:80"),
        Verdict::Deliver([(endpoint, true)].into()),
        "hairpin"
    );
    assert_eq!(
        at("203.0.113.2", "172.30.0.1:80"),
        Verdict::Deliver([(endpoint, true)].into()),
        "outside"
    );
    assert_eq!(
        at("10.2.0.9", "172.30.0.2:80"),
        Verdict::Reject,
        "no endpoints"
    );
    assert_eq!(
        at("10.2.0.9", "172.30.0.1:81"),
        Verdict::Reject,
        "no such port"
    );
    assert_eq!(
        at("10.2.0.9", "172.30.9.9:80"),
        Verdict::Drop,
        "no such Service"
    );
    assert_eq!(at("10.2.0.9", "10.1.0.1:8080"), Verdict::Pass, "not ours");
}

#[test]
fn a_change_of_the_node_touches_every_port() {
    let mut snapshot = Snapshot::new(node());
    snapshot.set(port("a", 0, "172.30.0.1"));
    snapshot.set(port("b", 0, "172.30.0.2"));
    let before = snapshot.clone();
    snapshot.set_node(NodeFacts {
        masquerade_all: true,
        ..node()
    });
    let all: Vec<PortKey> = snapshot.ports().map(|port| port.key.clone()).collect();
    assert_eq!(snapshot.touched(&before), all);
    // Also those of which only one of the two knows.
    snapshot.remove(&all[0]);
    snapshot.set(port("c", 0, "172.30.0.3"));
    let both = [&all[..], &[port("c", 0, "172.30.0.3").key]].concat();
    assert_eq!(snapshot.touched(&before), both);
}

#[test]
fn ports_are_counted() {
    let mut snapshot = Snapshot::new(node());
    assert_eq!((snapshot.is_empty(), snapshot.len()), (true, 0));
    snapshot.set(port("a", 0, "172.30.0.1"));
    snapshot.set(port("b", 0, "172.30.0.2"));
    assert!(!snapshot.is_empty() && snapshot.len() == 2);
}

#[test]
fn snapshots_differ_by_their_node_and_by_their_ports() {
    let mut snapshot = Snapshot::new(node());
    snapshot.set(port("a", 0, "172.30.0.1"));
    let (mut other_node, mut other_port) = (snapshot.clone(), snapshot.clone());
    assert_eq!(snapshot, snapshot.clone());
    other_node.set_node(NodeFacts {
        masquerade_all: true,
        ..node()
    });
    other_port.set(port("a", 0, "172.30.0.9"));
    assert_ne!(snapshot, other_node);
    assert_ne!(snapshot, other_port);
}

/// Data planes skip what two Snapshots share, so what stays as it is must stay the very same.
#[test]
fn what_is_set_again_is_shared() {
    let mut snapshot = Snapshot::new(node());
    snapshot.set(port("a", 0, "172.30.0.1"));
    let before = snapshot.clone();
    snapshot.set(port("a", 0, "172.30.0.1"));
    snapshot.set_node(node());
    let key = PortKey::new("shop", "a", "http", Protocol::Tcp);
    assert!(Arc::ptr_eq(
        snapshot.port(&key).unwrap(),
        before.port(&key).unwrap()
    ));
    assert!(Arc::ptr_eq(&snapshot.node, &before.node));
}

#[test]
fn what_a_port_says_it_has_lost_does_not_count() {
    let mut snapshot = Snapshot::new(node());
    let mut liar = port("a", 0, "172.30.0.1");
    let all = port("x", 0, "172.30.0.9").wanted();
    liar.lost = all.into_iter().map(|(frontend, _)| frontend).collect();
    snapshot.set(liar);
    let mut honest = Snapshot::new(node());
    honest.set(port("a", 0, "172.30.0.1"));
    assert_eq!(snapshot, honest);
}

#[test]
fn nothing_is_remembered_of_a_port_that_is_gone() {
    let mut snapshot = Snapshot::new(node());
    let shared = |name, created, ip| ServicePort {
        external_ips: vec!["198.51.100.7".parse().unwrap()],
        ..port(name, created, ip)
    };
    snapshot.set(shared("a", 1, "172.30.0.1"));
    snapshot.set(shared("b", 2, "172.30.0.2"));
    snapshot.set(port("b", 2, "172.30.0.3"));
    let all: Vec<PortKey> = snapshot.ports().map(|port| port.key.clone()).collect();
    all.iter().for_each(|key| snapshot.remove(key));
    assert!(snapshot.is_empty() && snapshot.claims.is_empty());
}
