//! Which flows are stale, as tables; each name says the rule or what went wrong elsewhere.

use std::num::NonZeroU16;

use super::*;
use crate::{Family, NodeFacts};

fn node() -> NodeFacts {
    NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    }
}

fn port(name: &str, number: u16, endpoints: &[&str]) -> ServicePort {
    let key = PortKey::new("shop", name, "", Protocol::Udp);
    let ready = |text: &&str| Endpoint::ready(text.parse().unwrap());
    ServicePort {
        endpoints: endpoints.iter().map(ready).collect(),
        ..ServicePort::new(key, NonZeroU16::new(number).unwrap())
    }
}

fn dns(endpoints: &[&str]) -> ServicePort {
    ServicePort {
        cluster_ips: vec![
            "172.30.0.10".parse().unwrap(),
            "fd00:172:30::10".parse().unwrap(),
        ],
        external_ips: vec!["198.51.100.7".parse().unwrap()],
        load_balancer_ips: vec!["198.51.100.8".parse().unwrap()],
        node_port: NonZeroU16::new(30053),
        families: Family::ALL.into(),
        ..port("dns", 53, endpoints)
    }
}

fn snapshot(ports: &[ServicePort]) -> Snapshot {
    let mut snapshot = Snapshot::new(node());
    ports.iter().for_each(|port| snapshot.set(port.clone()));
    snapshot
}

fn flow(destination: &str, replier: &str) -> Flow {
    Flow {
        protocol: Protocol::Udp,
        destination: destination.parse().unwrap(),
        replier: replier.parse().unwrap(),
    }
}

fn check(sweep: &Sweep, table: &[(&str, &str, bool)]) {
    for (destination, replier, stale) in table {
        let flow = flow(destination, replier);
        assert_eq!(sweep.is_stale(&flow), *stale, "{flow:?}");
    }
}

const ONE: &str = "10.1.0.1:5353";
const TWO: &str = "10.1.0.2:5353";

#[test]
fn a_flow_to_an_endpoint_that_is_gone_is_stale_at_every_frontend() {
    let sweep = Sweep::new(None, &snapshot(&[dns(&[ONE])]));
    for at in [
        "172.30.0.10:53",
        "198.51.100.7:53",
        "198.51.100.8:53",
        "192.168.0.11:30053",
    ] {
        check(
            &sweep,
            &[
                (at, ONE, false),
                (at, TWO, true),
                (at, "10.1.0.1:5354", true),
            ],
        );
    }
    let not_ours = [
        "192.168.0.12:30053",
        "172.30.0.10:54",
        "172.30.0.11:53",
        "192.168.0.11:53",
    ];
    not_ours
        .iter()
        .for_each(|at| check(&sweep, &[(at, TWO, false)]));
}

/// The relay itself sends such a flow on to an endpoint that serves. In other modes nobody waits there.
#[test]
fn a_flow_to_the_relay_is_stale_when_nobody_serves() {
    let doors = Doors::default();
    let door = "192.168.0.11:10271";
    for (endpoints, stale) in [(&[ONE][..], false), (&[], true)] {
        let plain = Sweep::new(None, &snapshot(&[dns(endpoints)]));
        check(&plain, &[("172.30.0.10:53", door, true)]);
        let relayed = plain.with_relay(&doors);
        let table = [
            ("172.30.0.10:53", door, stale),
            ("192.168.0.11:30053", door, stale),
            ("172.30.0.10:53", "192.168.0.11:10273", true),
            ("172.30.0.10:53", TWO, true),
            ("172.30.0.11:53", door, false),
        ];
        check(&relayed, &table);
    }
}

#[test]
fn only_what_may_not_serve_is_gone() {
    for (ready, serving, terminating, stale) in [
        (true, true, false, false),
        (true, false, false, false),
        (false, true, true, false),
        (false, true, false, false),
        (false, false, true, true),
        (false, false, false, true),
    ] {
        let mut port = dns(&[ONE, TWO]);
        let mut endpoints = port.endpoints.to_vec();
        endpoints[0] = Endpoint {
            ready,
            serving,
            terminating,
            ..endpoints[0].clone()
        };
        port.endpoints = endpoints.into();
        let sweep = Sweep::new(None, &snapshot(&[port]));
        check(
            &sweep,
            &[
                ("172.30.0.10:53", ONE, stale),
                ("172.30.0.10:53", TWO, false),
            ],
        );
    }
}

