//! A client far away, a node, and pods on it and behind another one; narrow links where routers have to complain.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_dataplane::ebpf::Ebpf;
use portolan_kernel::cgroup::Cgroup;
use portolan_kernel::ebpf::{Devices, Location, OutsideOutcomes};
use portolan_kernel::offload::{self, Offload};
use portolan_kernel::topology::Host;
use portolan_kernel::{EbpfTarget, mount, namespace};
use portolan_model::{
    Backend, Endpoint, Family, LocalPods, NodeFacts, PortKey, Protocol, ServicePort, Snapshot,
    Target,
};
use socket2::{Domain, Socket, Type};

/// A datagram that has no answer by then is sent again.
const AGAIN: Duration = Duration::from_millis(300);

/// Only a failure takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The NodePort of every Service here.
pub(crate) const NODE_PORT: u16 = 30_080;

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// ```text
///   client ──1400── gateway ──1500── out ┐ node ┌ pod    ── near pod
///                                        └──────┴ fabric ──1500── other node ──1300── far pod
/// ```
///
/// 1300 and 1400 are the most bytes of a packet there. TCP and UDP are served at port 8080 of both pods.
pub(crate) struct Bed {
    pub(crate) client: Host,
    pub(crate) node: Host,
    /// The gateway, and the other node.
    pub(crate) others: [Host; 2],
    pub(crate) near: Host,
    pub(crate) far: Host,
    cgroup: Cgroup,
    pub(crate) location: Location,
    pub(crate) target: Option<EbpfTarget>,
    pub(crate) snapshot: Snapshot,
}

/// The endpoints of each family.
pub(crate) const NEAR: [&str; 2] = ["10.1.0.10:8080", "[fd00:10:1::10]:8080"];
pub(crate) const FAR: [&str; 2] = ["10.2.0.10:8080", "[fd00:10:2::10]:8080"];

/// Where the client asks, in each family.
pub(crate) fn node_port(family: Family) -> SocketAddr {
    let node = ["192.168.0.11", "fd00:192:168::11"][family as usize];
    SocketAddr::new(node.parse().unwrap(), NODE_PORT)
}

