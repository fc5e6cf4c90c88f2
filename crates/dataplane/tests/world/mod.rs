//! Random worlds for the laws: few addresses and ports, so that frontends clash and lists coincide.
#![allow(dead_code, clippy::unwrap_used)] // Used by tests of two crates, each of which takes what it needs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portolan_model::{
    Affinity, Balance, Endpoint, Family, Hints, LocalPods, NodeFacts, Packet, PortKey, Protocol,
    ServicePort, Snapshot, TrafficPolicy,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| net(text)).collect()
}

const CLUSTER_IPS: [&str; 8] = [
    "172.30.0.1",
    "172.30.0.2",
    "172.30.0.3",
    "172.30.0.4",
    "fd00:172:30::1",
    "fd00:172:30::2",
    "fd00:172:30::3",
    "fd00:172:30::4",
];
const OTHER_IPS: [&str; 6] = [
    "198.51.100.1",
    "198.51.100.2",
    "192.168.0.11",
    "172.30.0.1",
    "2001:db8:100::1",
    "fd00:192:168::11",
];
const ENDPOINT_IPS: [&str; 9] = [
    "10.1.0.1",
    "10.1.0.2",
    "10.2.0.1",
    "192.168.0.11",
    "203.0.113.9",
    "fd00:10:1::1",
    "fd00:10:1::2",
    "fd00:10:2::1",
    "fd00:192:168::12",
];
const SOURCES: [&str; 14] = [
    "10.1.0.1",
    "10.1.0.9",
    "10.2.0.1",
    "192.168.0.11",
    "192.168.0.12",
    "203.0.113.2",
    "203.0.113.130",
    "198.51.100.1",
    "fd00:10:1::1",
    "fd00:10:1::9",
    "fd00:192:168::11",
    "2001:db8:113::2",
    "2001:db8:113::8002",
    "2001:db8:100::1",
];
const RANGES: [&str; 7] = [
    "203.0.113.0/25",
    "203.0.113.0/24",
    "192.168.0.0/24",
    "10.1.0.1/32",
    "0.0.0.0/0",
    "2001:db8:113::/112",
    "fd00::/8",
];
const PORTS: [u16; 3] = [80, 53, 30080];
const NODE_PORTS: [u16; 3] = [30080, 30053, 31000];

fn number(port: u16) -> NonZeroU16 {
    NonZeroU16::new(port).unwrap()
}

fn some(texts: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<IpAddr>> {
    subsequence(ips(texts), 0..=most)
}

pub fn node() -> impl Strategy<Value = NodeFacts> {
    let addresses = [
        "192.168.0.11",
        "192.168.0.99",
        "fd00:192:168::11",
        "10.1.0.1",
    ];
    let pods = prop_oneof![
        Just(LocalPods::Unknown),
        subsequence(
            nets(&[
                "10.0.0.0/8",
                "10.1.0.0/16",
                "fd00:10::/32",
                "fd00:10:1::/64",
                "255.0.0.0/8"
            ]),
            0..=4
        )
        .prop_map(LocalPods::Cidrs),
        select(vec!["cni0", "veth1", "", "a-name-that-is-too-long"])
            .prop_map(|name| LocalPods::Interface(name.into())),
        select(vec!["veth", "cni0", "", "a-prefix-that-is-too-long"])
            .prop_map(|name| LocalPods::InterfacePrefix(name.into())),
    ];
    let cidrs = subsequence(
        nets(&["172.30.0.0/16", "172.30.0.0/24", "fd00:172:30::/112"]),
        0..=3,
    );
    let addresses = subsequence(ips(&addresses), 0..=4);
    (addresses, any::<u8>(), pods, any::<bool>(), cidrs).prop_map(
        |(addresses, listens, local_pods, masquerade_all, service_cidrs)| {
            let listen = |(index, _): &(usize, &IpAddr)| listens >> index & 1 == 1;
            let listening = addresses.iter().enumerate().filter(listen);
            NodeFacts {
                name: "n1".into(),
                zone: Some("a".into()),
                node_port_addresses: listening.map(|(_, ip)| *ip).collect(),
                addresses: addresses.into_iter().collect(),
                local_pods,
                masquerade_all,
                service_cidrs,
            }
        },
    )
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let hints = prop_oneof![3 => Just(vec![]), 1 => Just(vec!["a"]), 1 => Just(vec!["b", "n1"])];
    let weight = prop_oneof![3 => Just(1), 1 => 0..5_u16];
    (
        select(ips(&ENDPOINT_IPS)),
        select(vec![8080, 8081]),
        any::<[bool; 3]>(),
        0..3u8,
        hints,
        weight,
    )
        .prop_map(
            |(ip, port, [local, serving, terminating], ready, hints, weight)| {
                let hints: Vec<Arc<str>> = hints.into_iter().map(Arc::from).collect();
                let hints = Hints {
                    zones: hints.clone(),
                    nodes: hints,
                };
                Endpoint {
                    local,
                    ready: ready > 0,
                    serving,
                    terminating,
                    weight,
                    hints: Some(Arc::new(hints)),
                    ..Endpoint::ready(SocketAddr::new(ip, port))
                }
            },
        )
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    select(vec![TrafficPolicy::Cluster, TrafficPolicy::Local])
}

pub fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![
        Protocol::Tcp,
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Sctp,
    ])
}

