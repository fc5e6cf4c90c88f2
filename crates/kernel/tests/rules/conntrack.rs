//! Clients of UDP and SCTP that never stop talking: they leave an endpoint when it goes, and only then.

use std::cell::Cell;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use portolan_kernel::topology::Host;
use portolan_kernel::{Conntrack, isolated};
use portolan_model::{Endpoint, Family, Flow, PortKey, Protocol, ServicePort, Sweeper};
use socket2::{Domain, Socket, Type};

use crate::bed::{Bed, PATIENCE, at, ip};

const PODS: [&str; 4] = [
    "10.1.1.2:5353",
    "10.1.1.3:5353",
    "[fd00:10:1:1::2]:5353",
    "[fd00:10:1:1::3]:5353",
];

struct World {
    bed: Bed,
    conntrack: Conntrack,
    sweeper: Sweeper,
    time: Duration,
}

impl World {
    fn new() -> Self {
        let bed = Bed::new(&PODS);
        PODS.iter().for_each(|pod| serve(&bed.pods, at(pod)));
        World {
            conntrack: bed.node.run(Conntrack::open).unwrap().unwrap(),
            bed,
            sweeper: Sweeper::default(),
            time: Duration::ZERO,
        }
    }

    /// Programs the rules.
    fn load(&mut self, port: ServicePort) {
        self.bed.snapshot.set(port);
        self.bed.stand();
        self.sweeper.on_stands(&self.bed.snapshot);
    }

    /// What the proxy does after it has programmed the rules; says how many entries went.
    fn sweep(&mut self) -> u64 {
        let mut deleted = 0;
        if let Some(sweep) = self.sweeper.begin(self.time) {
            for protocol in sweep.protocols() {
                let is_stale = |flow: &_| sweep.is_stale(flow);
                for family in Family::ALL {
                    let done = (self.conntrack).sweep(family, protocol, is_stale, &mut deleted);
                    done.unwrap();
                }
            }
        }
        self.sweeper.end(self.time, Duration::ZERO, true);
        deleted
    }

    /// The endpoint to which the flow of SCTP to `destination` goes.
    fn sctp_endpoint(&mut self, destination: SocketAddr) -> SocketAddr {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = Cell::new(None);
            let see = |flow: &Flow| {
                if flow.destination == destination {
                    found.set(Some(flow.replier));
                }
                false
            };
            let swept =
                self.conntrack
                    .sweep(Family::of(destination.ip()), Protocol::Sctp, see, &mut 0);
            swept.unwrap();
            if let Some(endpoint) = found.get() {
                return endpoint;
            }
            assert!(Instant::now() < deadline, "no flow of SCTP");
            std::thread::yield_now();
        }
    }

    fn client(&self, source: &str, to: &str) -> Client {
        let open = || UdpSocket::bind(at(source));
        let socket = self.bed.outside.run(open).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(at(to)).unwrap();
        Client(socket)
    }
}

/// Answers every datagram with its own address, until the test ends.
fn serve(host: &Host, here: SocketAddr) {
    let socket = host.run(|| UdpSocket::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(here.to_string().as_bytes(), peer);
        }
    });
}

/// One flow: a fixed source port, and one socket for ever.
struct Client(UdpSocket);

impl Client {
    fn try_ask(&self) -> Result<SocketAddr, ErrorKind> {
        let mut buffer = [0; 64];
        let asked = self.0.send(b"?").and_then(|_| self.0.recv(&mut buffer));
        let length = asked.map_err(|error| error.kind())?;
        Ok(at(std::str::from_utf8(&buffer[..length]).unwrap()))
    }

    fn ask(&self) -> SocketAddr {
        self.try_ask().unwrap()
    }
}

