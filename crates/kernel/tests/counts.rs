//! New flows through Services are counted, each once, wherever they come from and go to.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::nft::ConnectionCounts;
use portolan_kernel::topology::Host;
use portolan_kernel::{NftTarget, isolated};
use portolan_model::counts::Counts;
use portolan_model::{
    Backend, Endpoint, Family, NodeFacts, PortKey, Protocol, ServicePort, Snapshot, Target,
};

const POD: &str = "10.1.1.2:8080";
const POD_V6: &str = "[fd00:10:1:1::2]:8080";
/// A pod in the node's own network.
const HOST_POD: &str = "192.168.0.11:8080";
/// Few enough to be reached.
const PAIRS_MAX: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(10);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct World {
    node: Host,
    outside: Host,
    _pods: Host,
    target: NftTarget,
    table: ConnectionCounts,
    counts: Counts,
    snapshot: Snapshot,
}

impl World {
    fn new() -> World {
        World::with_room(PAIRS_MAX)
    }

    fn with_room(pairs_max: u32) -> World {
        let node = Host::router().unwrap();
        let (pods, outside) = (Host::new().unwrap(), Host::new().unwrap());
        let near = [net("10.1.1.1/24"), net("fd00:10:1:1::1/64")];
        let far = [net("10.1.1.2/24"), net("fd00:10:1:1::2/64")];
        node.join("veth1", &near, &pods, "eth0", &far).unwrap();
        let near_out = [net("192.168.0.11/24"), net("fd00:192:168::11/64")];
        let far_out = [net("192.168.0.1/24"), net("fd00:192:168::1/64")];
        node.join("eth0", &near_out, &outside, "eth0", &far_out)
            .unwrap();
        for (host, gateways) in [(&pods, near), (&outside, near_out)] {
            host.route(net("0.0.0.0/0"), gateways[0].addr()).unwrap();
            host.route(net("::/0"), gateways[1].addr()).unwrap();
        }
        for (host, to, via) in [
            (&node, "0.0.0.0/0", far_out[0]),
            (&node, "::/0", far_out[1]),
        ] {
            host.route(net(to), via.addr()).unwrap();
        }
        for (host, address) in [(&pods, POD), (&pods, POD_V6), (&node, HOST_POD)] {
            serve(host, at(address));
        }
        let addresses: BTreeSet<IpAddr> = near_out.map(|net| net.addr()).into();
        let facts = NodeFacts {
            node_port_addresses: addresses.clone(),
            addresses,
            ..NodeFacts::default()
        };
        World {
            target: node.run(NftTarget::open).unwrap().unwrap(),
            table: node
                .run(|| ConnectionCounts::open(pairs_max))
                .unwrap()
                .unwrap(),
            node,
            outside,
            _pods: pods,
            counts: Counts::default(),
            snapshot: Snapshot::new(facts),
        }
    }

    fn load(&mut self, name: &str, protocol: Protocol, last: u8, endpoints: &[&str]) {
        let ready = |text: &&str| Endpoint::ready(at(text));
        self.snapshot.set(ServicePort {
            cluster_ips: vec![
                format!("172.30.0.{last}").parse().unwrap(),
                format!("fd00:172:30::{last}").parse().unwrap(),
            ],
            node_port: NonZeroU16::new(30000 + u16::from(last)),
            families: Family::ALL.into(),
            endpoints: endpoints.iter().map(ready).collect(),
            ..ServicePort::new(
                PortKey::new("shop", name, "", protocol),
                NonZeroU16::new(80).unwrap(),
            )
        });
        let (state, _) = Nftables.compile(&self.snapshot);
        let standing = self.target.read().unwrap();
        let ops = Nftables.diff(standing.as_ref(), &state);
        self.target.apply(&ops).unwrap();
    }

    /// What has been counted for all Services.
    fn counted(&mut self) -> u64 {
        let counted = self.table.read().unwrap().unwrap();
        self.counts.take(&self.snapshot, counted);
        self.counts.ports().values().map(|port| port.total).sum()
    }

    /// What has been counted for a Service: in total and for one endpoint.
    fn count(&mut self, name: &str, protocol: Protocol, endpoint: &str) -> (u64, u64) {
        let counted = self.table.read().unwrap().unwrap();
        self.counts.take(&self.snapshot, counted);
        let key = PortKey::new("shop", name, "", protocol);
        let port = self.counts.ports().get(&key).cloned().unwrap_or_default();
        let endpoint = port.endpoints.get(&at(endpoint)).copied();
        (port.total, endpoint.unwrap_or(0))
    }
}

/// Answers what comes over TCP and over UDP with the same, until the test ends.
fn serve(host: &Host, here: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    let _ = stream.write_all(&byte);
                }
            });
        }
    });
    let socket = host.run(|| UdpSocket::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok((_, peer)) = socket.recv_from(&mut byte) {
            let _ = socket.send_to(&byte, peer);
        }
    });
}

/// So many connections, each with several packets.
fn connect(host: &Host, to: &str, times: usize) {
    for _ in 0..times {
        let stream = host.run(|| TcpStream::connect_timeout(&at(to), PATIENCE));
        let mut stream = stream.unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for _ in 0..3 {
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        }
    }
}