impl Bed {
    /// `None`, told aloud, without root.
    pub(crate) fn new() -> Option<Bed> {
        if !namespace::is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            eprintln!("SKIPPED: eBPF programs need root");
            return None;
        }
        mount::bpffs(Path::new("/sys/fs/bpf")).unwrap();
        let mut location = Location::default();
        let cgroup = Cgroup::new(&location.cgroup).unwrap();
        location.cgroup = cgroup.path().into();
        location.devices = Devices::Named(vec!["out".into(), "fabric".into()]);
        let [client, near, far] = [0; 3].map(|_| Host::new().unwrap());
        let [gateway, node, other] = [0; 3].map(|_| Host::router().unwrap());
        join(
            &gateway,
            "eth1",
            "203.0.113.1/24 2001:db8:113::1/64",
            &client,
            "203.0.113.2/24 2001:db8:113::2/64",
            1400,
        );
        join(
            &node,
            "out",
            "198.18.0.11/24 fd00:198:18::11/64",
            &gateway,
            "198.18.0.1/24 fd00:198:18::1/64",
            1500,
        );
        join(
            &node,
            "fabric",
            "192.168.0.11/24 fd00:192:168::11/64",
            &other,
            "192.168.0.12/24 fd00:192:168::12/64",
            1500,
        );
        join(
            &node,
            "pod",
            "10.1.0.1/24 fd00:10:1::1/64",
            &near,
            "10.1.0.10/24 fd00:10:1::10/64",
            1500,
        );
        join(
            &other,
            "pod",
            "10.2.0.1/24 fd00:10:2::1/64",
            &far,
            "10.2.0.10/24 fd00:10:2::10/64",
            1300,
        );
        for (host, via) in [
            (&client, ["203.0.113.1", "2001:db8:113::1"]),
            (&gateway, ["198.18.0.11", "fd00:198:18::11"]),
            (&node, ["198.18.0.1", "fd00:198:18::1"]),
            (&other, ["192.168.0.11", "fd00:192:168::11"]),
            (&near, ["10.1.0.1", "fd00:10:1::1"]),
            (&far, ["10.2.0.1", "fd00:10:2::1"]),
        ] {
            host.route(net("0.0.0.0/0"), via[0].parse().unwrap())
                .unwrap();
            host.route(net("::/0"), via[1].parse().unwrap()).unwrap();
        }
        node.route(net("10.2.0.0/24"), "192.168.0.12".parse().unwrap())
            .unwrap();
        node.route(net("fd00:10:2::/64"), "fd00:192:168::12".parse().unwrap())
            .unwrap();
        for (host, here) in [(&near, NEAR), (&far, FAR)] {
            for text in here {
                serve(host, at(text));
            }
        }
        let addresses: std::collections::BTreeSet<IpAddr> =
            Family::ALL.map(|family| node_port(family).ip()).into();
        let mut bed = Bed {
            client,
            node,
            others: [gateway, other],
            near,
            far,
            cgroup,
            location,
            target: None,
            snapshot: Snapshot::new(NodeFacts {
                name: "n1".into(),
                addresses: addresses.clone(),
                node_port_addresses: addresses,
                local_pods: LocalPods::Cidrs(vec![net("10.0.0.0/8"), net("fd00:10::/32")]),
                ..NodeFacts::default()
            }),
        };
        bed.wait_for_links();
        bed.open();
        Some(bed)
    }

    /// The same with XDP, and links as real ones are: what is sent has its checksum, and what comes can be a frame.
    pub(crate) fn fast() -> Option<Bed> {
        let mut bed = Bed::new()?;
        for host in [&bed.client, &bed.near, &bed.far] {
            switch(host, "uplink", Offload::TxChecksum, false);
        }
        let [gateway, other] = &bed.others;
        switch(gateway, "eth0", Offload::Gro, true);
        switch(other, "uplink", Offload::Gro, true);
        bed.location.xdp = true;
        bed.open();
        Some(bed)
    }

    /// Until then, packets are lost.
    fn wait_for_links(&self) {
        let began = Instant::now();
        let hosts = [&self.client, &self.node, &self.near, &self.far];
        while hosts
            .iter()
            .any(|host| !host.links().unwrap().are_ready().unwrap())
        {
            assert!(began.elapsed() < PATIENCE, "a link does not come up");
            std::thread::yield_now();
        }
    }

    /// As an agent does that starts.
    pub(crate) fn open(&mut self) {
        let location = &self.location;
        let target = self.node.run(|| EbpfTarget::open(location)).unwrap();
        self.target = Some(target.unwrap());
    }

    /// Runs what the agent does on the node.
    pub(crate) fn agent<T: Send>(&mut self, work: impl FnOnce(&mut EbpfTarget) -> T + Send) -> T {
        let target = self.target.as_mut().unwrap();
        self.node.run(|| work(target)).unwrap()
    }

    /// Brings programs and rules to a Service with these endpoints, at the NodePort.
    pub(crate) fn stand(&mut self, protocol: Protocol, endpoints: &[&[&str; 2]]) {
        let port = self.port(protocol, endpoints);
        self.stand_with(port);
    }

    pub(crate) fn port(&self, protocol: Protocol, endpoints: &[&[&str; 2]]) -> ServicePort {
        let key = PortKey::new("shop", "web", "http", protocol);
        let all = endpoints.iter().flat_map(|both| both.iter());
        let endpoint = |text: &&str| Endpoint {
            local: NEAR.contains(text),
            ..Endpoint::ready(at(text))
        };
        let mut endpoints: Vec<Endpoint> = all.map(endpoint).collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        ServicePort {
            cluster_ips: vec![
                "172.30.0.1".parse().unwrap(),
                "fd00:172:30::1".parse().unwrap(),
            ],
            node_port: NonZeroU16::new(NODE_PORT),
            families: Family::ALL.into(),
            endpoints: endpoints.into(),
            ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
        }
    }

    pub(crate) fn stand_with(&mut self, port: ServicePort) {
        self.snapshot.set(port);
        let (state, _) = Ebpf.compile(&self.snapshot);
        self.agent(|target| {
            let standing = target.read().unwrap();
            target.apply(&Ebpf.diff(standing.as_ref(), &state)).unwrap();
            assert!(target.read().unwrap() == Some(state));
        });
    }

    pub(crate) fn outcomes(&self) -> OutsideOutcomes {
        self.target.as_ref().unwrap().outside_outcomes().unwrap()
    }

    /// A connection of the client.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<TcpStream, ErrorKind> {
        let work = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
            socket
                .connect_timeout(&to.into(), PATIENCE)
                .map_err(|error| error.kind())?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Ok(stream)
        };
        self.client.run(work).unwrap()
    }

    /// A socket of the client for datagrams.
    pub(crate) fn datagrams(&self, to: SocketAddr) -> UdpSocket {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.client.run(|| UdpSocket::bind(any)).unwrap().unwrap();
        socket.set_read_timeout(Some(AGAIN)).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    /// Processes of the cgroup are none here: keep it until the end.
    pub(crate) fn keep(&self) -> &Cgroup {
        &self.cgroup
    }

    pub(crate) fn run_on_node(&self, program: &str, arguments: &[&str]) -> String {
        let run = || Command::new(program).args(arguments).output();
        let output = self.node.run(run).unwrap().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

/// As `ethtool -K`.
pub(crate) fn switch(host: &Host, device: &str, what: Offload, on: bool) {
    host.run(|| offload::set(device, what, on))
        .unwrap()
        .unwrap();
}

/// A link with addresses of both families; `here` has the name on the router.
fn join(router: &Host, name: &str, near: &str, host: &Host, far: &str, mtu: u32) {
    let nets = |text: &str| -> Vec<IpNet> { text.split(' ').map(net).collect() };
    let far_name = if name == "out" { "eth0" } else { "uplink" };
    router
        .join(name, &nets(near), host, far_name, &nets(far))
        .unwrap();
    for (host, name) in [(router, name), (host, far_name)] {
        let mtu = mtu.to_string();
        let set = || {
            Command::new("ip")
                .args(["link", "set", name, "mtu", &mtu])
                .status()
        };
        assert!(host.run(set).unwrap().unwrap().success());
    }
}

/// Answers whom it sees, and then every byte. Datagrams are sent back with that in front.
fn serve(host: &Host, here: SocketAddr) {
    let listener = host.run(|| TcpListener::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let saw = stream.peer_addr().unwrap().ip();
                let _ = stream.write_all(format!("{here} {saw}\n").as_bytes());
                let mut bytes = [0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    let socket = host.run(|| UdpSocket::bind(here)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok((count, from)) = socket.recv_from(&mut bytes) {
            let line = format!("{here} {}\n", from.ip());
            let _ = socket.send_to(&[line.as_bytes(), &bytes[..count]].concat(), from);
        }
    });
}

/// Who serves, and whom it sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) who: SocketAddr,
    pub(crate) saw: IpAddr,
}

impl Told {
    fn read(line: &str) -> Told {
        let (who, saw) = line.trim_end().split_once(' ').unwrap();
        Told {
            who: at(who),
            saw: saw.parse().unwrap(),
        }
    }
}

/// The line with which a server begins.
pub(crate) fn greeting(stream: &mut TcpStream) -> Told {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    Told::read(std::str::from_utf8(&line).unwrap())
}

/// Sends so many bytes, and reads them back.
pub(crate) fn echo(stream: &mut TcpStream, count: usize) {
    let bytes: Vec<u8> = (0..count).map(|n| n as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = bytes.clone();
    let sender = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; count];
    stream.read_exact(&mut back).unwrap();
    sender.join().unwrap();
    assert!(back == bytes);
}

/// Sends a datagram of so many bytes, and reads it back. What routers have complained about is sent again, in pieces
/// that they like better.
pub(crate) fn echo_datagram(socket: &UdpSocket, count: usize) -> Result<Told, ErrorKind> {
    let bytes: Vec<u8> = (0..count).map(|n| n as u8).collect();
    let mut back = [0; 65_536];
    let mut exchange = || {
        socket.send(&bytes)?;
        socket.recv(&mut back)
    };
    let began = Instant::now();
    let length = loop {
        match exchange() {
            Ok(length) => break length,
            Err(error) => {
                let complaint = error.raw_os_error() == Some(libc::EMSGSIZE);
                let silence = error.kind() == ErrorKind::WouldBlock;
                if began.elapsed() > PATIENCE || !(complaint || silence) {
                    return Err(error.kind());
                }
            }
        }
    };
    let end = back.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(back[end + 1..length] == bytes);
    Ok(Told::read(std::str::from_utf8(&back[..end]).unwrap()))
}