fn dns(endpoints: &[SocketAddr]) -> ServicePort {
    let key = PortKey::new("shop", "dns", "", Protocol::Udp);
    ServicePort {
        cluster_ips: vec![ip("172.30.0.10"), ip("fd00:172:30::10")],
        node_port: NonZeroU16::new(30053),
        families: Family::ALL.into(),
        endpoints: endpoints.iter().copied().map(Endpoint::ready).collect(),
        ..ServicePort::new(key, NonZeroU16::new(53).unwrap())
    }
}

fn all() -> Vec<SocketAddr> {
    PODS.map(at).to_vec()
}

#[test]
fn a_client_that_never_stops_leaves_the_endpoint_that_is_gone() {
    isolated!(
        a_client_that_never_stops_leaves_the_endpoint_that_is_gone,
        {
            let mut world = World::new();
            world.load(dns(&all()));
            let clients = [
                world.client("192.168.0.1:4001", "172.30.0.10:53"),
                world.client("192.168.0.1:4002", "192.168.0.11:30053"),
                world.client("[fd00:192:168::1]:4001", "[fd00:172:30::10]:53"),
                world.client("[fd00:192:168::1]:4002", "[fd00:192:168::11]:30053"),
            ];
            for client in &clients {
                let first = client.ask();
                assert_eq!(world.sweep(), 0, "nothing is stale yet");
                assert_eq!(client.ask(), first);
                let others: Vec<SocketAddr> = all().into_iter().filter(|a| *a != first).collect();
                world.load(dns(&others));
                assert_eq!(client.ask(), first, "the kernel remembers");
                assert!(world.sweep() >= 1);
                let second = client.ask();
                assert_ne!(second, first);
                world.load(dns(&all()));
                assert_eq!(world.sweep(), 0, "an endpoint that comes moves nobody");
                assert_eq!(client.ask(), second);
            }
        }
    );
}

/// kubernetes pull request 139629.
#[test]
fn scaled_to_zero_and_up_again() {
    isolated!(scaled_to_zero_and_up_again, {
        let mut world = World::new();
        world.load(dns(&[at(PODS[0])]));
        world.sweep();
        let client = world.client("192.168.0.1:4001", "172.30.0.10:53");
        assert_eq!(client.ask(), at(PODS[0]));
        world.load(dns(&[]));
        assert_eq!(world.sweep(), 1);
        assert_eq!(client.try_ask(), Err(ErrorKind::ConnectionRefused));
        world.load(dns(&[at(PODS[1])]));
        world.sweep();
        assert_eq!(client.ask(), at(PODS[1]));
    });
}

/// The very first datagrams came before there were rules: their flow leads to nobody.
#[test]
fn a_flow_from_before_the_service_finds_its_way() {
    isolated!(a_flow_from_before_the_service_finds_its_way, {
        let mut world = World::new();
        // Without any Service the datagram goes to the node itself, where a socket takes it without an answer.
        let key = PortKey::new("shop", "other", "", Protocol::Udp);
        world.load(ServicePort::new(key, NonZeroU16::MIN));
        let open = || UdpSocket::bind(at("192.168.0.11:30053"));
        let local = world.bed.node.run(open).unwrap().unwrap();
        let client = world.client("192.168.0.1:4001", "192.168.0.11:30053");
        client.0.send(b"?").unwrap();
        local.recv_from(&mut [0; 8]).unwrap();
        world.load(dns(&[at(PODS[0])]));
        client.0.send(b"?").unwrap();
        local.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(world.sweep(), 1);
        assert_eq!(client.ask(), at(PODS[0]));
    });
}

