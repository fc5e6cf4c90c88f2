//! Endpoints come and go, in virtual time.

use std::num::NonZeroU16;

use super::*;
use crate::{NodeFacts, Protocol};

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, last], 8080))
}

/// A port with a slow start of 10 s: a level for each second.
fn port(lasts: &[u8]) -> ServicePort {
    let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
    ServicePort {
        slow_start: NonZeroU16::new(10),
        endpoints: lasts
            .iter()
            .map(|last| Endpoint::ready(at(*last)))
            .collect(),
        ..ServicePort::new(key, NonZeroU16::MIN)
    }
}

fn snapshot(port: ServicePort) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(port);
    snapshot
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One that has seen these ports, each at its second.
fn after(ports: &[(u64, ServicePort)]) -> SlowStart {
    let mut slow = SlowStart::default();
    for (second, port) in ports {
        slow.on_snapshot(seconds(*second), snapshot(port.clone()));
    }
    slow
}

/// The weights in the order of the addresses.
fn weights(slow: &SlowStart) -> Vec<u16> {
    let ports = slow.snapshot().ports();
    ports
        .flat_map(|p| p.endpoints.iter().map(|e| e.weight))
        .collect()
}

#[test]
fn a_new_endpoint_rises_by_levels_to_its_full_share() {
    let mut slow = after(&[(0, port(&[1, 2])), (100, port(&[1, 2, 3]))]);
    let mut seen = vec![weights(&slow)[2]];
    let mut times = Vec::new();
    while let Some(due) = slow.due() {
        assert!(
            !slow.step(due - Duration::from_millis(1)),
            "nothing is due yet"
        );
        assert!(slow.step(due));
        times.push(due.as_secs());
        seen.push(weights(&slow)[2]);
    }
    assert_eq!(times, (101..=110).collect::<Vec<u64>>());
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1]);
    assert_eq!(
        slow.snapshot(),
        &snapshot(port(&[1, 2, 3])),
        "nothing is left of it"
    );
    assert!(slow.rising.is_empty());
}

#[test]
fn the_others_have_their_full_share_meanwhile() {
    let slow = after(&[(0, port(&[1, 2])), (100, port(&[1, 2, 3]))]);
    assert_eq!(weights(&slow), [10, 10, 1]);
}

#[test]
fn weights_of_the_slice_count_and_0_stays_0() {
    let mut weighed = port(&[1, 2, 3]);
    let mut endpoints = weighed.endpoints.to_vec();
    endpoints[0].weight = 100;
    endpoints[1].weight = 0;
    endpoints[2].weight = 7;
    weighed.endpoints = endpoints.into();
    let mut slow = after(&[(0, port(&[1])), (100, weighed)]);
    assert_eq!(weights(&slow), [1000, 0, 7]);
    assert!(slow.step(seconds(104)));
    assert_eq!(weights(&slow), [1000, 0, 35]);
}

#[test]
fn who_stood_before_us_or_comes_where_nobody_was_does_not_rise() {
    assert_eq!(weights(&after(&[(0, port(&[1, 2]))])), [1, 1]);
    let slow = after(&[(0, port(&[])), (1, port(&[1, 2]))]);
    assert_eq!((weights(&slow), slow.due()), (vec![1, 1], None));
    let mut other = port(&[8, 9]);
    other.key = PortKey::new("shop", "other", "http", Protocol::Tcp);
    let mut both = snapshot(port(&[1]));
    both.set(other);
    let mut slow = after(&[(0, port(&[1]))]);
    slow.on_snapshot(seconds(1), both);
    assert_eq!(slow.due(), None, "a new Service");
}