#[test]
fn as_many_connections_count_as_were_made() {
    isolated!(as_many_connections_count_as_were_made, {
        let mut world = World::new();
        let tcp = Protocol::Tcp;
        world.load("web", tcp, 1, &[POD, POD_V6]);
        world.load("other", tcp, 2, &[POD]);
        assert_eq!(world.count("web", tcp, POD), (0, 0));
        connect(&world.outside, "172.30.0.1:80", 7);
        assert_eq!(world.count("web", tcp, POD), (7, 7));
        connect(&world.outside, "192.168.0.11:30001", 3);
        connect(&world.node, "172.30.0.1:80", 2);
        assert_eq!(world.count("web", tcp, POD), (12, 12));
        connect(&world.outside, "[fd00:172:30::1]:80", 5);
        assert_eq!(world.count("web", tcp, POD_V6), (17, 5));
        // Not through a Service, and through another one.
        connect(&world.outside, POD, 4);
        connect(&world.outside, "172.30.0.2:80", 1);
        assert_eq!(world.count("web", tcp, POD), (17, 12));
        assert_eq!(world.count("other", tcp, POD), (1, 1));
        // A change of the rules loses nothing.
        world.load("web", tcp, 1, &[POD, POD_V6, "10.1.1.9:8080"]);
        world.load("web", tcp, 1, &[POD_V6, POD]);
        connect(&world.outside, "172.30.0.1:80", 1);
        assert_eq!(world.count("web", tcp, POD), (18, 13));
    });
}

/// Their packets never come by postrouting.
#[test]
fn flows_to_a_pod_in_the_nodes_own_network_count() {
    isolated!(flows_to_a_pod_in_the_nodes_own_network_count, {
        let mut world = World::new();
        world.load("web", Protocol::Tcp, 1, &[HOST_POD]);
        connect(&world.outside, "172.30.0.1:80", 3);
        assert_eq!(world.count("web", Protocol::Tcp, HOST_POD), (3, 3));
        connect(&world.node, "172.30.0.1:80", 2);
        assert_eq!(world.count("web", Protocol::Tcp, HOST_POD), (5, 5));
    });
}

#[test]
fn a_flow_of_udp_counts_once() {
    isolated!(a_flow_of_udp_counts_once, {
        let mut world = World::new();
        world.load("dns", Protocol::Udp, 1, &[POD]);
        let open = || UdpSocket::bind("192.168.0.1:0").unwrap();
        for _ in 0..2 {
            let socket = world.outside.run(open).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect("172.30.0.1:80").unwrap();
            for _ in 0..3 {
                socket.send(b"?").unwrap();
                socket.recv(&mut [0]).unwrap();
            }
        }
        assert_eq!(world.count("dns", Protocol::Udp, POD), (2, 2));
    });
}

#[test]
fn a_flow_that_finds_no_room_is_served_all_the_same() {
    isolated!(a_flow_that_finds_no_room_is_served_all_the_same, {
        let mut world = World::new();
        for last in 1..=PAIRS_MAX as u8 + 1 {
            world.load(&format!("web{last}"), Protocol::Tcp, last, &[POD]);
            connect(&world.outside, &format!("172.30.0.{last}:80"), 2);
        }
        assert_eq!(world.count("web4", Protocol::Tcp, POD), (2, 2));
        assert_eq!(world.count("web5", Protocol::Tcp, POD), (0, 0));
    });
}

/// The kernel tells them in many messages, and may leave out a pair or tell it twice while its set grows.
#[test]
fn thousands_of_pairs_count_once_each() {
    isolated!(thousands_of_pairs_count_once_each, {
        const SERVICES: u32 = 3000;
        let mut world = World::with_room(2 * SERVICES);
        let vip = |index: u32| Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(172, 30, 1, 0)) + index);
        for index in 0..SERVICES {
            world.snapshot.set(ServicePort {
                cluster_ips: vec![vip(index).into()],
                endpoints: [Endpoint::ready(at(POD))].into(),
                ..ServicePort::new(
                    PortKey::new("shop", &format!("s{index}"), "", Protocol::Udp),
                    NonZeroU16::new(53).unwrap(),
                )
            });
        }
        world.load("web", Protocol::Tcp, 1, &[POD]);
        let socket = world.outside.run(|| UdpSocket::bind("192.168.0.1:0"));
        let socket = socket.unwrap().unwrap();
        let deadline = Instant::now() + PATIENCE;
        for sent in 1..=SERVICES {
            socket.send_to(b"?", (vip(sent - 1), 53)).unwrap();
            // Now and then in between, while the set grows.
            while sent % 500 == 0 && world.counted() < u64::from(sent) {
                assert!(Instant::now() < deadline, "not all are counted");
            }
        }
        assert_eq!(world.counted(), SERVICES.into());
        let ports = world.counts.ports();
        assert_eq!(ports.len() as u32, SERVICES);
        assert!(ports.values().all(|port| port.total == 1));
    });
}

/// People look at rules with it.
#[test]
fn nft_can_show_the_table_and_it_ends_with_us() {
    isolated!(nft_can_show_the_table_and_it_ends_with_us, {
        let node = Host::new().unwrap();
        let list = || {
            let nft = || Command::new("nft").args(["list", "ruleset"]).output();
            let output = node.run(nft).unwrap().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let table = node
            .run(|| ConnectionCounts::open(PAIRS_MAX))
            .unwrap()
            .unwrap();
        let shown = list();
        assert!(shown.contains("table ip6 portolan-counts"), "{shown}");
        assert!(shown.contains("counter"), "{shown}");
        drop(table);
        assert_eq!(list(), "");
    });
}
