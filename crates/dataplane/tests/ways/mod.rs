//! Services in every way in which one can be served.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use portolan_model::{
    Affinity, Balance, Endpoint, Family, LocalPods, NodeFacts, ServicePort, Snapshot, TrafficPolicy,
};

use crate::fake::many_services;

/// A Service for each way in which policies and endpoints can meet, and one for each way to balance, in both families;
/// every other one remembers its clients and lets in only some.
pub fn every_way(count: usize) -> Snapshot {
    let plain = many_services(count);
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11", "fd00:192:168::11"]
            .map(|ip| ip.parse().unwrap())
            .into(),
        local_pods: LocalPods::Cidrs(
            ["10.0.0.0/8", "fd00:10::/32"]
                .map(|net| net.parse().unwrap())
                .into(),
        ),
        service_cidrs: ["172.30.0.0/16", "fd00:172:30::/112"]
            .map(|net| net.parse().unwrap())
            .into(),
        ..plain.node().clone()
    });
    for (index, port) in plain.ports().enumerate() {
        let number = index + 1;
        let both = |v4: &str, v6: &str| {
            let address = |text: &str| format!("{text}{number}").parse().unwrap();
            vec![address(v4), address(v6)]
        };
        let policy = |local: bool| match local {
            true => TrafficPolicy::Local,
            false => TrafficPolicy::Cluster,
        };
        let sticky = index % 2 == 1;
        let places: &[(&str, bool)] = match index / 4 {
            0 | 3 => &[
                ("10.1.0.10", true),
                ("fd00:10:1::10", true),
                ("10.2.0.10", false),
                ("fd00:10:2::10", false),
            ],
            1 => &[("10.2.0.10", false), ("fd00:10:2::10", false)],
            _ => &[],
        };
        let endpoint = |(ip, local): &(&str, bool)| Endpoint {
            local: *local,
            weight: 1 + u16::from(*local && index / 4 == 3),
            ..Endpoint::ready((ip.parse::<IpAddr>().unwrap(), 8080).into())
        };
        let mut port = ServicePort::clone(port);
        port.cluster_ips = both("172.30.0.", "fd00:172:30::");
        port.load_balancer_ips = both("198.51.100.", "2001:db8:198::");
        port.families = Family::ALL.into();
        port.node_port = NonZeroU16::new(30_000 + number as u16);
        port.internal_policy = policy(index & 1 == 1);
        port.external_policy = policy(index & 2 == 2);
        port.endpoints = places.iter().map(endpoint).collect();
        if index / 4 == 3 {
            port.balance = Balance::ALL[index % 4];
        }
        if sticky {
            let timeout = Duration::from_secs(3600);
            port.affinity = Some(Affinity { timeout });
            port.source_ranges = ["203.0.113.0/24", "2001:db8:113::/64"]
                .map(|net| net.parse().unwrap())
                .into();
        }
        snapshot.set(port);
    }
    snapshot
}
