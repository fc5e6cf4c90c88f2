//! Which connections are reset, as tables, and when it is looked for them.

use std::num::NonZeroU16;

use super::*;
use crate::{Endpoint, NodeFacts, ServicePort};

const ONE: &str = "10.1.0.1:8080";
const TWO: &str = "10.1.0.2:8080";
const VIP: &str = "172.30.0.1:80";
const NODE_PORT: &str = "192.168.0.11:30080";

fn endpoint(text: &str) -> Endpoint {
    Endpoint::ready(text.parse().unwrap())
}

fn web(name: &str, endpoints: Vec<Endpoint>) -> ServicePort {
    let key = PortKey::new("shop", name, "", Protocol::Tcp);
    ServicePort {
        cluster_ips: vec!["172.30.0.1".parse().unwrap()],
        node_port: NonZeroU16::new(30080),
        families: [crate::Family::V4].into(),
        endpoints: endpoints.into(),
        ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
    }
}

fn snapshot(ports: &[ServicePort]) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    });
    ports.iter().for_each(|port| snapshot.set(port.clone()));
    snapshot
}

fn with(endpoints: &[&str]) -> Snapshot {
    snapshot(&[web("web", endpoints.iter().map(|e| endpoint(e)).collect())])
}

fn connection(destination: &str, replier: &str, stage: Stage) -> Connection {
    Connection {
        client: "203.0.113.2:4000".parse().unwrap(),
        flow: Flow {
            protocol: Protocol::Tcp,
            destination: destination.parse().unwrap(),
            replier: replier.parse().unwrap(),
        },
        stage,
    }
}

fn fate(gone: &Gone, destination: &str, replier: &str) -> Fate {
    gone.fate(&connection(destination, replier, Stage::Open))
}

/// What is judged when these stand one after the other, the last ones before and after the grace.
fn gone(before: Snapshot, then: Snapshot, now: Snapshot) -> Gone {
    let before = Some(before);
    Gone { before, then, now }
}

const fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// R-RESET-1, R-RESET-3.
#[test]
fn only_connections_to_the_endpoint_that_is_gone_are_reset() {
    let gone = gone(with(&[ONE, TWO]), with(&[TWO]), with(&[TWO]));
    for (destination, replier, wanted) in [
        (VIP, ONE, Fate::IsReset),
        (NODE_PORT, ONE, Fate::IsReset),
        (VIP, TWO, Fate::Stays),
        (NODE_PORT, TWO, Fate::Stays),
        // Not at a Service: another port, another address, no translation.
        ("172.30.0.1:81", ONE, Fate::Stays),
        ("192.168.0.11:22", ONE, Fate::Stays),
        (VIP, VIP, Fate::Stays),
        (ONE, ONE, Fate::Stays),
    ] {
        assert_eq!(
            fate(&gone, destination, replier),
            wanted,
            "{destination} {replier}"
        );
    }
}

/// R-RESET-2, R-RESET-3.
#[test]
fn the_stage_decides_how() {
    let gone = gone(with(&[ONE]), with(&[]), with(&[]));
    for (stage, wanted) in [
        (Stage::Opening, Fate::IsForgotten),
        (Stage::Open, Fate::IsReset),
        (Stage::Closing, Fate::Stays),
    ] {
        assert_eq!(gone.fate(&connection(VIP, ONE, stage)), wanted);
    }
}

/// R-RESET-3.
#[test]
fn an_endpoint_that_is_listed_in_any_condition_is_not_gone() {
    let out = Endpoint {
        ready: false,
        serving: false,
        terminating: true,
        ..endpoint(ONE)
    };
    let listed = || snapshot(&[web("web", vec![out.clone()])]);
    let gone = gone(with(&[ONE]), listed(), listed());
    assert_eq!(fate(&gone, VIP, ONE), Fate::Stays);
}