/// kubernetes pull requests 130484 and 130542: everything at a shared address was deleted.
#[test]
fn services_that_share_an_address_have_their_own_flows() {
    let shared = |name, number, endpoint| ServicePort {
        external_ips: vec!["198.51.100.7".parse().unwrap()],
        ..port(name, number, &[endpoint])
    };
    let before = snapshot(&[shared("a", 53, ONE), shared("b", 54, TWO)]);
    let now = snapshot(&[shared("a", 53, "10.1.0.3:5353"), shared("b", 54, TWO)]);
    let table = [
        ("198.51.100.7:53", ONE, true),
        ("198.51.100.7:54", TWO, false),
    ];
    check(&Sweep::new(None, &now), &table);
    check(&Sweep::new(Some(&before), &now), &table);
}

/// kubernetes pull request 139629: a Service without endpoints was never looked at.
#[test]
fn scaled_to_zero_leaves_no_flow() {
    let sweep = Sweep::new(Some(&snapshot(&[dns(&[ONE])])), &snapshot(&[dns(&[])]));
    assert_eq!(sweep.protocols(), [Protocol::Udp]);
    check(
        &sweep,
        &[
            ("172.30.0.10:53", ONE, true),
            ("192.168.0.11:30053", ONE, true),
        ],
    );
}

#[test]
fn a_flow_from_before_the_first_endpoint_is_stale_once_there_is_one() {
    let empty = Sweep::new(None, &snapshot(&[dns(&[])]));
    let v4 = Sweep::new(None, &snapshot(&[dns(&[ONE])]));
    for (at, with_v4) in [
        ("172.30.0.10:53", true),
        ("192.168.0.11:30053", true),
        ("[fd00:172:30::10]:53", false),
    ] {
        check(&empty, &[(at, at, false)]);
        check(&v4, &[(at, at, with_v4)]);
    }
}

#[test]
fn a_service_that_is_gone_leaves_no_flow_and_strangers_keep_theirs() {
    let sweep = Sweep::new(Some(&snapshot(&[dns(&[ONE])])), &snapshot(&[]));
    assert_eq!(sweep.protocols(), [Protocol::Udp]);
    check(
        &sweep,
        &[
            ("172.30.0.10:53", ONE, true),
            ("192.168.0.11:30053", ONE, true),
            ("192.168.0.11:30053", "192.168.0.11:30053", false),
            ("203.0.113.2:53", ONE, false),
        ],
    );
}

/// A Service without a NodePort has 0 in the API: it must not claim flows to port 0.
#[test]
fn node_port_zero_is_none() {
    let without = ServicePort {
        node_port: None,
        ..dns(&[ONE])
    };
    let sweep = Sweep::new(None, &snapshot(&[without]));
    for at in ["192.168.0.11:0", "172.30.0.10:0", "192.168.0.11:30053"] {
        check(&sweep, &[(at, TWO, false), (at, at, false)]);
    }
}

#[test]
fn only_flows_of_touched_ports_are_looked_at() {
    let web = |endpoint| ServicePort {
        cluster_ips: vec!["172.30.0.20".parse().unwrap()],
        ..port("web", 53, &[endpoint])
    };
    let before = snapshot(&[dns(&[ONE]), web(ONE)]);
    let now = snapshot(&[dns(&[ONE]), web(TWO)]);
    let sweep = Sweep::new(Some(&before), &now);
    check(
        &sweep,
        &[
            ("172.30.0.20:53", ONE, true),
            ("172.30.0.10:53", TWO, false),
        ],
    );
    assert!(Sweep::new(Some(&now), &now).protocols().is_empty());
}

#[test]
fn tcp_is_left_alone_and_sctp_is_not() {
    for (protocol, stale) in [(Protocol::Tcp, false), (Protocol::Sctp, true)] {
        let mut port = dns(&[ONE]);
        port.key.protocol = protocol;
        let sweep = Sweep::new(None, &snapshot(&[port]));
        assert_eq!(!sweep.protocols().is_empty(), stale);
        let flow = Flow {
            protocol,
            ..flow("172.30.0.10:53", TWO)
        };
        assert_eq!(sweep.is_stale(&flow), stale, "{protocol}");
    }
}

/// A mixed cluster is looked through for each connectionless protocol that some port has.
#[test]
fn one_port_of_a_protocol_is_enough() {
    let tcp = ServicePort {
        key: PortKey::new("shop", "web", "", Protocol::Tcp),
        ..port("web", 80, &[ONE])
    };
    let now = snapshot(&[tcp.clone(), dns(&[ONE])]);
    assert_eq!(Sweep::new(None, &now).protocols(), [Protocol::Udp]);
    let none = snapshot(&[tcp]);
    assert!(Sweep::new(None, &none).protocols().is_empty());
}
