//! What is told arrives, whole and in parts.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use portolan_model::{Affinity, Balance, Endpoint, Protocol};

use super::*;

fn port(name: &str, endpoints: usize) -> ServicePort {
    let key = PortKey::new("shop", name, "http", Protocol::Tcp);
    let mut port = ServicePort::new(key, NonZeroU16::new(80).unwrap());
    port.cluster_ips = vec!["172.30.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
    port.affinity = Some(Affinity {
        timeout: std::time::Duration::from_secs(10),
    });
    port.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
    port.balance = Balance::Maglev;
    let at = |index: usize| SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 8080));
    port.endpoints = (0..endpoints).map(|i| Endpoint::ready(at(i))).collect();
    port
}

/// Through the bytes, as between processes.
fn told(draft: &mut Draft, all: Vec<Ask>) -> (Snapshot, u64) {
    let mut last = None;
    for ask in all {
        let bytes = serde_json::to_vec(&ask).unwrap();
        last = draft.take(serde_json::from_slice(&bytes).unwrap());
    }
    last.unwrap()
}

#[test]
fn a_snapshot_arrives_and_so_do_its_changes() {
    let mut now = Snapshot::new(NodeFacts {
        name: "n1".into(),
        addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..NodeFacts::default()
    });
    // Two of them want the same address.
    ["a", "b", "c"].iter().for_each(|n| now.set(port(n, 3)));
    let mut draft = Draft::default();
    draft.0.set(port("what was there before", 1));
    assert_eq!(told(&mut draft, changes(None, &now, 1)), (now.clone(), 1));
    let before = now.clone();
    now.remove(&port("a", 0).key);
    now.set(port("c", 5));
    let all = changes(Some(&before), &now, 2);
    assert!(
        !all.iter()
            .any(|ask| matches!(ask, Ask::Begin | Ask::Node(_)))
    );
    assert_eq!(told(&mut draft, all), (now.clone(), 2));
    let before = now.clone();
    now.set_node(NodeFacts::default());
    let all = changes(Some(&before), &now, 3);
    assert_eq!(told(&mut draft, all), (now, 3));
}

#[test]
fn no_message_grows_with_the_cluster() {
    let mut now = Snapshot::default();
    for number in 0..3 * ENDPOINTS_PER_MESSAGE / 1000 {
        now.set(port(&format!("s{number}"), 1000));
    }
    let all = changes(None, &now, 1);
    let sizes = all.iter().map(|ask| serde_json::to_vec(ask).unwrap().len());
    let largest = sizes.max().unwrap();
    assert!(largest < 2 << 20, "{largest} bytes");
    assert_eq!(told(&mut Draft::default(), all).0, now);
}
