//! A node and two pods, in a cgroup of the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use ipnet::IpNet;
use portolan_dataplane::ebpf::Ebpf;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::{Location, Notes, Outcomes};
use portolan_kernel::topology::Host;
use portolan_kernel::{EbpfTarget, mount, namespace};
use portolan_model::{
    Backend, Endpoint, LocalPods, NodeFacts, PortKey, Protocol, ServicePort, Snapshot, Target,
};
use socket2::{Domain, Socket, Type};

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a client was told.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The port of the endpoint that answered.
    pub(crate) port: u16,
    /// The source that the endpoint saw.
    pub(crate) saw: IpAddr,
    /// What getpeername(2) said.
    pub(crate) peer: SocketAddr,
}

/// ```text
///   pod 1  10.1.1.2, fd00:10:1:1::2  ── veth1 10.1.1.1 ┐ node 192.168.0.11
///   pod 2  10.1.2.2, fd00:10:1:2::2  ── veth2 10.1.2.1 ┘
/// ```
///
/// Pod 1 serves at 8080 and 8081. Clients are in pod 2 and on the node.
pub(crate) struct Bed {
    node: Host,
    pods: [Host; 2],
    cgroup: Cgroup,
    pub(crate) location: Location,
    pub(crate) target: Option<EbpfTarget>,
    pub(crate) snapshot: Snapshot,
    is_quiet: Arc<AtomicBool>,
}

