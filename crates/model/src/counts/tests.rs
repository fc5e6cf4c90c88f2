//! Totals never go down.

use std::num::NonZeroU16;

use super::*;
use crate::{Endpoint, NodeFacts, Protocol, ServicePort};

const ONE: &str = "10.1.0.1:8080";
const TWO: &str = "10.1.0.2:8080";

fn key() -> PortKey {
    PortKey::new("shop", "web", "http", Protocol::Tcp)
}

fn snapshot(endpoints: &[&str]) -> Snapshot {
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let ready = |text: &&str| Endpoint::ready(text.parse().unwrap());
    snapshot.set(ServicePort {
        cluster_ips: vec!["172.30.0.1".parse().unwrap()],
        external_ips: vec!["198.51.100.7".parse().unwrap()],
        endpoints: endpoints.iter().map(ready).collect(),
        ..ServicePort::new(key(), NonZeroU16::new(80).unwrap())
    });
    snapshot
}

fn counted(destination: &str, replier: &str, count: u64) -> (Flow, u64) {
    let flow = Flow {
        protocol: Protocol::Tcp,
        destination: destination.parse().unwrap(),
        replier: replier.parse().unwrap(),
    };
    (flow, count)
}

fn is(counts: &Counts, total: u64, endpoints: &[(&str, u64)]) {
    let endpoints = endpoints.iter().map(|(at, n)| (at.parse().unwrap(), *n));
    let wanted = PortCount {
        total,
        endpoints: endpoints.collect(),
    };
    assert_eq!(counts.ports().get(&key()), Some(&wanted));
}

#[test]
fn all_addresses_of_a_port_count_together() {
    let mut counts = Counts::default();
    let all = vec![
        counted("172.30.0.1:80", ONE, 3),
        counted("172.30.0.1:80", TWO, 2),
        counted("198.51.100.7:80", ONE, 4),
        counted("198.51.100.7:81", ONE, 50),
        counted("192.168.0.11:9000", ONE, 60),
    ];
    counts.take(&snapshot(&[ONE, TWO]), all);
    is(&counts, 9, &[(ONE, 7), (TWO, 2)]);
    assert_eq!(counts.ports().len(), 1);
}

#[test]
fn totals_survive_what_the_kernel_forgets() {
    let mut counts = Counts::default();
    let both = snapshot(&[ONE, TWO]);
    for (count, total) in [(3, 3), (3, 3), (5, 5), (1, 6), (4, 9)] {
        counts.take(&both, vec![counted("172.30.0.1:80", ONE, count)]);
        is(&counts, total, &[(ONE, total)]);
    }
    for _ in 0..=MISSED_MAX {
        counts.take(&both, Vec::new());
        is(&counts, 9, &[(ONE, 9)]);
    }
    counts.take(&both, vec![counted("172.30.0.1:80", ONE, 5)]);
    is(&counts, 14, &[(ONE, 14)]);
    counts.take(&snapshot(&[TWO]), vec![counted("172.30.0.1:80", ONE, 5)]);
    is(&counts, 14, &[]);
    let nobody = Snapshot::new(NodeFacts::default());
    counts.take(&nobody, vec![counted("172.30.0.1:80", ONE, 5)]);
    assert!(counts.ports().is_empty());
}

#[test]
fn what_a_listing_leaves_out_or_tells_twice_counts_once() {
    let mut counts = Counts::default();
    let both = snapshot(&[ONE, TWO]);
    let told = |count| counted("172.30.0.1:80", ONE, count);
    counts.take(&both, vec![told(3), told(4)]);
    is(&counts, 4, &[(ONE, 4)]);
    for _ in 0..MISSED_MAX {
        counts.take(&both, Vec::new());
    }
    counts.take(&both, vec![told(5)]);
    is(&counts, 5, &[(ONE, 5)]);
    counts.begin_anew();
    counts.take(&both, vec![told(5)]);
    is(&counts, 10, &[(ONE, 10)]);
}

#[test]
fn ports_beyond_the_limit_count_together() {
    let mut counts = Counts::default();
    let mut snapshot = Snapshot::new(NodeFacts::default());
    let mut flows = Vec::new();
    for index in 0..=PORTS_MAX {
        let ip = std::net::Ipv4Addr::from_bits(0xac1e_0001 + index as u32);
        snapshot.set(ServicePort {
            cluster_ips: vec![ip.into()],
            endpoints: [Endpoint::ready(ONE.parse().unwrap())].into(),
            ..ServicePort::new(
                PortKey::new("shop", &format!("s{index}"), "", Protocol::Tcp),
                NonZeroU16::new(80).unwrap(),
            )
        });
        flows.push(counted(&format!("{ip}:80"), ONE, 2));
    }
    counts.take(&snapshot, flows.clone());
    assert_eq!((counts.ports().len(), counts.others()), (PORTS_MAX, 2));
    for (_, count) in &mut flows {
        *count += 1;
    }
    counts.take(&snapshot, flows);
    assert_eq!((counts.ports().len(), counts.others()), (PORTS_MAX, 3));
    assert!(counts.ports().values().all(|port| port.total == 3));
}
