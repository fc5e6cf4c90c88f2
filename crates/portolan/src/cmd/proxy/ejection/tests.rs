//! The real thing in namespaces: conntrack, rules, checks, and servers that stop to answer.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, mpsc as std_mpsc};
use std::thread;

use ipnet::IpNet;
use portolan_dataplane::ebpf::Ebpf;
use portolan_dataplane::nftables::Nftables;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::Location;
use portolan_kernel::nft::NftTarget;
use portolan_kernel::topology::Host;
use portolan_kernel::{EbpfTarget, isolated, mount, namespace};
use portolan_model::sync::Pace;
use portolan_model::{Endpoint, NodeFacts, PortKey, Protocol, ServicePort, Snapshot};
use portolan_reflect::Problems;

use super::*;
use crate::cmd::proxy::{flows, sync};

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(20);
const VIP: &str = "172.30.0.1:80";
const CLIENTS: usize = 4;
/// Clients that are connected give up after this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Lets some time pass; no test depends on how much.
fn pause(ms: u64) {
    let (_hold, never) = std_mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(ms));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        pause(2);
    }
}

/// A server that says its address to whoever says something.
struct Pod {
    host: Host,
    gateway: IpAddr,
    address: SocketAddr,
    is_hung: Arc<(Mutex<bool>, Condvar)>,
    delay_ms: Arc<AtomicU64>,
}

impl Pod {
    fn new(node: &Host, index: usize) -> Pod {
        let host = Host::new().unwrap();
        let (near, far) = (format!("10.1.{index}.1/24"), format!("10.1.{index}.2/24"));
        node.join(
            &format!("pod{index}"),
            &[net(&near)],
            &host,
            "eth0",
            &[net(&far)],
        )
        .unwrap();
        host.route(net("0.0.0.0/0"), net(&near).addr()).unwrap();
        let pod = Pod {
            host,
            gateway: net(&near).addr(),
            address: SocketAddr::new(net(&far).addr(), 8080),
            is_hung: Arc::default(),
            delay_ms: Arc::default(),
        };
        pod.serve();
        pod
    }

    fn serve(&self) {
        let address = self.address;
        let open = || TcpListener::bind(address).unwrap();
        let listener = self.host.run(open).unwrap();
        let (is_hung, delay_ms) = (Arc::clone(&self.is_hung), Arc::clone(&self.delay_ms));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let hung = is_hung.0.lock().unwrap();
                drop(is_hung.1.wait_while(hung, |hung| *hung).unwrap());
                let delay_ms = delay_ms.load(Ordering::Relaxed);
                thread::spawn(move || {
                    pause(delay_ms);
                    let mut stream = stream.unwrap();
                    if stream.read(&mut [0; 8]).is_ok_and(|length| length > 0) {
                        let _ = stream.write_all(address.to_string().as_bytes());
                    }
                });
            }
        });
    }

    /// As when its process gets SIGSTOP: the kernel goes on taking connections.
    fn hang(&self, hangs: bool) {
        *self.is_hung.0.lock().unwrap() = hangs;
        self.is_hung.1.notify_all();
    }

    fn cut_off(&self) {
        self.host.links().unwrap().down("eth0").unwrap();
    }

    fn join_again(&self) {
        self.host.links().unwrap().up("eth0").unwrap();
        self.host.route(net("0.0.0.0/0"), self.gateway).unwrap();
    }
}

/// A node with pods, a client, and the threads of the proxy that are about endpoints.
struct World {
    node: Host,
    pods: Vec<Pod>,
    said: watch::Sender<Option<Reflection>>,
    telemetry: Arc<Telemetry>,
    events: mpsc::Receiver<report::Told>,
    load: Load,
}

/// Where programs stand.
#[derive(Clone)]
struct Programs {
    cgroup: Arc<Cgroup>,
    location: Location,
}

impl Programs {
    /// `None`, told aloud, without root: programs at cgroups are for root only.
    fn new() -> Option<Programs> {
        if !namespace::is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            eprintln!("SKIPPED: programs at cgroups need root");
            return None;
        }
        mount::bpffs(std::path::Path::new("/sys/fs/bpf")).unwrap();
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).unwrap();
        location.cgroup = cgroup.path().into();
        Some(Programs {
            cgroup: Arc::new(cgroup),
            location,
        })
    }
}

