//! TCP connections to endpoints that are gone for good: their clients learn it at once, and nobody else notices.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use portolan_kernel::nft::Ends;
use portolan_kernel::topology::Host;
use portolan_kernel::{Conntrack, Resets, isolated, sysctl};
use portolan_model::reset::{GRACE, Look, OVER_AFTER, Resetter};
use portolan_model::{Endpoint, Family, PortKey, Protocol, ServicePort};
use socket2::{Domain, Socket, Type};

use crate::bed::{Bed, PATIENCE, ask, at, net, rules, serve};

const PODS: [&str; 4] = [
    "10.1.1.2:8080",
    "10.1.1.3:8080",
    "[fd00:10:1:1::2]:8080",
    "[fd00:10:1:1::3]:8080",
];
/// Takes packets, and has no way back to clients outside.
const SILENT: &str = "10.1.2.2:8080";
const VIPS: [&str; 2] = ["172.30.0.1:80", "[fd00:172:30::1]:80"];
const NODE_PORTS: [&str; 2] = ["192.168.0.11:30080", "[fd00:192:168::11]:30080"];

struct World {
    bed: Bed,
    _silent: Host,
    conntrack: Conntrack,
    resets: Resets,
    resetter: Resetter,
    time: Duration,
}

impl World {
    fn new() -> Self {
        let bed = Bed::new(&PODS);
        let silent = Host::new().unwrap();
        let (here, there) = ([net("10.1.2.1/24")], [net("10.1.2.2/24")]);
        bed.node
            .join("veth2", &here, &silent, "eth0", &there)
            .unwrap();
        PODS.iter().for_each(|pod| serve(&bed.pods, at(pod)));
        World {
            conntrack: bed.node.run(Conntrack::open).unwrap().unwrap(),
            resets: bed.node.run(Resets::open).unwrap().unwrap(),
            bed,
            _silent: silent,
            resetter: Resetter::default(),
            time: Duration::ZERO,
        }
    }

    fn load(&mut self, endpoints: &[Endpoint]) {
        self.bed.snapshot.set(web(endpoints));
        self.bed.stand();
        self.resetter.on_stands(self.time, &self.bed.snapshot);
    }

    /// What the proxy does when the grace is over, but for provocations; returns those that need some.
    fn look(&mut self) -> Vec<Ends> {
        self.time += GRACE;
        let Some(gone) = self.resetter.begin(self.time) else {
            return Vec::new();
        };
        let mut doomed = Vec::new();
        let fate = |connection: &_| gone.fate(connection);
        let whole = self.conntrack.connections(fate, 100, &mut doomed);
        assert!(whole.unwrap());
        let addresses = &self.bed.snapshot.node().addresses;
        let rest = self.resets.begin(&doomed, addresses, OVER_AFTER).unwrap();
        for doomed in &doomed {
            assert!(self.conntrack.forget(doomed).unwrap());
        }
        self.resetter.end(self.time, Duration::ZERO, Look::Whole);
        rest
    }

    /// The same with one provocation.
    fn reset(&mut self) -> usize {
        let rest = self.look();
        self.resets.provoke(&rest, 0).unwrap();
        rest.len()
    }

    /// A connection through the Service to this endpoint.
    fn reach(&self, host: &Host, to: &str, endpoint: &str) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stream = host.run(|| open(at(to), None)).unwrap();
            if ask(&mut stream).unwrap() == at(endpoint) {
                return stream;
            }
            assert!(Instant::now() < deadline, "{endpoint} never answers");
        }
    }
}

fn web(endpoints: &[Endpoint]) -> ServicePort {
    let key = PortKey::new("shop", "web", "", Protocol::Tcp);
    let mut endpoints = endpoints.to_vec();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    ServicePort {
        cluster_ips: VIPS.map(|vip| at(vip).ip()).to_vec(),
        node_port: NonZeroU16::new(30080),
        families: Family::ALL.into(),
        endpoints: endpoints.into(),
        ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
    }
}

