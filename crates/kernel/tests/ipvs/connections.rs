//! What becomes of connections through virtual servers when endpoints and Services go.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use portolan_dataplane::ipvs::Ipvs;
use portolan_kernel::conntrack::NewFlows;
use portolan_kernel::ipvs::{Settings, Timeouts, clean_up};
use portolan_kernel::topology::Host;
use portolan_kernel::{Conntrack, IpvsTarget};
use portolan_model::health::{FlowKey, FlowState};
use portolan_model::{Affinity, Backend, Endpoint, Protocol, ServicePort, Target};

use crate::bed::{Bed, PATIENCE as SHORT, ask, at, serve};
use crate::servers::{listed, open, said, web};

const PODS: [&str; 2] = ["10.1.1.2:8080", "10.1.1.3:8080"];
/// The machine is slow, and so is IPVS with what it forgets.
const PATIENCE: Duration = Duration::from_secs(3 * SHORT.as_secs());
const SERVICE: &str = "172.30.0.1:80";

const SETTINGS: Settings = Settings {
    strict_arp: false,
    timeouts: Timeouts {
        tcp_s: 0,
        tcp_fin_s: 0,
        udp_s: 0,
    },
};

/// Ends a connection with a reset: IPVS forgets it after ten seconds, one that is closed after two minutes.
fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

struct World {
    bed: Bed,
    target: IpvsTarget,
}

impl World {
    fn new(port: ServicePort) -> World {
        // The host of the pods has addresses of both families.
        let bed = Bed::new(&[PODS[0], PODS[1], "[fd00:10:1:1::2]:8080"]);
        let target = open(&bed.node, SETTINGS);
        let mut world = World { bed, target };
        world.load(port);
        world
    }

    fn load(&mut self, port: ServicePort) {
        self.bed.snapshot.set(port);
        self.stand();
    }

    fn stand(&mut self) {
        let ipvs = Ipvs::default();
        let (state, _) = ipvs.compile(&self.bed.snapshot);
        let standing = self.target.read().unwrap();
        self.target
            .apply(&ipvs.diff(standing.as_ref(), &state))
            .unwrap();
        assert!(self.target.read().unwrap() == Some(state));
    }

    fn connect(&self, from: &Host) -> (TcpStream, SocketAddr) {
        let open = || TcpStream::connect_timeout(&at(SERVICE), PATIENCE);
        let mut stream = from.run(open).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let answered = ask(&mut stream).unwrap();
        (stream, answered)
    }

    /// Waits until a look at what drains has taken away everything else than these many lines.
    fn drained(&mut self, lines: usize) {
        let deadline = Instant::now() + PATIENCE;
        while listed(&self.bed.node).len() != lines {
            assert!(Instant::now() < deadline, "{:?}", listed(&self.bed.node));
            self.target.drain().unwrap();
        }
    }
}

fn tcp(endpoints: &[&str]) -> ServicePort {
    web(Protocol::Tcp, endpoints)
}

/// R-DRAIN-1, from outside and from the node itself.
pub(crate) fn a_connection_outlives_its_endpoint_and_its_service() {
    let mut world = World::new(tcp(&PODS));
    PODS.iter().for_each(|pod| serve(&world.bed.pods, at(pod)));
    let (mut old, first) = world.connect(&world.bed.outside);
    let (mut own, second) = world.connect(&world.bed.node);
    assert_ne!(first, second, "round robin");
    let left: Vec<&str> = PODS.into_iter().filter(|pod| at(pod) != first).collect();
    world.load(tcp(&left));
    assert_eq!(ask(&mut old), Ok(first));
    for _ in 0..4 {
        let (stream, answered) = world.connect(&world.bed.outside);
        assert_eq!(answered, second);
        reset(stream);
    }
    // A new process takes over what drains.
    world.target = open(&world.bed.node, SETTINGS);
    world.stand();
    assert_eq!(ask(&mut old), Ok(first));
    // It comes back and goes again.
    world.load(tcp(&PODS));
    world.load(tcp(&left));
    assert_eq!(ask(&mut old), Ok(first));
    world.bed.snapshot.remove(&tcp(&[]).key);
    world.stand();
    assert_eq!(ask(&mut old), Ok(first));
    assert_eq!(ask(&mut own), Ok(second));
    reset(old);
    world.drained(2);
    assert_eq!(ask(&mut own), Ok(second));
    reset(own);
    world.drained(0);
}