#[derive(Clone, Default)]
struct Load {
    answers: Arc<Mutex<BTreeMap<SocketAddr, usize>>>,
    failures: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    cgroup: Option<Arc<Cgroup>>,
}

impl World {
    fn new(count: usize) -> World {
        World::of(count, None)
    }

    fn of(count: usize, programs: Option<Programs>) -> World {
        let node = Host::router().unwrap();
        let pods: Vec<Pod> = (1..=count).map(|index| Pod::new(&node, index)).collect();
        let client = Host::new().unwrap();
        let (near, far) = ([net("10.1.99.1/24")], [net("10.1.99.2/24")]);
        node.join("pod99", &near, &client, "eth0", &far).unwrap();
        client.route(net("0.0.0.0/0"), near[0].addr()).unwrap();
        let telemetry = Arc::new(Telemetry::new(Duration::from_secs(30)));
        let (said, for_watcher) = watch::channel(None);
        let (for_events, events) = mpsc::channel(report::EVENTS_WAITING_MAX);
        let location = programs.as_ref().map(|programs| &programs.location);
        let start = || start(for_watcher, for_events, &telemetry, location);
        node.run(start).unwrap();
        let world = World {
            node,
            pods,
            said,
            telemetry,
            events,
            load: Load {
                cgroup: programs
                    .as_ref()
                    .map(|programs| Arc::clone(&programs.cgroup)),
                ..Load::default()
            },
        };
        world.say(count);
        let ask = || {
            world.load.join();
            world.load.ask(PATIENCE)
        };
        let answers = || client.run(ask).unwrap();
        until("the Service answers", || answers().is_ok());
        for _ in 0..CLIENTS {
            let load = world.load.clone();
            let work = move || drop(thread::spawn(move || load.run()));
            client.run(work).unwrap();
        }
        // From now on silence is news.
        until("all have answered a check", || {
            count == 1 || world.checks("answered") >= count
        });
        world
    }

    /// The API lists the first `count` pods.
    fn say(&self, count: usize) {
        let node = NodeFacts {
            name: "n1".into(),
            ..NodeFacts::default()
        };
        let key = PortKey::new("shop", "web", "", Protocol::Tcp);
        let pods = self.pods.iter().take(count);
        let mut snapshot = Snapshot::new(node);
        snapshot.set(ServicePort {
            cluster_ips: vec![ip("172.30.0.1")],
            endpoints: pods.map(|pod| Endpoint::ready(pod.address)).collect(),
            ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
        });
        self.said.send_replace(Some(Reflection {
            snapshot: Arc::new(snapshot),
            problems: Problems::default(),
            triggered: std::collections::BTreeMap::new(),
            received: None,
            node_eligible: true,
        }));
    }

    /// Who is out, and why.
    fn out(&self) -> BTreeMap<SocketAddr, String> {
        let json = self.telemetry.ejection.json();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_string();
        let one = |out: &serde_json::Value| {
            assert_eq!(out["servicePorts"][0], "shop/web/TCP");
            (
                text(&out["endpoint"]).parse().unwrap(),
                text(&out["reason"]),
            )
        };
        json.as_array().unwrap().iter().map(one).collect()
    }

    fn is_out(&self, index: usize, reason: &str) -> bool {
        self.out()
            .get(&self.pods[index].address)
            .map(String::as_str)
            == Some(reason)
    }

    fn checks(&self, answer: &str) -> usize {
        self.number(&format!(
            "portolan_endpoint_checks_total{{answer=\"{answer}\"}} "
        ))
    }

    fn number(&self, name: &str) -> usize {
        let text = self.telemetry.text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |number| number.parse().unwrap())
    }

    fn event(&mut self) -> &'static str {
        self.events.blocking_recv().unwrap().reason
    }

    /// Connections that programs have made.
    fn connected(&self) -> usize {
        self.number("portolan_sockets_total{outcome=\"connected\"} ")
    }

    fn failures(&self) -> usize {
        self.load.failures.lock().unwrap().len()
    }

    /// Requests that are answered from now on, until `enough` have been, and by whom.
    fn answered(&self, enough: usize) -> BTreeMap<SocketAddr, usize> {
        self.load.answers.lock().unwrap().clear();
        let count = || self.load.answers.lock().unwrap().values().sum::<usize>();
        until("clients are served", || count() >= enough);
        self.load.answers.lock().unwrap().clone()
    }
}