/// The kernel translates SCTP without having sockets for it, so a client speaks over a raw one; nobody answers.
#[test]
fn an_sctp_client_that_asks_again_leaves_the_endpoint_that_is_gone() {
    isolated!(
        an_sctp_client_that_asks_again_leaves_the_endpoint_that_is_gone,
        {
            let mut world = World::new();
            let sctp = |endpoints: &[SocketAddr]| ServicePort {
                key: PortKey::new("shop", "signal", "", Protocol::Sctp),
                ..dns(endpoints)
            };
            let pods = [at(PODS[0]), at(PODS[1])];
            world.load(sctp(&pods));
            world.sweep();
            let open = || Socket::new(Domain::IPV4, Type::RAW, Some(132.into()));
            let client = world.bed.outside.run(open).unwrap().unwrap();
            let vip = at("172.30.0.10:53");
            client.send_to(&sctp_init(4001, 53), &vip.into()).unwrap();
            let first = world.sctp_endpoint(vip);
            assert_eq!(world.sweep(), 0, "nothing is stale yet");
            let other = pods.into_iter().find(|pod| *pod != first).unwrap();
            world.load(sctp(&[other]));
            assert_eq!(world.sweep(), 1);
            client.send_to(&sctp_init(4001, 53), &vip.into()).unwrap();
            assert_eq!(world.sctp_endpoint(vip), other);
        }
    );
}

/// An INIT (RFC 9260, section 3.3.2), as small as it can be.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    for word in [7u32, 65_536, 0x0001_0001, 1] {
        packet.extend(word.to_be_bytes());
    }
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !bytes.iter().fold(!0, add)
}

/// kubernetes pull requests 130484 and 130542.
#[test]
fn services_that_share_an_external_ip_have_their_own_flows() {
    isolated!(services_that_share_an_external_ip_have_their_own_flows, {
        let mut world = World::new();
        let shared = |name: &str, port, pod| ServicePort {
            external_ips: vec![ip("198.51.100.7")],
            endpoints: [Endpoint::ready(at(pod))].into(),
            ..ServicePort::new(
                PortKey::new("shop", name, "", Protocol::Udp),
                NonZeroU16::new(port).unwrap(),
            )
        };
        world.load(shared("a", 53, PODS[0]));
        world.load(shared("b", 54, PODS[0]));
        world.sweep();
        let a = world.client("192.168.0.1:4001", "198.51.100.7:53");
        let b = world.client("192.168.0.1:4002", "198.51.100.7:54");
        assert_eq!([a.ask(), b.ask()], [at(PODS[0]); 2]);
        world.load(shared("a", 53, PODS[1]));
        assert_eq!(world.sweep(), 1);
        assert_eq!([a.ask(), b.ask()], [at(PODS[1]), at(PODS[0])]);
    });
}

/// kubernetes pull requests 135511 (quadratic cost) and 130032 (memory).
#[test]
fn a_sweep_asks_once_for_each_flow_and_holds_none() {
    isolated!(a_sweep_asks_once_for_each_flow_and_holds_none, {
        const FLOWS: u16 = 20_000;
        let mut world = World::new();
        world.load(dns(&[at(PODS[0])]));
        world.sweep();
        let send = |port| {
            let socket = UdpSocket::bind(("192.168.0.11", 10_000 + port)).unwrap();
            socket.send_to(b"?", "172.30.0.10:53").unwrap();
        };
        world.bed.node.run(|| (0..FLOWS).for_each(send)).unwrap();
        let asked = Cell::new(0);
        let mut sweep = |stale: bool| {
            let mut deleted = 0;
            asked.set(0);
            let answer = |_: &_| {
                asked.set(asked.get() + 1);
                stale
            };
            for family in Family::ALL {
                let done = (world.conntrack).sweep(family, Protocol::Udp, answer, &mut deleted);
                done.unwrap();
            }
            (asked.get(), deleted)
        };
        sweep(false);
        let before = peak_kib();
        assert_eq!(sweep(false), (FLOWS.into(), 0));
        assert_eq!(sweep(true), (FLOWS.into(), FLOWS.into()));
        assert_eq!(sweep(true), (0u32, 0));
        // The kernel sums a peak from counters of each core, so that one read later may be a little smaller.
        let grown = peak_kib().saturating_sub(before);
        assert!(grown < 1024, "memory grows with the table: {grown} KiB");
    });
}

/// The most memory that this process has ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}
