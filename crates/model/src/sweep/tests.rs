//! When sweeps are due.

use std::num::NonZeroU16;

use super::*;
use crate::{NodeFacts, PortKey, Protocol, ServicePort};

fn snapshot(protocol: Protocol, services: u8) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    for n in 0..services {
        let key = PortKey::new("shop", &format!("s{n}"), "", protocol);
        snapshot.set(ServicePort::new(key, NonZeroU16::MIN));
    }
    snapshot
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_change_of_tcp_owes_no_sweep() {
    let mut sweeper = Sweeper::default();
    sweeper.on_stands(&snapshot(Protocol::Tcp, 1));
    sweeper.on_stands(&snapshot(Protocol::Tcp, 2));
    assert_eq!(sweeper.due(), None);
    sweeper.on_stands(&snapshot(Protocol::Udp, 1));
    assert_eq!(sweeper.due(), Some(at(0)));
    sweeper.on_stands(&snapshot(Protocol::Tcp, 2));
    assert_eq!(sweeper.due(), None, "taken back before it was swept");
}

#[test]
fn a_change_of_udp_is_swept_once_and_then_there_is_rest() {
    let mut sweeper = Sweeper::default();
    let first = snapshot(Protocol::Udp, 1);
    sweeper.on_stands(&first);
    assert!(sweeper.begin(at(1)).is_some());
    sweeper.end(at(3), at(2), true);
    sweeper.on_stands(&first);
    assert_eq!(sweeper.due(), None, "nothing new");
    sweeper.on_stands(&snapshot(Protocol::Udp, 2));
    assert_eq!(sweeper.due(), Some(at(23)));
    assert!(sweeper.begin(at(22)).is_none());
    assert!(sweeper.begin(at(23)).is_some());
}

#[test]
fn what_is_taken_back_in_time_owes_nothing() {
    let mut sweeper = Sweeper::default();
    sweeper.on_stands(&snapshot(Protocol::Udp, 1));
    sweeper.end(at(1), at(0), true);
    sweeper.on_stands(&snapshot(Protocol::Udp, 2));
    assert!(sweeper.due().is_some());
    sweeper.on_stands(&snapshot(Protocol::Udp, 1));
    assert_eq!(sweeper.due(), None);
}

#[test]
fn what_failed_is_done_by_the_next_sweep() {
    let mut sweeper = Sweeper::default();
    sweeper.on_stands(&snapshot(Protocol::Udp, 1));
    for due in [1, 3, 7] {
        sweeper.end(sweeper.due().unwrap(), at(0), false);
        assert_eq!(sweeper.due(), Some(at(due)));
    }
    // Nothing of UDP changes now, but the sweep is still owed.
    sweeper.on_stands(&snapshot(Protocol::Udp, 1));
    assert_eq!(sweeper.due(), Some(at(7)));
    for _ in 0..40 {
        sweeper.end(at(100), at(0), false);
    }
    assert_eq!(sweeper.due(), Some(at(160)));
    // What succeeds makes good for all of them.
    sweeper.end(at(160), at(0), true);
    sweeper.on_stands(&snapshot(Protocol::Udp, 2));
    sweeper.end(at(200), at(0), false);
    assert_eq!(sweeper.due(), Some(at(201)));
}

/// Otherwise every client of the relay would lose its flow with every change.
#[test]
fn sweeps_of_userspace_mode_know_the_doors() {
    let node = NodeFacts {
        addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    };
    let mut stands = Snapshot::new(node);
    let key = PortKey::new("shop", "dns", "", Protocol::Udp);
    let mut port = ServicePort::new(key, NonZeroU16::MIN);
    port.cluster_ips = vec!["172.30.0.10".parse().unwrap()];
    port.endpoints = [crate::Endpoint::ready("10.1.0.10:53".parse().unwrap())].into();
    stands.set(port);
    let flow = crate::Flow {
        protocol: Protocol::Udp,
        destination: "172.30.0.10:1".parse().unwrap(),
        replier: "192.168.0.11:10270".parse().unwrap(),
    };
    let relayed = Sweeper::with_relay(Doors::default());
    for (mut sweeper, stale) in [(Sweeper::default(), true), (relayed, false)] {
        sweeper.on_stands(&stands);
        let sweep = sweeper.begin(at(0)).unwrap();
        assert_eq!(sweep.is_stale(&flow), stale);
    }
}