/// The threads of a node, in its namespace, and the runtime that they need.
fn start(
    said: watch::Receiver<Option<Reflection>>,
    events: mpsc::Sender<report::Told>,
    telemetry: &Arc<Telemetry>,
    location: Option<&Location>,
) {
    let (conntrack, flows) = senses().unwrap();
    let own = waiting().unwrap();
    let ear = own.block_on(async { Ear::of(flows) }).unwrap();
    let (wanted, reflections) = watch::channel(None);
    let (problems, _) = mpsc::channel(1);
    let watcher = Watcher {
        conntrack,
        ear,
        detector: Detector::new(Config::default()),
        overlay: Overlay::default(),
        checks: JoinSet::new(),
        own: check::Own::default(),
        said,
        wanted,
        dials: Dials::new(mpsc::channel(1).1),
        reporter: Reporter {
            node: "n1".into(),
            events,
        },
        telemetry: Arc::clone(telemetry),
    };
    let (stop, stopped) = watch::channel(());
    let (release, released) = watch::channel(());
    let sync = sync::Loop {
        flows: flows::Flows::open(None, &Location::default().pins).unwrap(),
        reflections,
        standing: watch::channel(None).0,
        problems,
        told: Problems::default(),
        telemetry: Arc::clone(telemetry),
        stopped,
        released,
        stands: watch::channel(false).0,
    };
    let programs = location.map(|location| EbpfTarget::open(location).unwrap());
    if let Some(programs) = &programs {
        telemetry.sockets.are_noted(programs.notes());
    }
    let target = NftTarget::open().unwrap();
    thread::spawn(move || watcher.run(&own));
    thread::spawn(move || {
        // It is never stopped.
        let _ends = (stop, release);
        match programs {
            Some(programs) => sync.run(Ebpf, programs, Pace::default()),
            None => sync.run(Nftables, target, Pace::default()),
        }
    });
}

impl Load {
    /// The sockets of this thread are in the cgroup of the programs, if there are some.
    fn join(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.join().unwrap();
        }
    }

    fn run(&self) {
        self.join();
        while !self.is_over.load(Ordering::Relaxed) {
            match self.ask(PATIENCE) {
                Ok(who) => *self.answers.lock().unwrap().entry(who).or_default() += 1,
                Err(error) => self.failures.lock().unwrap().push(error.to_string()),
            }
            pause(5);
        }
    }

    /// Who answers.
    fn ask(&self, patience: Duration) -> std::io::Result<SocketAddr> {
        let mut stream = TcpStream::connect_timeout(&VIP.parse().unwrap(), patience)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(b"?")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        text.parse().map_err(std::io::Error::other)
    }
}

#[test]
fn a_process_that_hangs_is_out_until_it_goes_on() {
    isolated!(a_process_that_hangs_is_out_until_it_goes_on, {
        let mut world = World::new(3);
        world.pods[1].hang(true);
        until("it is out", || world.is_out(1, "silent"));
        assert_eq!(world.out().len(), 1);
        assert_eq!(world.event(), "EndpointEjected");
        let others = BTreeSet::from([world.pods[0].address, world.pods[2].address]);
        // Those who were with it give up, and nobody comes to it again.
        until("nobody waits for it", || {
            let before = world.failures();
            let who: BTreeSet<_> = world.answered(400).into_keys().collect();
            assert_eq!(who, others);
            world.failures() == before
        });
        world.pods[1].hang(false);
        until("it is back", || world.out().is_empty());
        assert_eq!(world.event(), "EndpointReadmitted");
        let address = world.pods[1].address;
        until("it serves", || world.answered(20).contains_key(&address));
    });
}

#[test]
fn who_connects_to_a_node_that_is_cut_off_gets_another_endpoint() {
    isolated!(
        who_connects_to_a_node_that_is_cut_off_gets_another_endpoint,
        {
            let world = World::new(3);
            world.pods[2].cut_off();
            until("it is out", || world.is_out(2, "unreachable"));
            world.answered(200);
            world.pods[2].join_again();
            until("it is back", || world.out().is_empty());
            let address = world.pods[2].address;
            until("it serves", || world.answered(20).contains_key(&address));
            let failures = world.load.failures.lock().unwrap().clone();
            // A request that was on its way when the cable was pulled may be lost; no connection is.
            let connecting = failures.iter().filter(|f| f.contains("timed out")).count();
            assert_eq!(connecting, 0, "{failures:?}");
        }
    );
}