impl Bed {
    /// `None`, told aloud, without root: programs at cgroups are for root only.
    pub(crate) fn new() -> Option<Bed> {
        if !namespace::is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            eprintln!("SKIPPED: programs at cgroups need root");
            return None;
        }
        mount::bpffs(Path::new("/sys/fs/bpf")).unwrap();
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).unwrap();
        location.cgroup = cgroup.path().into();
        let node = Host::router().unwrap();
        node.links()
            .unwrap()
            .add_address("lo", net("192.168.0.11/32"))
            .unwrap();
        let pods = [1, 2].map(|n| {
            let pod = Host::new().unwrap();
            let near = [
                net(&format!("10.1.{n}.1/24")),
                net(&format!("fd00:10:1:{n}::1/64")),
            ];
            let far = [
                net(&format!("10.1.{n}.2/24")),
                net(&format!("fd00:10:1:{n}::2/64")),
            ];
            node.join(&format!("veth{n}"), &near, &pod, "eth0", &far)
                .unwrap();
            pod.route(net("0.0.0.0/0"), near[0].addr()).unwrap();
            pod.route(net("::/0"), near[1].addr()).unwrap();
            pod
        });
        // Whoever meets the rules has to have a route before they translate.
        node.route(net("172.30.0.0/16"), ip("10.1.1.2")).unwrap();
        let is_quiet = Arc::new(AtomicBool::new(false));
        for address in ["10.1.1.2", "fd00:10:1:1::2"] {
            for port in [8080, 8081] {
                serve(&pods[0], SocketAddr::new(ip(address), port), &is_quiet);
                serve_datagrams(&pods[0], SocketAddr::new(ip(address), port));
            }
        }
        // Of both pods, as a container runtime shows them.
        location.namespaces = "/mnt".into();
        mount::tmpfs(&location.namespaces).unwrap();
        for (index, pod) in pods.iter().enumerate() {
            let file = location.namespaces.join(format!("cni-{index}"));
            std::fs::write(&file, "").unwrap();
            let handle = format!("/proc/self/fd/{}", pod.netns.as_raw_fd());
            mount::bind(Path::new(&handle), &file).unwrap();
        }
        let mut bed = Bed {
            node,
            pods,
            cgroup,
            location,
            target: None,
            is_quiet,
            snapshot: Snapshot::new(NodeFacts {
                name: "n1".into(),
                local_pods: LocalPods::Cidrs(vec![net("10.0.0.0/8"), net("fd00:10::/32")]),
                service_cidrs: vec![net("172.30.0.0/16"), net("fd00:172:30::/112")],
                ..NodeFacts::default()
            }),
        };
        bed.open();
        Some(bed)
    }

    /// As an agent does that starts.
    pub(crate) fn open(&mut self) {
        let location = &self.location;
        let target = self.node.run(|| EbpfTarget::open(location)).unwrap();
        self.target = Some(target.unwrap());
    }

    /// As an agent does that cleans up.
    pub(crate) fn remove(&self) {
        let location = &self.location;
        self.node
            .run(|| EbpfTarget::remove(location))
            .unwrap()
            .unwrap();
    }

    /// A Service port of two endpoints.
    pub(crate) fn named(&self, name: &str, protocol: Protocol) -> ServicePort {
        let key = PortKey::new("shop", name, "http", protocol);
        let endpoint = |text| Endpoint::ready(at(text));
        ServicePort {
            endpoints: [endpoint("10.1.1.2:8080"), endpoint("10.1.1.2:8081")].into(),
            ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
        }
    }

    /// The same in both families.
    pub(crate) fn web(&self) -> ServicePort {
        self.web_of(Protocol::Tcp)
    }

    /// The same with another protocol.
    pub(crate) fn web_of(&self, protocol: Protocol) -> ServicePort {
        let web = self.named("web", protocol);
        let mut endpoints = web.endpoints.to_vec();
        endpoints.push(Endpoint::ready(at("[fd00:10:1:1::2]:8080")));
        ServicePort {
            cluster_ips: vec![ip("172.30.0.1"), ip("fd00:172:30::1")],
            endpoints: endpoints.into(),
            ..web
        }
    }

    pub(crate) fn set(&mut self, port: ServicePort) {
        self.snapshot.set(port);
    }

    /// Brings programs and rules to the snapshot.
    pub(crate) fn stand(&mut self) {
        let (state, _) = Ebpf.compile(&self.snapshot);
        let target = self.target.as_mut().unwrap();
        let standing = target.read().unwrap();
        target.apply(&Ebpf.diff(standing.as_ref(), &state)).unwrap();
        assert!(target.read().unwrap() == Some(state));
    }

    /// What is left is what the programs do.
    pub(crate) fn flush_rules(&self) {
        let flush = || Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(self.node.run(flush).unwrap().unwrap().success());
    }

    pub(crate) fn notes(&self) -> Notes {
        self.target.as_ref().unwrap().notes()
    }

    /// A map of the programs.
    fn map(&self, name: &str) -> MapData {
        let one = |directory: &Path| {
            let mut entries = std::fs::read_dir(directory).unwrap();
            entries.next().unwrap().unwrap().path()
        };
        let pins = one(&one(&self.location.pins));
        MapData::from_pin(pins.join(name)).unwrap()
    }

    /// Puts so many entries of nobody into a map, as far as there is room.
    pub(crate) fn fill<const K: usize, const V: usize>(&self, name: &str, most: u64) {
        let map = Map::HashMap(self.map(name));
        let mut map = HashMap::<_, [u8; K], [u8; V]>::try_from(map).unwrap();
        for number in 0..most {
            let _ = map.insert(nobody(number), [0; V], 0);
        }
    }

    /// The same for counts of each processor.
    pub(crate) fn fill_counts<const K: usize>(&self, name: &str, most: u64) {
        let map = Map::PerCpuHashMap(self.map(name));
        let mut map = PerCpuHashMap::<_, [u8; K], u64>::try_from(map).unwrap();
        let none = || PerCpuValues::try_from(vec![0; nr_cpus().unwrap()]).unwrap();
        for number in 0..most {
            let _ = map.insert(nobody(number), none(), 0);
        }
    }

    /// Shows the namespace of pod 1 under so many names.
    pub(crate) fn show(&self, count: usize) {
        let handle = format!("/proc/self/fd/{}", self.pods[0].netns.as_raw_fd());
        for number in 0..count {
            let file = self.location.namespaces.join(format!("more-{number}"));
            std::fs::write(&file, "").unwrap();
            mount::bind(Path::new(&handle), &file).unwrap();
        }
    }

    /// From now on servers say nothing.
    pub(crate) fn quiet(&self) {
        self.is_quiet.store(true, Ordering::Relaxed);
    }

    /// What the node forwards there gets lost.
    pub(crate) fn swallow(&self, address: IpAddr) {
        let rule = format!(
            "add table ip t; add chain ip t c {{ type filter hook forward priority 0; }}; add rule ip t c ip daddr {address} drop"
        );
        let add = || Command::new("nft").arg(&rule).status();
        assert!(self.node.run(add).unwrap().unwrap().success());
        self.node
            .route(IpNet::from(address), ip("10.1.1.2"))
            .unwrap();
    }

    /// The namespace of pod 2 is not shown any more.
    pub(crate) fn hide(&self) {
        let file = self.location.namespaces.join("cni-1");
        mount::unmount(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
    }

    /// A socket of UDP of a process of pod 2, or of the node.
    pub(crate) fn datagrams(&self, is_pod: bool, any: &str) -> UdpSocket {
        let host = if is_pod { &self.pods[1] } else { &self.node };
        let work = || {
            self.cgroup.join().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        host.run(work).unwrap()
    }

    /// A TCP connection of pod 2, kept.
    pub(crate) fn stream(&self, to: SocketAddr) -> TcpStream {
        let work = || {
            self.cgroup.join().unwrap();
            TcpStream::connect_timeout(&to, PATIENCE).unwrap()
        };
        self.pods[1].run(work).unwrap()
    }

    /// One that is going to be connected: nobody answers at the endpoint.
    pub(crate) fn opening(&self, to: SocketAddr) -> Socket {
        let work = || {
            self.cgroup.join().unwrap();
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&to.into());
            socket
        };
        self.pods[1].run(work).unwrap()
    }

    pub(crate) fn outcomes(&self) -> Outcomes {
        self.target.as_ref().unwrap().outcomes().unwrap()
    }

    /// A connection of a process of pod 2, or of the node.
    pub(crate) fn ask(
        &self,
        is_pod: bool,
        bound: Option<IpAddr>,
        to: SocketAddr,
    ) -> Result<Answer, ErrorKind> {
        let host = if is_pod { &self.pods[1] } else { &self.node };
        let work = || {
            self.cgroup.join().unwrap();
            connect(bound, to)
        };
        host.run(work).unwrap()
    }

    /// A connection of a process of pod 2 that is not in the cgroup.
    pub(crate) fn ask_outside_cgroup(&self, to: SocketAddr) -> Result<Answer, ErrorKind> {
        self.pods[1].run(|| connect(None, to)).unwrap()
    }
}

