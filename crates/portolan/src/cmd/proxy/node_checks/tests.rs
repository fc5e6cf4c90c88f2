//! Real HTTP, in a namespace of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::num::NonZeroU16;
use std::time::Instant;

use portolan_kernel::{Links, isolated};
use portolan_model::{Endpoint, Family, NodeFacts, PortKey, Protocol, ServicePort};
use portolan_reflect::Reflection;

use super::*;

const V4: &str = "192.168.0.11:31000";
const V6: &str = "[fd00:192:168::11]:31000";
/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers on their own thread, the Snapshots that they follow, and what they tell.
struct World {
    standing: watch::Sender<Option<Snapshot>>,
    problems: mpsc::Receiver<Vec<Problem>>,
    telemetry: Arc<Telemetry>,
    snapshot: Snapshot,
}

impl World {
    fn new(patience: Duration) -> World {
        let mut links = Links::here().unwrap();
        links.up("lo").unwrap();
        for address in ["192.168.0.11/32", "fd00:192:168::11/128"] {
            links.add_address("lo", address.parse().unwrap()).unwrap();
        }
        let (standing, for_servers) = watch::channel(None);
        let (for_problems, problems) = mpsc::channel(64);
        let telemetry = Arc::new(Telemetry::new(patience));
        let servers = Servers::new(Arc::clone(&telemetry));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let retry = Duration::from_millis(20);
            let done = servers.follow(for_servers, for_problems, retry);
            runtime.unwrap().block_on(done).unwrap();
        });
        let addresses = [V4, V6].map(|at| at.parse::<SocketAddr>().unwrap().ip());
        let node = NodeFacts {
            name: "n1".into(),
            node_port_addresses: addresses.into(),
            ..NodeFacts::default()
        };
        World {
            standing,
            problems,
            telemetry,
            snapshot: Snapshot::new(node),
        }
    }

    fn set(&mut self, name: &str, endpoints: &[&str]) {
        let local = |text: &&str| Endpoint {
            local: true,
            ..Endpoint::ready(text.parse().unwrap())
        };
        self.snapshot.set(ServicePort {
            families: Family::ALL.into(),
            health_check_node_port: NonZeroU16::new(31000),
            endpoints: endpoints.iter().map(local).collect(),
            ..ServicePort::new(key(name), NonZeroU16::MIN)
        });
        self.stands();
    }

    fn stands(&self) {
        self.standing.send_replace(Some(self.snapshot.clone()));
    }

    fn problem(&mut self) -> Problem {
        self.problems.blocking_recv().unwrap().swap_remove(0)
    }
}

fn key(name: &str) -> PortKey {
    PortKey::new("shop", name, "", Protocol::Tcp)
}

/// The whole answer without its date; `None` when nobody listens.
fn ask(at: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let lines = text
        .split("\r\n")
        .filter(|line| !line.starts_with("Date: "));
    Some(lines.collect::<Vec<_>>().join("\r\n"))
}

fn until(at: &str, wanted: Option<&str>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = ask(at);
        if seen.as_deref() == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{at}: {seen:?}");
        std::thread::yield_now();
    }
}

fn expected(status: &str, count: usize, healthy: bool) -> String {
    expected_of("web", status, count, healthy)
}

fn expected_of(name: &str, status: &str, count: usize, healthy: bool) -> String {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nX-Load-Balancing-Endpoint-Weight: {count}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

const GOOD: &str = "200 OK";
const BAD: &str = "503 Service Unavailable";

/// R-CHECK-1, R-CHECK-2.
#[test]
fn load_balancers_are_told_what_kube_proxy_tells_them() {
    isolated!(load_balancers_are_told_what_kube_proxy_tells_them, {
        let mut world = World::new(PATIENCE);
        assert_eq!(ask(V4), None);
        world.set("web", &["10.1.0.1:8080", "10.1.0.2:8080"]);
        until(V4, Some(&expected(GOOD, 2, true)));
        until(V6, Some(&expected(BAD, 0, true)));
        world.set("web", &["[fd00:10:1::1]:8080"]);
        until(V4, Some(&expected(BAD, 0, true)));
        until(V6, Some(&expected(GOOD, 1, true)));
        world.snapshot.remove(&key("web"));
        world.stands();
        until(V4, None);
        until(V6, None);
    });
}

/// R-CHECK-2.
#[test]
fn a_proxy_that_is_late_takes_its_node_out() {
    isolated!(a_proxy_that_is_late_takes_its_node_out, {
        let mut world = World::new(Duration::ZERO);
        world.set("web", &["10.1.0.1:8080"]);
        until(V4, Some(&expected(GOOD, 1, true)));
        world.telemetry.wanted(Reflection {
            snapshot: Arc::new(world.snapshot.clone()),
            problems: Default::default(),
            triggered: std::collections::BTreeMap::new(),
            received: None,
            node_eligible: true,
        });
        until(V4, Some(&expected(BAD, 1, false)));
    });
}

/// R-CHECK-3.
#[test]
fn a_port_that_is_taken_is_told_and_tried_again() {
    isolated!(a_port_that_is_taken_is_told_and_tried_again, {
        let mut world = World::new(PATIENCE);
        let taken = std::net::TcpListener::bind(V4).unwrap();
        world.set("web", &["10.1.0.1:8080"]);
        let problem = world.problem();
        assert_eq!(problem.reason, "FailedToStartServiceHealthcheck");
        assert!(
            problem
                .message
                .starts_with("node n1 cannot serve healthCheckNodePort 31000 at 192.168.0.11: "),
            "{problem}"
        );
        until(V6, Some(&expected(BAD, 0, true)));
        drop(taken);
        until(V4, Some(&expected(GOOD, 1, true)));
        // What goes from one Service to another is closed and opened.
        world.snapshot.remove(&key("web"));
        world.set("other", &["10.1.0.1:8080"]);
        until(V4, Some(&expected_of("other", GOOD, 1, true)));
    });
}