#[test]
fn who_refuses_is_out() {
    isolated!(who_refuses_is_out, {
        let world = World::new(3);
        // The API lists one that does not listen.
        let silent = Host::new().unwrap();
        let (near, far) = ([net("10.1.50.1/24")], [net("10.1.50.2/24")]);
        world
            .node
            .join("pod50", &near, &silent, "eth0", &far)
            .unwrap();
        silent.route(net("0.0.0.0/0"), near[0].addr()).unwrap();
        let reflection = world.said.borrow().clone().unwrap();
        let mut snapshot = (*reflection.snapshot).clone();
        let mut port = (**snapshot.ports().next().unwrap()).clone();
        let refuses = SocketAddr::new(far[0].addr(), 8080);
        port.endpoints = port
            .endpoints
            .iter()
            .cloned()
            .chain([Endpoint::ready(refuses)])
            .collect();
        snapshot.set(port);
        world.said.send_replace(Some(Reflection {
            snapshot: Arc::new(snapshot),
            ..reflection
        }));
        until("it is out", || {
            world
                .out()
                .get(&refuses)
                .is_some_and(|why| why == "refused")
        });
        assert_eq!(world.out().len(), 1);
        // What the API takes away is forgotten.
        world.say(3);
        until("it is forgotten", || world.out().is_empty());
    });
}

#[test]
fn whoever_is_slow_stays() {
    isolated!(whoever_is_slow_stays, {
        let world = World::new(3);
        world.pods[0].delay_ms.store(500, Ordering::Relaxed);
        until("it was checked often", || world.checks("answered") >= 8);
        assert!(world.answered(100).contains_key(&world.pods[0].address));
        assert!(world.out().is_empty());
        assert!(
            world
                .telemetry
                .text()
                .contains("portolan_endpoints_ejected 0")
        );
    });
}

#[test]
fn no_more_than_half_of_them_go() {
    isolated!(no_more_than_half_of_them_go, {
        let mut world = World::new(4);
        world.pods[1..].iter().for_each(|pod| pod.hang(true));
        until("two are out", || world.out().len() == 2);
        let events = [world.event(), world.event(), world.event()];
        let kept = events.iter().filter(|event| **event == "EndpointKept");
        assert_eq!(kept.count(), 1, "{events:?}");
        assert_eq!(world.out().len(), 2);
        // The last two hang as well: who is out is no worse than they are.
        world.pods[0].hang(true);
        until("nobody is out", || world.out().is_empty());
    });
}

#[test]
fn a_node_that_is_cut_off_ejects_nobody() {
    isolated!(a_node_that_is_cut_off_ejects_nobody, {
        let world = World::new(3);
        world.pods.iter().for_each(Pod::cut_off);
        until("all were checked", || world.checks("unreachable") >= 9);
        assert!(!world.telemetry.text().contains("ejections_total{"));
        // Who joins last may be out for a moment: the others answer already.
        world.pods.iter().for_each(Pod::join_again);
        until("all serve again", || world.answered(20).len() == 3);
    });
}

#[test]
fn the_only_one_is_not_even_checked() {
    isolated!(the_only_one_is_not_even_checked, {
        let world = World::new(1);
        world.answered(50);
        world.pods[0].delay_ms.store(400, Ordering::Relaxed);
        world.answered(20);
        assert!(!world.telemetry.text().contains("checks_total{"));
    });
}

/// conntrack knows the connections of programs as such to the endpoint itself.
#[test]
fn a_process_that_hangs_behind_programs_is_out_until_it_goes_on() {
    isolated!(
        a_process_that_hangs_behind_programs_is_out_until_it_goes_on,
        {
            let Some(programs) = Programs::new() else {
                return;
            };
            let mut world = World::of(3, Some(programs));
            assert!(world.connected() > 0);
            world.pods[1].hang(true);
            until("it is out", || world.is_out(1, "silent"));
            assert_eq!(world.out().len(), 1);
            assert_eq!(world.event(), "EndpointEjected");
            let others = BTreeSet::from([world.pods[0].address, world.pods[2].address]);
            until("nobody waits for it", || {
                let before = world.failures();
                let who: BTreeSet<_> = world.answered(400).into_keys().collect();
                assert_eq!(who, others);
                world.failures() == before
            });
            world.pods[1].hang(false);
            until("it is back", || world.out().is_empty());
            let address = world.pods[1].address;
            until("it serves", || world.answered(20).contains_key(&address));
        }
    );
}