/// R-AFFINITY-1, R-AFFINITY-4.
pub(crate) fn a_client_is_remembered_until_its_endpoint_goes() {
    let sticky = |endpoints: &[&str]| {
        let timeout = Duration::from_secs(3600);
        ServicePort {
            affinity: Some(Affinity { timeout }),
            ..tcp(endpoints)
        }
    };
    let mut world = World::new(sticky(&PODS));
    PODS.iter().for_each(|pod| serve(&world.bed.pods, at(pod)));
    let (_open, first) = world.connect(&world.bed.outside);
    for _ in 0..6 {
        assert_eq!(world.connect(&world.bed.outside).1, first);
    }
    let left: Vec<&str> = PODS.into_iter().filter(|pod| at(pod) != first).collect();
    world.load(sticky(&left));
    let (_open, other) = world.connect(&world.bed.outside);
    assert_eq!(other, at(left[0]));
    world.load(sticky(&PODS));
    assert_eq!(world.connect(&world.bed.outside).1, other);
}

/// Answers every datagram with its own address, until the test ends.
fn echo(host: &Host, here: SocketAddr) {
    let socket = host.run(|| UdpSocket::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
            let _ = socket.send_to(here.to_string().as_bytes(), from);
        }
    });
}

/// R-STALE-1, R-STALE-3.
pub(crate) fn a_udp_client_leaves_the_endpoint_that_is_gone_and_only_that() {
    let udp = |endpoints: &[&str]| web(Protocol::Udp, endpoints);
    let mut world = World::new(udp(&PODS));
    PODS.iter().for_each(|pod| echo(&world.bed.pods, at(pod)));
    let client = || UdpSocket::bind(at("192.168.0.1:40000"));
    let client = world.bed.outside.run(client).unwrap().unwrap();
    client.connect(at(SERVICE)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let answer = || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            client.send(b"?").unwrap();
            let mut text = [0; 64];
            if let Ok(length) = client.recv(&mut text) {
                return at(std::str::from_utf8(&text[..length]).unwrap());
            }
            assert!(Instant::now() < deadline, "nobody answers");
        }
    };
    let first = answer();
    let draining = |endpoint: &Endpoint| Endpoint {
        ready: endpoint.address != first,
        terminating: endpoint.address == first,
        ..endpoint.clone()
    };
    let mut port = udp(&PODS);
    port.endpoints = port.endpoints.iter().map(draining).collect();
    world.load(port);
    for _ in 0..4 {
        assert_eq!(answer(), first, "it serves while it terminates");
    }
    let left: Vec<&str> = PODS.into_iter().filter(|pod| at(pod) != first).collect();
    world.load(udp(&left));
    assert_eq!(answer(), at(left[0]));
}

/// R-HEALTH-5, R-HEALTH-9: conntrack names the endpoint that a virtual server has chosen, and forgets who waits for it.
pub(crate) fn who_waits_for_an_ejected_endpoint_gets_another_one() {
    let mut world = World::new(tcp(&PODS[..1]));
    serve(&world.bed.pods, at(PODS[1]));
    let cut =
        "table ip cut { chain in { type filter hook input priority 0; ip daddr 10.1.1.2 drop; }; }";
    said(&world.bed.pods, &["nft", cut]);
    let mut heard = world.bed.node.run(NewFlows::open).unwrap().unwrap();
    heard.listen().unwrap();
    let mut conntrack = world.bed.node.run(Conntrack::open).unwrap().unwrap();
    let open = || TcpStream::connect_timeout(&at(SERVICE), PATIENCE);
    let client = world.bed.outside.run(|| thread::spawn(open)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut found = None;
    while found.is_none() {
        assert!(Instant::now() < deadline, "nothing is heard");
        let tell = |key: FlowKey, replier| found = Some((key, replier));
        heard.take(1, tell).unwrap();
    }
    let (key, replier) = found.unwrap();
    assert_eq!(key.destination, at(SERVICE));
    assert_eq!(replier.address, at(PODS[0]));
    assert_eq!(conntrack.look(&key).unwrap(), FlowState::Unanswered);
    world.load(tcp(&PODS[1..]));
    assert_eq!(conntrack.leave(&[replier].into()).unwrap(), 1);
    let mut stream = client.join().unwrap().unwrap();
    assert_eq!(ask(&mut stream), Ok(at(PODS[1])));
}

/// Another mode takes over: what has connections stays until it has none, and so does the way to it.
pub(crate) fn cleaning_up_waits_for_connections() {
    let mut world = World::new(tcp(&PODS));
    PODS.iter().for_each(|pod| serve(&world.bed.pods, at(pod)));
    let (mut old, first) = world.connect(&world.bed.outside);
    let clean = |world: &World| world.bed.node.run(clean_up).unwrap().unwrap();
    clean(&world);
    world.bed.target.remove().unwrap();
    assert_eq!(ask(&mut old), Ok(first));
    assert_eq!(listed(&world.bed.node).len(), 2);
    reset(old);
    let deadline = Instant::now() + PATIENCE;
    while !listed(&world.bed.node).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", listed(&world.bed.node));
        clean(&world);
    }
    assert_eq!(said(&world.bed.node, &["nft", "list", "tables"]), "");
    assert!(!said(&world.bed.node, &["ip", "rule"]).contains("fwmark"));
}
