//! What data planes may rely on beyond what a packet shows: order, and each thing once.

use std::num::NonZeroU16;

use super::*;
use crate::name::{PortKey, Protocol};

fn web() -> ServicePort {
    let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
    ServicePort {
        cluster_ips: vec!["172.30.0.1".parse().unwrap()],
        load_balancer_ips: vec!["198.51.100.1".parse().unwrap()],
        ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
    }
}

#[test]
fn endpoints_are_in_order_and_each_once() {
    let at = |text: &str| Endpoint::ready(text.parse().unwrap());
    let port = ServicePort {
        endpoints: [
            "10.1.0.12:80",
            "10.1.0.10:80",
            "10.1.0.11:80",
            "10.1.0.10:80",
        ]
        .map(at)
        .into(),
        ..web()
    };
    for treatment in decide(&NodeFacts::default(), &port) {
        let Action::Balance { endpoints, .. } = treatment.pod else {
            panic!("{treatment:?}");
        };
        let found: Vec<String> = endpoints.addresses.iter().map(|a| a.to_string()).collect();
        assert_eq!(found, ["10.1.0.10:80", "10.1.0.11:80", "10.1.0.12:80"]);
    }
}

#[test]
fn sources_are_in_order_and_each_once() {
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    let port = ServicePort {
        source_ranges: vec![
            net("203.0.113.0/24"),
            net("192.168.0.0/24"),
            net("203.0.113.0/24"),
        ],
        ..web()
    };
    let node = NodeFacts {
        addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    };
    let sources = decide(&node, &port).into_iter().find_map(|t| t.sources);
    let wanted = ["192.168.0.0/24", "198.51.100.1/32", "203.0.113.0/24"].map(net);
    assert_eq!(sources, Some(wanted.to_vec()));
}

/// What is sent by requests goes by readiness alone: no policy, family or hint narrows it down.
#[test]
fn requests_go_to_whoever_is_ready_and_else_to_whoever_still_serves() {
    let at = |text: &str| Endpoint::ready(text.parse().unwrap());
    let leaving = |text: &str| Endpoint {
        ready: false,
        terminating: true,
        ..at(text)
    };
    let not_serving = |text: &str| Endpoint {
        serving: false,
        ..leaving(text)
    };
    let of = |endpoints: Vec<Endpoint>| -> Vec<String> {
        let port = ServicePort {
            internal_policy: TrafficPolicy::Local,
            external_policy: TrafficPolicy::Local,
            endpoints: endpoints.into(),
            ..web()
        };
        let found = upstreams(&port);
        found.addresses.iter().map(|a| a.to_string()).collect()
    };
    let (v4, v6) = ("10.1.0.10:80", "[fd00:10:1::2]:80");
    assert_eq!(of(vec![at(v4), leaving("10.1.0.11:80"), at(v6)]), [v4, v6]);
    assert_eq!(of(vec![leaving(v4), not_serving("10.1.0.11:80")]), [v4]);
    let ejected = |text: &str| Endpoint {
        ejected: true,
        ..at(text)
    };
    assert_eq!(of(vec![ejected("10.1.0.11:80"), at(v4)]), [v4]);
    assert_eq!(of(vec![ejected(v4)]), [v4], "rather that one than nobody");
    assert!(of(vec![]).is_empty());
}
