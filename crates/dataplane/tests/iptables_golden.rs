//! The rules as text, which other tools and people read: names, structure, chances, comments. `UPDATE=1` writes the file
//! anew; read its diff.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

use std::num::NonZeroU16;
use std::time::Duration;

use portolan_dataplane::iptables::{Iptables, show};
use portolan_model::{
    Affinity, Backend, Endpoint, Family, LocalPods, NodeFacts, PortKey, Protocol, ServicePort,
    Snapshot, TrafficPolicy,
};

const IPTABLES: Iptables = Iptables::DEFAULT;

fn port(
    namespace: &str,
    name: &str,
    port: &str,
    number: u16,
    ip: &str,
    to: &[&str],
) -> ServicePort {
    let key = PortKey::new(namespace, name, port, Protocol::Tcp);
    let endpoint = |to: &&str| Endpoint {
        local: true,
        ..Endpoint::ready(to.parse().unwrap())
    };
    let mut endpoints: Vec<Endpoint> = to.iter().map(endpoint).collect();
    endpoints
        .iter_mut()
        .skip(1)
        .for_each(|endpoint| endpoint.local = false);
    ServicePort {
        cluster_ips: vec![ip.parse().unwrap()],
        families: [Family::V4].into(),
        endpoints: endpoints.into(),
        ..ServicePort::new(key, NonZeroU16::new(number).unwrap())
    }
}

/// Services that use every kind of rule, on a node that tells pods by `local_pods`.
fn rules(local_pods: LocalPods) -> String {
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        addresses: ["192.168.0.11".parse().unwrap()].into(),
        service_cidrs: vec!["172.30.0.0/16".parse().unwrap()],
        local_pods,
        ..NodeFacts::default()
    });
    let first = ["10.180.0.1:80", "10.0.1.1:80", "10.0.1.2:80"];
    snapshot.set(port("ns1", "svc1", "p80", 80, "172.30.0.41", &first));
    snapshot.set(ServicePort {
        load_balancer_ips: vec!["198.51.100.1".parse().unwrap()],
        external_ips: vec!["198.51.100.2".parse().unwrap()],
        source_ranges: vec!["203.0.113.0/24".parse().unwrap()],
        node_port: NonZeroU16::new(30_080),
        health_check_node_port: NonZeroU16::new(30_081),
        external_policy: TrafficPolicy::Local,
        affinity: Some(Affinity {
            timeout: Duration::from_secs(10_800),
        }),
        ..port(
            "ns2",
            "svc2",
            "p8080",
            8080,
            "172.30.0.42",
            &["10.0.2.1:8080", "10.0.2.2:8080"],
        )
    });
    snapshot.set(ServicePort {
        external_ips: vec!["198.51.100.3".parse().unwrap()],
        node_port: NonZeroU16::new(30_082),
        ..port("ns3", "svc3", "p80", 80, "172.30.0.43", &["10.0.3.1:80"])
    });
    snapshot.set(ServicePort {
        external_ips: vec!["198.51.100.4".parse().unwrap()],
        node_port: NonZeroU16::new(30_083),
        ..port("ns4", "nobody", "", 80, "172.30.0.44", &[])
    });
    show(&IPTABLES.compile(&snapshot).0)
}

#[test]
fn rules_are_as_they_were_read() {
    let by = |title: &str, pods| format!("# pods by {title}\n{}\n", rules(pods));
    let found = [
        by(
            "range",
            LocalPods::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]),
        ),
        by("interface", LocalPods::Interface("bridge".into())),
    ]
    .concat();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/iptables.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(path).unwrap(),
        "UPDATE=1 writes {path}"
    );
}