pub fn key() -> impl Strategy<Value = PortKey> {
    let names = select(vec!["a", "b", "c", "d", "e"]);
    (names, protocol()).prop_map(|(name, protocol)| PortKey::new("shop", name, "p", protocol))
}

pub fn port() -> impl Strategy<Value = ServicePort> {
    let addresses = (
        some(&CLUSTER_IPS, 2),
        some(&OTHER_IPS, 2),
        some(&OTHER_IPS, 2),
        subsequence(nets(&RANGES), 0..=3),
    );
    let ports = (
        select(PORTS.to_vec()),
        proptest::option::of(select(NODE_PORTS.to_vec())),
        btree_set(select(Family::ALL.to_vec()), 0..=2),
    );
    let affinity = prop_oneof![
        2 => Just(None),
        1 => select(vec![1, 10_800]).prop_map(|s| Some(Affinity {
            timeout: Duration::from_secs(s)
        })),
    ];
    let balance = prop_oneof![2 => Just(Balance::Random), 3 => select(&Balance::ALL[..])];
    let choice = (affinity, balance);
    let rest = (0..3i64, policy(), policy(), vec(endpoint(), 0..6), choice);
    (key(), addresses, ports, rest).prop_map(|(key, addresses, ports, rest)| {
        let (created, internal_policy, external_policy, mut endpoints, choice) = rest;
        let (affinity, balance) = choice;
        endpoints.sort_by_key(|e| e.address);
        endpoints.dedup_by_key(|e| e.address);
        let mut cluster_ips: Vec<IpAddr> = Vec::new();
        for ip in addresses.0 {
            if !cluster_ips
                .iter()
                .any(|known| known.is_ipv4() == ip.is_ipv4())
            {
                cluster_ips.push(ip);
            }
        }
        ServicePort {
            created,
            cluster_ips,
            external_ips: addresses.1,
            load_balancer_ips: addresses.2,
            source_ranges: addresses.3,
            node_port: ports.1.map(number),
            families: ports.2.into_iter().collect(),
            affinity,
            balance,
            internal_policy,
            external_policy,
            endpoints: endpoints.into(),
            ..ServicePort::new(key, number(ports.0))
        }
    })
}

pub fn snapshot() -> impl Strategy<Value = Snapshot> {
    (node(), vec(port(), 0..8)).prop_map(|(node, ports)| {
        let mut snapshot = Snapshot::new(node);
        ports.into_iter().for_each(|port| snapshot.set(port));
        snapshot
    })
}

/// One event that changes a Snapshot.
#[derive(Clone, Debug)]
pub enum Change {
    Set(Box<ServicePort>),
    Remove(PortKey),
    Node(Box<NodeFacts>),
}

impl Change {
    pub fn make(&self, snapshot: &mut Snapshot) {
        match self {
            Change::Set(port) => snapshot.set(ServicePort::clone(port)),
            Change::Remove(key) => snapshot.remove(key),
            Change::Node(node) => snapshot.set_node(NodeFacts::clone(node)),
        }
    }
}

pub fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => port().prop_map(|port| Change::Set(Box::new(port))),
        3 => key().prop_map(Change::Remove),
        1 => node().prop_map(|node| Change::Node(Box::new(node))),
    ]
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let mut destinations: BTreeSet<IpAddr> = ips(&CLUSTER_IPS).into_iter().collect();
    destinations.extend(ips(&OTHER_IPS));
    destinations.extend(ips(&[
        "172.30.0.77",
        "192.168.0.99",
        "fd00:172:30::77",
        "203.0.113.9",
    ]));
    let destinations: Vec<IpAddr> = destinations.into_iter().collect();
    let ports = vec![0, 80, 80, 53, 30080, 30053, 31000, 9];
    let interface = select(vec![None, Some("cni0"), Some("veth1"), Some("eth0")]);
    (
        protocol(),
        select(ips(&SOURCES)),
        select(destinations),
        select(ports),
        interface,
        1..u16::MAX,
    )
        .prop_filter_map(
            "one family",
            |(protocol, source, to, port, interface, source_port)| {
                (source.is_ipv4() == to.is_ipv4()).then(|| Packet {
                    protocol,
                    source: SocketAddr::new(source, source_port),
                    destination: SocketAddr::new(to, port),
                    interface: interface.map(Into::into),
                })
            },
        )
}