#[test]
fn without_the_annotation_nobody_rises() {
    let plain = |lasts: &[u8]| ServicePort {
        slow_start: None,
        ..port(lasts)
    };
    let mut slow = after(&[(0, plain(&[1])), (1, plain(&[1, 2]))]);
    assert_eq!((weights(&slow), slow.due()), (vec![1, 1], None));
    assert!(!slow.step(seconds(99)), "nothing is ever due");
    let slow = after(&[(0, port(&[1])), (1, port(&[1, 2])), (2, plain(&[1, 2]))]);
    assert_eq!(
        (weights(&slow), slow.due()),
        (vec![1, 1], None),
        "it was taken away"
    );
    let again = [
        (0, port(&[1])),
        (1, port(&[1, 2])),
        (2, plain(&[1, 2])),
        (3, port(&[1, 2])),
    ];
    let slow = after(&again);
    assert_eq!(
        (weights(&slow), slow.due()),
        (vec![1, 1], None),
        "it is back, and nobody is new"
    );
}

#[test]
fn who_becomes_ready_or_is_readmitted_rises() {
    let changed = |change: fn(&mut Endpoint)| {
        let mut port = port(&[1, 2]);
        let mut endpoints = port.endpoints.to_vec();
        change(&mut endpoints[1]);
        port.endpoints = endpoints.into();
        port
    };
    for before in [changed(|e| e.ready = false), changed(|e| e.ejected = true)] {
        let mut slow = after(&[(0, before.clone()), (100, port(&[1, 2]))]);
        assert_eq!(weights(&slow), [10, 1]);
        assert!(slow.step(seconds(105)));
        // Whoever leaves rotation and comes again starts from the beginning.
        slow.on_snapshot(seconds(106), snapshot(before));
        assert_eq!((weights(&slow), slow.due()), (vec![1, 1], None));
        slow.on_snapshot(seconds(107), snapshot(port(&[1, 2])));
        assert_eq!(weights(&slow), [10, 1]);
    }
}

#[test]
fn other_changes_do_not_disturb_who_is_rising() {
    let mut slow = after(&[(0, port(&[1])), (100, port(&[1, 2]))]);
    slow.on_snapshot(Duration::from_millis(104_500), snapshot(port(&[1, 2, 3])));
    assert_eq!(weights(&slow), [10, 5, 1]);
    assert_eq!(
        slow.due(),
        Some(seconds(105)),
        "whoever is next comes first"
    );
    slow.on_snapshot(seconds(110), snapshot(port(&[2, 3])));
    assert_eq!(
        weights(&slow),
        [10, 6],
        "the second has risen, the first is gone"
    );
    slow.on_snapshot(seconds(111), Snapshot::new(NodeFacts::default()));
    assert_eq!(slow.due(), None, "the Service is gone");
    assert!(slow.rising.is_empty());
}

#[test]
fn who_leaves_while_rising_is_forgotten() {
    let slow = after(&[(0, port(&[1])), (100, port(&[1, 2])), (101, port(&[1]))]);
    assert_eq!((weights(&slow), slow.due()), (vec![1], None));
    assert!(slow.rising.is_empty());
}

#[test]
fn many_who_rise_share_their_changes() {
    let mut slow = after(&[(0, port(&[1]))]);
    for last in 2..=100 {
        let now = seconds(1) + Duration::from_millis(u64::from(last));
        let lasts: Vec<u8> = (1..=last).collect();
        slow.on_snapshot(now, snapshot(port(&lasts)));
    }
    let mut changes = 0;
    while let Some(due) = slow.due() {
        slow.step(due);
        changes += 1;
    }
    assert!(changes <= 41, "{changes} changes in 10 s");
    assert_eq!(weights(&slow), [1; 100]);
}

#[test]
fn a_level_has_a_length_also_in_the_shortest_slow_start() {
    let short = |lasts: &[u8]| ServicePort {
        slow_start: NonZeroU16::new(*SECONDS.start()),
        ..port(lasts)
    };
    let mut slow = after(&[(0, short(&[1])), (100, short(&[1, 2]))]);
    let mut seen = Vec::new();
    while let Some(due) = slow.due() {
        slow.step(due);
        seen.push((due.as_millis(), weights(&slow)[1]));
    }
    assert_eq!(
        seen,
        [(100_250, 3), (100_500, 6), (100_750, 8), (101_000, 1)]
    );
}
