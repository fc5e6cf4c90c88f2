//! The rules as text, for what a trace cannot see: how a refusal is worded, which mark bits stay, how clients are
//! remembered. `UPDATE=1` writes the file anew; read its diff.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod ways;

use portolan_dataplane::nftables::{Nftables, show};
use portolan_model::{
    Affinity, Backend, LocalPods, NodeFacts, ServicePort, Snapshot, TrafficPolicy,
};

/// Two Services, of which one uses every kind of rule that there is, on a node that tells pods by `local_pods`.
fn rules(local_pods: LocalPods) -> String {
    let plain = fake::many_services(2);
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        local_pods,
        ..plain.node().clone()
    });
    let mut ports = plain.ports();
    snapshot.set(ServicePort::clone(ports.next().unwrap()));
    let mut every = ServicePort::clone(ports.next().unwrap());
    let mut endpoints = every.endpoints.to_vec();
    endpoints[0].local = true;
    every.endpoints = endpoints.into();
    every.cluster_ips.push("fd00:172:30::1".parse().unwrap());
    every.families = portolan_model::Family::ALL.into();
    every.load_balancer_ips = vec!["198.51.100.1".parse().unwrap()];
    every.source_ranges = vec!["203.0.113.0/24".parse().unwrap()];
    every.node_port = std::num::NonZeroU16::new(30_080);
    every.external_policy = TrafficPolicy::Local;
    let timeout = std::time::Duration::from_secs(10_800);
    every.affinity = Some(Affinity { timeout });
    snapshot.set(every);
    show(&Nftables.compile(&snapshot).0)
}

/// Without the elements of slots from the fifth on: tables of hashes are long, and `model` says what is in them.
fn first_slots(rules: &str) -> String {
    let is_first = |line: &&str| {
        let key = line.split_once(" : ").map(|(key, _)| key);
        let slot = key.and_then(|key| key.rsplit_once(" . tcp . 0x"));
        slot.is_none_or(|(_, slot)| slot.get(4..) < Some("0004"))
    };
    let lines: Vec<&str> = rules.lines().filter(is_first).collect();
    lines.join("\n")
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
        by("prefix", LocalPods::InterfacePrefix("pod".into())),
        by("nothing", LocalPods::Unknown),
        by("any interface", LocalPods::InterfacePrefix("".into())),
        format!(
            "# every way\n{}\n",
            first_slots(&show(&Nftables.compile(&ways::every_way(16)).0))
        ),
    ]
    .concat();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rules.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(path).unwrap(),
        "UPDATE=1 writes {path}"
    );
}