/// The relay of userspace mode is no endpoint, and sees by itself what becomes of one.
#[test]
fn a_connection_to_the_relay_stays() {
    let gone = gone(with(&[ONE]), with(&[TWO]), with(&[TWO]));
    assert_eq!(fate(&gone, VIP, "192.168.0.11:10271"), Fate::Stays);
    assert_eq!(fate(&gone, VIP, "192.168.0.11:10273"), Fate::IsReset);
}

#[test]
fn an_endpoint_that_came_back_within_the_grace_is_not_gone() {
    for (then, now) in [
        (with(&[]), with(&[ONE])),
        (with(&[ONE]), with(&[])),
        (snapshot(&[]), with(&[ONE])),
    ] {
        let gone = gone(with(&[ONE]), then, now);
        assert_eq!(fate(&gone, VIP, ONE), Fate::Stays);
    }
}

#[test]
fn a_service_that_is_gone_takes_its_connections_along() {
    let gone = gone(with(&[ONE]), snapshot(&[]), snapshot(&[]));
    assert_eq!(fate(&gone, VIP, ONE), Fate::IsReset);
    assert_eq!(fate(&gone, NODE_PORT, ONE), Fate::IsReset);
}

#[test]
fn an_address_that_a_service_gave_away_does_not_take_its_connections_along() {
    let moved = ServicePort {
        cluster_ips: Vec::new(),
        ..web("web", vec![endpoint(ONE)])
    };
    let heir = web("web2", vec![endpoint(TWO)]);
    let now = || snapshot(&[moved.clone(), heir.clone()]);
    let gone = gone(with(&[ONE]), now(), now());
    assert_eq!(fate(&gone, VIP, ONE), Fate::Stays);
    assert_eq!(fate(&gone, VIP, "10.1.0.9:8080"), Fate::IsReset);
}

/// Whoever has answered at the address, at whatever moment, may be whose connection it is.
#[test]
fn an_endpoint_that_another_service_lists_is_not_gone() {
    let heir = || snapshot(&[web("web2", vec![endpoint(ONE)])]);
    for (then, now) in [(heir(), with(&[])), (with(&[]), heir())] {
        let gone = gone(with(&[ONE]), then, now);
        assert_eq!(fate(&gone, VIP, ONE), Fate::Stays);
    }
}

#[test]
fn after_a_start_everything_is_looked_at() {
    let mut resetter = Resetter::default();
    resetter.on_stands(at(0), &with(&[TWO]));
    assert!(resetter.begin(at(4_999)).is_none());
    let gone = resetter.begin(at(5_000)).unwrap();
    assert_eq!(fate(&gone, VIP, ONE), Fate::IsReset);
    assert_eq!(fate(&gone, VIP, TWO), Fate::Stays);
}

/// A resetter that has looked at this at 5 s.
fn looked(snapshot: &Snapshot) -> Resetter {
    let mut resetter = Resetter::default();
    resetter.on_stands(at(0), snapshot);
    resetter.end(at(5_000), at(10), Look::Whole);
    resetter
}

#[test]
fn an_endpoint_that_comes_owes_no_look() {
    let mut resetter = looked(&with(&[ONE]));
    resetter.on_stands(at(6_000), &with(&[ONE, TWO]));
    assert_eq!(resetter.due(), None);
    let mut udp = web("dns", vec![endpoint(ONE)]);
    udp.key.protocol = Protocol::Udp;
    let mut resetter = looked(&snapshot(&[udp]));
    resetter.on_stands(at(6_000), &snapshot(&[]));
    assert_eq!(resetter.due(), None);
}

#[test]
fn only_tcp_is_looked_for_after_a_start() {
    let mut udp = web("dns", vec![endpoint(ONE)]);
    udp.key.protocol = Protocol::Udp;
    let tcp = web("web", vec![]);
    for (ports, wanted) in [
        (vec![], None),
        (vec![udp.clone()], None),
        (vec![udp, tcp], Some(GRACE)),
    ] {
        let mut resetter = Resetter::default();
        resetter.on_stands(at(0), &snapshot(&ports));
        assert_eq!(resetter.due(), wanted);
    }
}