fn all_but(gone: &[&str]) -> Vec<Endpoint> {
    let left = PODS.iter().filter(|pod| !gone.contains(pod));
    left.map(|pod| Endpoint::ready(at(pod))).collect()
}

fn open(to: SocketAddr, port: Option<SocketAddr>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    if let Some(here) = port {
        socket.set_reuse_address(true).unwrap();
        socket.bind(&here.into()).unwrap();
    }
    socket.connect_timeout(&to.into(), PATIENCE).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What a client learns that only waits.
fn wait(stream: &mut TcpStream) -> ErrorKind {
    stream.read(&mut [0]).unwrap_err().kind()
}

fn silent_clients_are_told(loose: bool) {
    let mut world = World::new();
    let value = if loose { "1" } else { "0" };
    let settings = [("netfilter/nf_conntrack_tcp_loose", value)];
    sysctl::set(&world.bed.node.netns, &settings).unwrap();
    world.load(&all_but(&[]));
    world.look();
    for to in [VIPS, NODE_PORTS].concat() {
        let family = usize::from(at(to).is_ipv6()) * 2;
        let (gone, other) = (PODS[family], PODS[family + 1]);
        let mut client = world.reach(&world.bed.outside, to, gone);
        let mut neighbour = world.reach(&world.bed.outside, to, other);
        world.load(&all_but(&[gone]));
        assert_eq!(ask(&mut client), Ok(at(gone)), "{to}: the grace");
        assert!(world.reset() >= 1, "{to}");
        assert_eq!(wait(&mut client), ErrorKind::ConnectionReset, "{to}");
        assert_eq!(ask(&mut neighbour), Ok(at(other)), "{to}");
        world.load(&all_but(&[]));
        assert_eq!(
            world.reset(),
            0,
            "{to}: an endpoint that comes ends nothing"
        );
        assert_eq!(ask(&mut neighbour), Ok(at(other)), "{to}");
    }
    assert!(rules(&world.bed.node).contains("portolan-resets"));
    world.resets.end().unwrap();
    assert!(!rules(&world.bed.node).contains("portolan-resets"));
}

#[test]
fn a_client_that_only_waits_is_told() {
    isolated!(a_client_that_only_waits_is_told, {
        silent_clients_are_told(true);
    });
}

/// Then conntrack takes the answer of a client for the middle of nothing.
#[test]
fn a_client_that_only_waits_is_told_where_conntrack_is_strict() {
    isolated!(
        a_client_that_only_waits_is_told_where_conntrack_is_strict,
        {
            silent_clients_are_told(false);
        }
    );
}

#[test]
fn a_client_that_writes_is_told_without_provocation() {
    isolated!(a_client_that_writes_is_told_without_provocation, {
        let mut world = World::new();
        world.load(&all_but(&[]));
        world.look();
        let mut client = world.reach(&world.bed.outside, VIPS[0], PODS[0]);
        world.load(&all_but(&[PODS[0], PODS[1]]));
        assert_eq!(world.look().len(), 1);
        assert_eq!(ask(&mut client), Err(ErrorKind::ConnectionReset));
    });
}

/// The kernel ends the very socket.
#[test]
fn a_process_of_the_node_is_told() {
    isolated!(a_process_of_the_node_is_told, {
        let mut world = World::new();
        world.load(&all_but(&[]));
        world.look();
        for to in [VIPS, NODE_PORTS].concat() {
            let family = usize::from(at(to).is_ipv6()) * 2;
            let (gone, other) = (PODS[family], PODS[family + 1]);
            let mut client = world.reach(&world.bed.node, to, gone);
            let mut neighbour = world.reach(&world.bed.node, to, other);
            world.load(&all_but(&[gone]));
            assert_eq!(world.look(), [], "{to}: nobody has to be provoked");
            assert_eq!(wait(&mut client), ErrorKind::ConnectionAborted, "{to}");
            assert_eq!(ask(&mut neighbour), Ok(at(other)), "{to}");
            world.load(&all_but(&[]));
            world.look();
        }
    });
}

/// R-RESET-3; the connection lives on although no new one comes here.
#[test]
fn an_endpoint_that_terminates_keeps_its_connections() {
    isolated!(an_endpoint_that_terminates_keeps_its_connections, {
        let mut world = World::new();
        world.load(&all_but(&[]));
        world.look();
        let mut client = world.reach(&world.bed.outside, VIPS[0], PODS[0]);
        for serving in [true, false] {
            let out = Endpoint {
                ready: false,
                serving,
                terminating: true,
                ..Endpoint::ready(at(PODS[0]))
            };
            world.load(&[vec![out], all_but(&[PODS[0]])].concat());
            assert_eq!(world.reset(), 0);
            assert_eq!(ask(&mut client), Ok(at(PODS[0])));
        }
    });
}

/// R-RESET-2.
#[test]
fn a_client_that_was_never_answered_finds_another_endpoint() {
    isolated!(a_client_that_was_never_answered_finds_another_endpoint, {
        let mut world = World::new();
        world.load(&[Endpoint::ready(at(SILENT))]);
        world.look();
        let client = world.bed.outside.netns.try_clone().unwrap();
        let client = std::thread::spawn(move || {
            let mut stream = client.run(|| open(at(VIPS[0]), None)).unwrap();
            ask(&mut stream).unwrap()
        });
        let opening = |world: &mut World| {
            let seen = std::cell::Cell::new(false);
            let tell = |_: &_| {
                seen.set(true);
                portolan_model::reset::Fate::Stays
            };
            world
                .conntrack
                .connections(tell, 0, &mut Vec::new())
                .unwrap();
            seen.get()
        };
        let deadline = Instant::now() + PATIENCE;
        while !opening(&mut world) {
            assert!(Instant::now() < deadline, "no SYN is sent");
            std::thread::yield_now();
        }
        world.load(&all_but(&[]));
        assert_eq!(world.reset(), 0);
        assert!(!opening(&mut world));
        assert_eq!(client.join().unwrap().port(), 8080);
    });
}

/// The same four numbers again while the old connection is still being reset.
#[test]
fn a_new_connection_from_the_same_port_is_let_through() {
    isolated!(a_new_connection_from_the_same_port_is_let_through, {
        let mut world = World::new();
        world.load(&all_but(&[PODS[1]]));
        world.look();
        let here = Some(at("192.168.0.1:4000"));
        let open = || open(at(VIPS[0]), here);
        let mut client = world.bed.outside.run(open).unwrap();
        assert_eq!(ask(&mut client), Ok(at(PODS[0])));
        world.load(&all_but(&[PODS[0]]));
        assert_eq!(world.reset(), 1);
        assert_eq!(wait(&mut client), ErrorKind::ConnectionReset);
        drop(client);
        let mut client = world.bed.outside.run(open).unwrap();
        assert_eq!(ask(&mut client), Ok(at(PODS[1])));
        assert_eq!(ask(&mut client), Ok(at(PODS[1])));
    });
}

#[test]
fn more_than_there_is_room_for_is_said() {
    isolated!(more_than_there_is_room_for_is_said, {
        let mut world = World::new();
        world.load(&all_but(&[]));
        let clients: Vec<TcpStream> = (0..3)
            .map(|_| world.reach(&world.bed.outside, VIPS[0], PODS[0]))
            .collect();
        let everybody = |_: &_| portolan_model::reset::Fate::IsReset;
        let mut doomed = Vec::new();
        let whole = world.conntrack.connections(everybody, 2, &mut doomed);
        assert_eq!((whole.unwrap(), doomed.len()), (false, 2));
        drop(clients);
    });
}
