//! What is served where, and with which counts.

use super::*;
use crate::{Endpoint, NodeFacts, PortKey, Protocol};

const V4: &str = "192.168.0.11";
const V6: &str = "fd00:192:168::11";

fn empty(addresses: &[&str]) -> Snapshot {
    Snapshot::new(NodeFacts {
        node_port_addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..NodeFacts::default()
    })
}

fn local(address: &str) -> Endpoint {
    Endpoint {
        local: true,
        ..Endpoint::ready(address.parse().unwrap())
    }
}

fn web(name: &str, port: &str, check: u16, endpoints: Vec<Endpoint>) -> ServicePort {
    ServicePort {
        families: Family::ALL.into(),
        health_check_node_port: NonZeroU16::new(check),
        endpoints: endpoints.into(),
        ..ServicePort::new(
            PortKey::new("shop", name, port, Protocol::Tcp),
            NonZeroU16::MIN,
        )
    }
}

fn told(checks: &NodeChecks) -> Vec<(String, String, usize)> {
    let (served, _) = checks.served();
    let line = |(at, served): (SocketAddr, Served)| {
        let service = served.service.to_string();
        (at.to_string(), service, served.local_endpoints)
    };
    served.into_iter().map(line).collect()
}

fn is(at: &str, service: &str, count: usize) -> (String, String, usize) {
    (at.into(), service.into(), count)
}

/// R-CHECK-1, R-CHECK-2.
#[test]
fn ready_endpoints_of_this_node_count_once_for_each_address() {
    let elsewhere = Endpoint::ready("10.2.0.1:8080".parse().unwrap());
    let out = Endpoint {
        ready: false,
        terminating: true,
        ..local("10.1.0.9:8080")
    };
    let http = vec![
        local("10.1.0.1:8080"),
        local("10.1.0.2:8080"),
        out,
        elsewhere,
        local("[fd00:10:1::1]:8080"),
    ];
    let https = vec![local("10.1.0.1:8443"), local("10.1.0.3:8443")];
    let mut snapshot = empty(&[V4, V6]);
    snapshot.set(web("a", "http", 31000, http));
    snapshot.set(web("a", "https", 31000, https));
    snapshot.set(web("b", "", 0, vec![local("10.1.0.1:8080")]));
    let mut checks = NodeChecks::default();
    checks.on_snapshot(&snapshot);
    let wanted = [
        is("192.168.0.11:31000", "shop/a", 3),
        is("[fd00:192:168::11]:31000", "shop/a", 1),
    ];
    assert_eq!(told(&checks), wanted);
    assert_eq!(checks.served().1, []);
}

#[test]
fn changes_are_followed() {
    let mut checks = NodeChecks::default();
    assert_eq!(told(&checks), []);
    let mut snapshot = empty(&[V4]);
    snapshot.set(web("a", "", 31000, Vec::new()));
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), [is("192.168.0.11:31000", "shop/a", 0)]);
    snapshot.set(web("a", "", 31000, vec![local("10.1.0.1:8080")]));
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), [is("192.168.0.11:31000", "shop/a", 1)]);
    let one_family = ServicePort {
        families: [Family::V6].into(),
        ..web("a", "", 31001, Vec::new())
    };
    snapshot.set(one_family);
    let addresses = [V4, V6].map(|ip| ip.parse().unwrap());
    snapshot.set_node(NodeFacts {
        node_port_addresses: addresses.into(),
        ..NodeFacts::default()
    });
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), [is("[fd00:192:168::11]:31001", "shop/a", 0)]);
    snapshot.remove(&PortKey::new("shop", "a", "", Protocol::Tcp));
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), []);
}

/// R-CHECK-3.
#[test]
fn the_older_service_has_the_port() {
    let mut snapshot = empty(&[V4]);
    let young = ServicePort {
        created: 2,
        ..web("a", "", 31000, Vec::new())
    };
    let old = ServicePort {
        created: 1,
        ..web("b", "", 31000, Vec::new())
    };
    snapshot.set(young);
    snapshot.set(old.clone());
    let mut checks = NodeChecks::default();
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), [is("192.168.0.11:31000", "shop/b", 0)]);
    let (_, problems) = checks.served();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].service, ServiceName::new("shop", "a"));
    assert!(
        problems[0]
            .message
            .contains("31000 belongs to the older Service shop/b")
    );
    snapshot.remove(&old.key);
    checks.on_snapshot(&snapshot);
    assert_eq!(told(&checks), [is("192.168.0.11:31000", "shop/a", 0)]);
}

#[test]
fn there_is_an_end_to_what_is_served() {
    let mut snapshot = empty(&[V4]);
    for port in 1..=SERVED_MAX as u16 + 1 {
        snapshot.set(web(&format!("s{port:05}"), "", port, Vec::new()));
    }
    let mut checks = NodeChecks::default();
    checks.on_snapshot(&snapshot);
    let (served, problems) = checks.served();
    assert_eq!((served.len(), problems.len()), (SERVED_MAX, 1));
    assert!(problems[0].message.contains("no room"));
}