#[test]
fn what_changes_within_a_grace_has_one_of_its_own() {
    let mut resetter = looked(&with(&[ONE, TWO]));
    resetter.on_stands(at(6_000), &with(&[TWO]));
    resetter.on_stands(at(8_000), &with(&[]));
    assert_eq!(resetter.due(), Some(at(11_000)));
    let gone = resetter.begin(at(11_000)).unwrap();
    assert_eq!(fate(&gone, VIP, ONE), Fate::IsReset);
    assert_eq!(fate(&gone, VIP, TWO), Fate::Stays);
    resetter.end(at(11_000), at(10), Look::Whole);
    assert_eq!(resetter.due(), Some(at(16_000)));
    let gone = resetter.begin(at(16_000)).unwrap();
    assert_eq!(fate(&gone, VIP, TWO), Fate::IsReset);
    resetter.end(at(16_000), at(10), Look::Whole);
    assert_eq!(resetter.due(), None);
}

#[test]
fn a_look_that_failed_or_left_something_is_done_again() {
    let mut resetter = looked(&with(&[ONE]));
    resetter.on_stands(at(6_000), &with(&[]));
    resetter.end(at(11_000), at(10), Look::Part);
    assert_eq!(resetter.due(), Some(at(12_000)));
    let mut now = at(12_000);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
        resetter.end(now, at(10), Look::Failed);
        assert_eq!(resetter.due(), Some(now + wait));
        now += wait;
    }
    let gone = resetter.begin(now).unwrap();
    assert_eq!(fate(&gone, VIP, ONE), Fate::IsReset);
    resetter.end(now, at(2_000), Look::Whole);
    assert_eq!(resetter.due(), None);
    resetter.on_stands(now, &with(&[TWO]));
    resetter.on_stands(now, &with(&[]));
    assert_eq!(resetter.due(), Some(now + at(20_000)), "rest after a look");
}

#[test]
fn a_look_that_goes_well_makes_the_waits_short_again() {
    for look in [Look::Part, Look::Whole] {
        let mut resetter = looked(&with(&[ONE]));
        resetter.on_stands(at(6_000), &with(&[]));
        for _ in 0..3 {
            resetter.end(at(11_000), at(0), Look::Failed);
        }
        resetter.end(at(20_000), at(2_000), look);
        resetter.on_stands(at(20_000), &with(&[TWO]));
        resetter.on_stands(at(20_000), &with(&[]));
        assert_eq!(resetter.due(), Some(at(40_000)), "rest after {look:?}");
        resetter.end(at(40_000), at(0), Look::Failed);
        assert_eq!(resetter.due(), Some(at(41_000)), "failure after {look:?}");
    }
}

#[test]
fn failures_without_end_wait_no_longer() {
    let mut resetter = looked(&with(&[ONE]));
    resetter.on_stands(at(6_000), &with(&[]));
    (0..100).for_each(|_| resetter.end(at(11_000), at(0), Look::Failed));
    assert_eq!(resetter.due(), Some(at(71_000)));
}

#[test]
fn a_connection_is_provoked_a_few_times() {
    let mut resetting = Resetting::default();
    resetting.add(at(0), Vec::new());
    assert_eq!(resetting.due(), None);
    resetting.add(at(1_000), vec!['a', 'b']);
    resetting.add(at(1_100), vec!['c']);
    assert_eq!(resetting.len(), 3);
    let mut seen = Vec::new();
    while let Some(now) = resetting.due() {
        for due in resetting.step(now) {
            seen.push((now.as_millis(), due.whom.len(), due.round));
        }
        assert!(now < at(20_000), "it never ends");
    }
    let (first, second) = ([1_000, 1_600, 2_500, 5_000], [1_100, 1_700, 2_600, 5_100]);
    let of = |times: [u128; 4], count| (0..4).map(move |round| (times[round], count, round));
    let mut wanted: Vec<_> = of(first, 2).chain(of(second, 1)).collect();
    wanted.sort();
    assert_eq!(seen, wanted);
    assert!(resetting.is_empty());
}
