//! Endpoints that terminate get no new connections and keep their old ones, whatever happens to the rules meanwhile.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use portolan_kernel::topology::Host;
use portolan_kernel::{Conntrack, isolated};
use portolan_model::{Affinity, Endpoint, Family, PortKey, Protocol, ServicePort, Sweeper};

use crate::bed::{Bed, PATIENCE, ask, at, program, serve};

/// So many new connections that one of two endpoints would be left out by chance once in a million.
const ENOUGH: usize = 20;

const PODS: [&str; 6] = [
    "10.1.1.2:8080",
    "10.1.1.3:8080",
    "10.1.1.4:8080",
    "[fd00:10:1:1::2]:8080",
    "[fd00:10:1:1::3]:8080",
    "[fd00:10:1:1::4]:8080",
];
const ADDRESSES: [&str; 4] = [
    "172.30.0.1:80",
    "[fd00:172:30::1]:80",
    "192.168.0.11:30080",
    "[fd00:192:168::11]:30080",
];

/// The endpoints of one family, in their order.
fn pods(to: &str) -> [SocketAddr; 3] {
    let first = usize::from(at(to).is_ipv6()) * 3;
    [0, 1, 2].map(|index| at(PODS[first + index]))
}

struct World {
    bed: Bed,
    conntrack: Conntrack,
    sweeper: Sweeper,
    time: Duration,
}

impl World {
    fn new() -> World {
        let bed = Bed::new(&PODS);
        PODS.iter().for_each(|pod| serve(&bed.pods, at(pod)));
        World {
            conntrack: bed.node.run(Conntrack::open).unwrap().unwrap(),
            bed,
            sweeper: Sweeper::default(),
            time: Duration::ZERO,
        }
    }

    /// Programs the rules and does what the proxy does after that; `anew` takes nothing over from what stands.
    fn stand(&mut self, anew: bool) {
        program(&mut self.bed.target, &self.bed.snapshot, anew);
        self.sweeper.on_stands(&self.bed.snapshot);
        if let Some(sweep) = self.sweeper.begin(self.time) {
            for protocol in sweep.protocols() {
                let is_stale = |flow: &_| sweep.is_stale(flow);
                for family in Family::ALL {
                    let swept = self.conntrack.sweep(family, protocol, is_stale, &mut 0);
                    swept.unwrap();
                }
            }
        }
        self.sweeper.end(self.time, Duration::ZERO, true);
    }

    fn load(&mut self, port: ServicePort) {
        self.bed.snapshot.set(port);
        self.stand(false);
    }

    /// A connection through the Service to this endpoint.
    fn reach(&self, host: &Host, to: &str, endpoint: SocketAddr) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (stream, answered) = self.connect(host, to);
            if answered == endpoint {
                return stream;
            }
            assert!(Instant::now() < deadline, "{endpoint} never answers");
        }
    }

    fn connect(&self, host: &Host, to: &str) -> (TcpStream, SocketAddr) {
        let open = || TcpStream::connect_timeout(&at(to), PATIENCE);
        let mut stream = host.run(open).unwrap().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let answered = ask(&mut stream).unwrap();
        (stream, answered)
    }

    /// Who answers new connections.
    fn new_ones(&self, host: &Host, to: &str) -> BTreeSet<SocketAddr> {
        (0..ENOUGH).map(|_| self.connect(host, to).1).collect()
    }
}

/// Conditions of an endpoint.
#[derive(Clone, Copy)]
enum Is {
    Ready,
    /// It serves while it terminates.
    Draining,
    /// It terminates, and serves no more.
    Ending,
}

fn endpoint(address: SocketAddr, is: Is) -> Endpoint {
    Endpoint {
        ready: matches!(is, Is::Ready),
        serving: !matches!(is, Is::Ending),
        terminating: !matches!(is, Is::Ready),
        ..Endpoint::ready(address)
    }
}

/// The Service, whose endpoints are so in both families.
fn web(conditions: &[(usize, Is)]) -> ServicePort {
    let families = [ADDRESSES[0], ADDRESSES[1]];
    let all = families.iter().flat_map(|to| {
        let of = |(index, is): &(usize, Is)| endpoint(pods(to)[*index], *is);
        conditions.iter().map(of)
    });
    ServicePort {
        cluster_ips: families.map(|to| at(to).ip()).to_vec(),
        node_port: NonZeroU16::new(30080),
        families: Family::ALL.into(),
        endpoints: all.collect(),
        ..service("web")
    }
}

fn service(name: &str) -> ServicePort {
    ServicePort::new(
        PortKey::new("shop", name, "", Protocol::Tcp),
        NonZeroU16::new(80).unwrap(),
    )
}