/// A key that no program makes.
fn nobody<const K: usize>(number: u64) -> [u8; K] {
    let mut key = [0xff; K];
    key[..8].copy_from_slice(&(u64::MAX - number).to_ne_bytes());
    key
}

fn connect(bound: Option<IpAddr>, to: SocketAddr) -> Result<Answer, ErrorKind> {
    let told = |error: std::io::Error| error.kind();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).map_err(told)?;
    if let Some(bound) = bound {
        socket
            .bind(&SocketAddr::new(bound, 0).into())
            .map_err(told)?;
    }
    socket.connect_timeout(&to.into(), PATIENCE).map_err(told)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
    let mut line = String::new();
    stream.read_to_string(&mut line).map_err(told)?;
    let (port, saw) = line.split_once(' ').unwrap();
    Ok(Answer {
        port: port.parse().unwrap(),
        saw: saw.parse().unwrap(),
        peer: stream.peer_addr().map_err(told)?,
    })
}

/// Tells everybody its port and the source it sees, until the test ends.
fn serve(host: &Host, here: SocketAddr, is_quiet: &Arc<AtomicBool>) {
    let is_quiet = Arc::clone(is_quiet);
    let listener = host.run(|| TcpListener::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if is_quiet.load(Ordering::Relaxed) {
                kept.push(stream);
                continue;
            }
            let saw = stream.peer_addr().unwrap().ip();
            let _ = stream.write_all(format!("{} {saw}", here.port()).as_bytes());
        }
    });
}

/// The same for datagrams.
fn serve_datagrams(host: &Host, here: SocketAddr) {
    let socket = host.run(|| UdpSocket::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 8]) {
            let line = format!("{} {}", here.port(), from.ip());
            let _ = socket.send_to(line.as_bytes(), from);
        }
    });
}
