//! New flows through Services are counted, each once, wherever they come from and go to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::Instant;

use portolan_kernel::isolated;
use portolan_kernel::nft::ConnectionCounts;
use portolan_kernel::topology::Host;
use portolan_model::counts::Counts;
use portolan_model::{Endpoint, Family, PortKey, Protocol, ServicePort};

use crate::bed::{Bed, PATIENCE, at, rules};

const POD: &str = "10.1.1.2:8080";
const POD_V6: &str = "[fd00:10:1:1::2]:8080";
/// A pod in the node's own network.
const HOST_POD: &str = "192.168.0.11:8080";
/// Few enough to be reached.
const PAIRS_MAX: u32 = 4;

struct World {
    bed: Bed,
    table: ConnectionCounts,
    counts: Counts,
}

impl World {
    fn new() -> World {
        World::with_room(PAIRS_MAX)
    }

    fn with_room(pairs_max: u32) -> World {
        let bed = Bed::new(&[POD, POD_V6]);
        let hosts = [(&bed.pods, POD), (&bed.pods, POD_V6), (&bed.node, HOST_POD)];
        for (host, address) in hosts {
            serve(host, at(address));
        }
        let open = || ConnectionCounts::open(pairs_max);
        World {
            table: bed.node.run(open).unwrap().unwrap(),
            bed,
            counts: Counts::default(),
        }
    }

    fn load(&mut self, name: &str, protocol: Protocol, last: u8, endpoints: &[&str]) {
        let ready = |text: &&str| Endpoint::ready(at(text));
        self.bed.snapshot.set(ServicePort {
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
        self.bed.stand();
    }

    /// What has been counted for all Services.
    fn counted(&mut self) -> u64 {
        let counted = self.table.read().unwrap().unwrap();
        self.counts.take(&self.bed.snapshot, counted);
        self.counts.ports().values().map(|port| port.total).sum()
    }

    /// What has been counted for a Service: in total and for one endpoint.
    fn count(&mut self, name: &str, protocol: Protocol, endpoint: &str) -> (u64, u64) {
        let counted = self.table.read().unwrap().unwrap();
        self.counts.take(&self.bed.snapshot, counted);
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
        connect(&world.bed.outside, "172.30.0.1:80", 7);
        assert_eq!(world.count("web", tcp, POD), (7, 7));
        connect(&world.bed.outside, "192.168.0.11:30001", 3);
        connect(&world.bed.node, "172.30.0.1:80", 2);
        assert_eq!(world.count("web", tcp, POD), (12, 12));
        connect(&world.bed.outside, "[fd00:172:30::1]:80", 5);
        assert_eq!(world.count("web", tcp, POD_V6), (17, 5));
        // Not through a Service, and through another one.
        connect(&world.bed.outside, POD, 4);
        connect(&world.bed.outside, "172.30.0.2:80", 1);
        assert_eq!(world.count("web", tcp, POD), (17, 12));
        assert_eq!(world.count("other", tcp, POD), (1, 1));
        // A change of the rules loses nothing.
        world.load("web", tcp, 1, &[POD, POD_V6, "10.1.1.9:8080"]);
        world.load("web", tcp, 1, &[POD_V6, POD]);
        connect(&world.bed.outside, "172.30.0.1:80", 1);
        assert_eq!(world.count("web", tcp, POD), (18, 13));
    });
}

/// Their packets never come by postrouting.
#[test]
fn flows_to_a_pod_in_the_nodes_own_network_count() {
    isolated!(flows_to_a_pod_in_the_nodes_own_network_count, {
        let mut world = World::new();
        world.load("web", Protocol::Tcp, 1, &[HOST_POD]);
        connect(&world.bed.outside, "172.30.0.1:80", 3);
        assert_eq!(world.count("web", Protocol::Tcp, HOST_POD), (3, 3));
        connect(&world.bed.node, "172.30.0.1:80", 2);
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
            let socket = world.bed.outside.run(open).unwrap();
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
            connect(&world.bed.outside, &format!("172.30.0.{last}:80"), 2);
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
            world.bed.snapshot.set(ServicePort {
                cluster_ips: vec![vip(index).into()],
                endpoints: [Endpoint::ready(at(POD))].into(),
                ..ServicePort::new(
                    PortKey::new("shop", &format!("s{index}"), "", Protocol::Udp),
                    NonZeroU16::new(53).unwrap(),
                )
            });
        }
        world.load("web", Protocol::Tcp, 1, &[POD]);
        let socket = world.bed.outside.run(|| UdpSocket::bind("192.168.0.1:0"));
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
        let table = node
            .run(|| ConnectionCounts::open(PAIRS_MAX))
            .unwrap()
            .unwrap();
        let shown = rules(&node);
        assert!(shown.contains("table ip6 portolan-counts"), "{shown}");
        assert!(shown.contains("counter"), "{shown}");
        drop(table);
        assert_eq!(rules(&node), "");
    });
}