/// R-DRAIN-1, R-TERMINATING-3.
#[test]
fn an_endpoint_that_terminates_gets_no_new_connections_and_keeps_its_old_ones() {
    isolated!(
        an_endpoint_that_terminates_gets_no_new_connections_and_keeps_its_old_ones,
        {
            let mut world = World::new();
            world.load(web(&[(0, Is::Ready), (1, Is::Ready)]));
            let hosts = [&world.bed.outside, &world.bed.node];
            let mut clients: Vec<(TcpStream, SocketAddr)> = Vec::new();
            for (host, to) in hosts.into_iter().flat_map(|h| ADDRESSES.map(|to| (h, to))) {
                let leaving = pods(to)[0];
                clients.push((world.reach(host, to, leaving), leaving));
            }
            for is in [Is::Draining, Is::Ending] {
                world.load(web(&[(0, is), (1, Is::Ready)]));
                for to in ADDRESSES {
                    let ready = BTreeSet::from([pods(to)[1]]);
                    assert_eq!(world.new_ones(&world.bed.outside, to), ready, "{to}");
                    assert_eq!(world.new_ones(&world.bed.node, to), ready, "{to}");
                }
                for (client, leaving) in &mut clients {
                    assert_eq!(ask(client), Ok(*leaving));
                }
            }
        }
    );
}

/// R-DRAIN-1.
#[test]
fn a_connection_outlives_every_change_of_the_rules() {
    isolated!(a_connection_outlives_every_change_of_the_rules, {
        let mut world = World::new();
        world.load(web(&[(0, Is::Ready), (1, Is::Ready)]));
        let mut clients: Vec<(TcpStream, SocketAddr)> = ADDRESSES
            .iter()
            .map(|to| {
                (
                    world.reach(&world.bed.outside, to, pods(to)[0]),
                    pods(to)[0],
                )
            })
            .collect();
        let mut alive = |after: &str| {
            for (client, endpoint) in &mut clients {
                assert_eq!(ask(client), Ok(*endpoint), "{after}");
            }
        };
        world.load(web(&[(0, Is::Draining), (1, Is::Ready)]));
        alive("the endpoint terminates");
        world.load(ServicePort {
            cluster_ips: vec!["172.30.0.2".parse().unwrap()],
            endpoints: [Endpoint::ready(pods(ADDRESSES[0])[2])].into(),
            ..service("other")
        });
        alive("another Service comes");
        world.load(web(&[(0, Is::Draining), (1, Is::Ready), (2, Is::Ready)]));
        alive("another endpoint comes");
        world.stand(true);
        alive("all rules are written anew");
        world.load(ServicePort {
            node_port: NonZeroU16::new(30081),
            ..web(&[(0, Is::Draining), (2, Is::Ready)])
        });
        alive("the NodePort moves");
        world.load(web(&[(1, Is::Ready)]));
        alive("the endpoint is listed no more");
        world.bed.snapshot.remove(&web(&[]).key);
        world.stand(false);
        alive("the Service is gone");
    });
}

/// R-DRAIN-1, R-TERMINATING-1.
#[test]
fn when_all_terminate_those_that_serve_take_over() {
    isolated!(when_all_terminate_those_that_serve_take_over, {
        let mut world = World::new();
        world.load(web(&[(0, Is::Ready), (1, Is::Ready), (2, Is::Ready)]));
        for to in ADDRESSES {
            let [first, second, third] = pods(to);
            let mut client = world.reach(&world.bed.outside, to, third);
            let all = [(0, Is::Draining), (1, Is::Draining), (2, Is::Ending)];
            world.load(web(&all));
            let serving = BTreeSet::from([first, second]);
            assert_eq!(world.new_ones(&world.bed.outside, to), serving, "{to}");
            assert_eq!(ask(&mut client), Ok(third), "{to}");
            let mut late = world.reach(&world.bed.outside, to, first);
            world.load(web(&[(0, Is::Draining), (1, Is::Draining), (2, Is::Ready)]));
            let ready = BTreeSet::from([third]);
            assert_eq!(world.new_ones(&world.bed.outside, to), ready, "{to}");
            assert_eq!(ask(&mut late), Ok(first), "{to}");
            world.load(web(&[(0, Is::Ready), (1, Is::Ready), (2, Is::Ready)]));
        }
    });
}

/// R-DRAIN-1, R-AFFINITY-4: the kernel remembers the client, and does not lead it to where it must not go.
#[test]
fn a_client_with_affinity_keeps_its_connection_and_starts_elsewhere() {
    isolated!(
        a_client_with_affinity_keeps_its_connection_and_starts_elsewhere,
        {
            let mut world = World::new();
            let sticky = |conditions: &[(usize, Is)]| ServicePort {
                affinity: Some(Affinity {
                    timeout: Duration::from_secs(10_800),
                }),
                ..web(conditions)
            };
            for to in ADDRESSES {
                world.load(sticky(&[(0, Is::Ready)]));
                let (mut client, first) = world.connect(&world.bed.outside, to);
                world.load(sticky(&[(0, Is::Draining), (1, Is::Ready)]));
                let second = BTreeSet::from([pods(to)[1]]);
                assert_eq!(world.new_ones(&world.bed.outside, to), second, "{to}");
                assert_eq!(ask(&mut client), Ok(first), "{to}");
            }
        }
    );
}
