//! Real connections through the rules: who answers, and whom it saw, must be what the oracle says.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::process::Command;
use std::time::Duration;

use portolan_dataplane::nftables::{AFFINITY_MAX, Nftables};
use portolan_kernel::topology::Host;
use portolan_kernel::{NftTarget, isolated, sysctl};
use portolan_model::{
    Affinity, Backend, Endpoint, Family, LocalPods, NodeFacts, Packet, PortKey, Protocol,
    ServicePort, Snapshot, Target, TrafficPolicy, Verdict,
};
use socket2::{Domain, Socket, Type};

use crate::bed::{at, ip, net, program};

/// Two pods, each on a link of its own, a node that forwards, and a client outside.
///
/// ```text
///   pod 1  10.1.1.2  ── veth1 10.1.1.1 ┐
///   pod 2  10.1.2.2  ── veth2 10.1.2.1 ┤ node 192.168.0.11 ── eth0 ── 192.168.0.1, 203.0.113.2  outside
/// ```
struct World {
    pods: [Host; 2],
    node: Host,
    outside: Host,
    target: NftTarget,
}

/// Long enough for a machine under load; only a drop waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long silence must last to be a drop.
const SILENCE: Duration = Duration::from_millis(200);

impl World {
    fn new() -> Self {
        let node = Host::router().unwrap();
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
            serve(&pod, &format!("10.1.{n}.2:8080"));
            serve(&pod, &format!("[fd00:10:1:{n}::2]:8080"));
            pod
        });
        let outside = Host::new().unwrap();
        let near = [net("192.168.0.11/24"), net("fd00:192:168::11/64")];
        let far = [
            net("192.168.0.1/24"),
            net("203.0.113.2/32"),
            net("fd00:192:168::1/64"),
            net("2001:db8:113::2/128"),
        ];
        node.join("eth0", &near, &outside, "eth0", &far).unwrap();
        outside.route(net("0.0.0.0/0"), near[0].addr()).unwrap();
        outside.route(net("::/0"), near[1].addr()).unwrap();
        node.route(net("0.0.0.0/0"), far[0].addr()).unwrap();
        node.route(net("::/0"), far[2].addr()).unwrap();
        // The kernel limits errors per client to a few in a second; the test asks faster than that.
        let unlimited = [("ipv4/icmp_ratelimit", "0"), ("ipv6/icmp/ratelimit", "0")];
        sysctl::set(&node.netns, &unlimited).unwrap();
        let target = node.run(NftTarget::open).unwrap().unwrap();
        World {
            pods,
            node,
            outside,
            target,
        }
    }

    fn load(&mut self, snapshot: &Snapshot) {
        program(&mut self.target, snapshot, false);
    }

    /// Where a packet is sent from.
    fn sender(&self, packet: &Packet) -> &Host {
        match packet.interface.as_deref() {
            None => &self.node,
            Some("veth1") => &self.pods[0],
            Some("veth2") => &self.pods[1],
            Some(_) => &self.outside,
        }
    }

    /// Sends flows like `packet` until every expected endpoint has answered, and more; compares with the oracle.
    fn check(&self, snapshot: &Snapshot, packet: &Packet) {
        let sender = self.sender(packet);
        let ask = |patience| sender.run(|| ask(packet, patience)).unwrap();
        match snapshot.route(packet) {
            Verdict::Pass => {}
            Verdict::Reject => {
                let error = ask(ANSWER_MAX).unwrap_err();
                assert_eq!(error, ErrorKind::ConnectionRefused, "{packet:?}");
            }
            Verdict::Drop => {
                let error = ask(SILENCE).unwrap_err();
                let silent = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
                assert!(silent.contains(&error), "{packet:?}: {error}");
            }
            Verdict::Deliver(choices) => {
                let mut answered = BTreeSet::new();
                for _ in 0..100 {
                    let (endpoint, saw) =
                        ask(ANSWER_MAX).unwrap_or_else(|error| panic!("{packet:?}: {error}"));
                    let masquerade = choices.get(&endpoint);
                    let masquerade =
                        *masquerade.unwrap_or_else(|| panic!("{packet:?}: {endpoint}"));
                    let wanted = match masquerade {
                        true => gateway_of(endpoint.ip()),
                        false => packet.source.ip(),
                    };
                    assert_eq!(saw, wanted, "{packet:?}: what {endpoint} saw");
                    answered.insert(endpoint);
                    if answered.len() == choices.len() && (answered.len() > 1 || choices.len() == 1)
                    {
                        break;
                    }
                }
                assert_eq!(answered.len(), choices.len(), "{packet:?}: {answered:?}");
            }
        }
    }
}

/// The node's address on the link of a pod.
fn gateway_of(pod: IpAddr) -> IpAddr {
    match pod {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::from([a, b, c, 1])
        }
        IpAddr::V6(ip) => {
            let mut segments = ip.segments();
            segments[7] = 1;
            IpAddr::from(segments)
        }
    }
}

/// Answers TCP and UDP with its own address and the address it saw, until the test ends.
fn serve(host: &Host, address: &str) {
    let here = at(address);
    let open = || (TcpListener::bind(here), UdpSocket::bind(here));
    let (tcp, udp) = host.run(open).unwrap();
    let (tcp, udp) = (tcp.unwrap(), udp.unwrap());
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let saw = stream.peer_addr().map(|peer| peer.ip());
            if let Ok(saw) = saw {
                // The client may be gone already.
                let _ = stream.write_all(format!("{here} {saw}").as_bytes());
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(format!("{here} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// One flow: who answered, and whom it saw.
fn ask(packet: &Packet, patience: Duration) -> Result<(SocketAddr, IpAddr), ErrorKind> {
    let flow = || {
        let kind = match packet.protocol {
            Protocol::Tcp => Type::STREAM,
            _ => Type::DGRAM,
        };
        let socket = Socket::new(Domain::for_address(packet.destination), kind, None)?;
        socket.bind(&SocketAddr::new(packet.source.ip(), 0).into())?;
        socket.set_read_timeout(Some(patience))?;
        socket.connect_timeout(&packet.destination.into(), patience)?;
        let mut text = String::new();
        if kind == Type::STREAM {
            TcpStream::from(socket).read_to_string(&mut text)?;
        } else {
            let socket = UdpSocket::from(socket);
            // A packet that the output hook drops, or answers with an error, is refused to its sender at once.
            match socket.send(b"?") {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
            let mut buffer = [0; 128];
            let length = socket.recv(&mut buffer)?;
            text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        }
        Ok(text)
    };
    let text: String = flow().map_err(|error: std::io::Error| error.kind())?;
    let (endpoint, saw) = text.split_once(' ').unwrap();
    Ok((at(endpoint), ip(saw)))
}

fn node() -> NodeFacts {
    let addresses: BTreeSet<IpAddr> = [ip("192.168.0.11"), ip("fd00:192:168::11")].into();
    NodeFacts {
        name: "n1".into(),
        node_port_addresses: addresses.clone(),
        addresses,
        local_pods: LocalPods::Cidrs(vec![net("10.1.0.0/16"), net("fd00:10:1::/48")]),
        service_cidrs: vec![net("172.30.0.0/16"), net("fd00:172:30::/112")],
        ..NodeFacts::default()
    }
}

fn service(name: &str, last: u8, protocol: Protocol) -> ServicePort {
    let key = PortKey::new("shop", name, "", protocol);
    let endpoint = |address: &str, local| Endpoint {
        local,
        ..Endpoint::ready(at(address))
    };
    ServicePort {
        cluster_ips: vec![
            ip(&format!("172.30.0.{last}")),
            ip(&format!("fd00:172:30::{last}")),
        ],
        node_port: NonZeroU16::new(30_000 + u16::from(last)),
        families: Family::ALL.into(),
        endpoints: [
            endpoint("10.1.1.2:8080", true),
            endpoint("10.1.2.2:8080", false),
            endpoint("[fd00:10:1:1::2]:8080", true),
            endpoint("[fd00:10:1:2::2]:8080", false),
        ]
        .into(),
        ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
    }
}

/// Every kind of Service, for TCP and for UDP.
fn services() -> Snapshot {
    let mut snapshot = Snapshot::new(node());
    for (index, protocol) in [Protocol::Tcp, Protocol::Udp].into_iter().enumerate() {
        let last = |n: u8| n + 100 * index as u8;
        let name = |text: &str| format!("{text}-{protocol}").to_lowercase();
        snapshot.set(service(&name("plain"), last(1), protocol));
        snapshot.set(ServicePort {
            external_policy: TrafficPolicy::Local,
            ..service(&name("local"), last(2), protocol)
        });
        snapshot.set(ServicePort {
            endpoints: [].into(),
            ..service(&name("empty"), last(3), protocol)
        });
        snapshot.set(ServicePort {
            external_policy: TrafficPolicy::Local,
            internal_policy: TrafficPolicy::Local,
            endpoints: [Endpoint::ready(at("10.1.2.2:8080"))].into(),
            ..service(&name("elsewhere"), last(4), protocol)
        });
        snapshot.set(ServicePort {
            load_balancer_ips: vec![ip("198.51.100.1"), ip("2001:db8:100::1")],
            external_ips: vec![ip("198.51.100.2")],
            source_ranges: vec![
                net("203.0.113.0/25"),
                net("2001:db8:113::/64"),
                net("203.0.113.0/24"),
            ],
            ..service(&name("guarded"), last(5), protocol)
        });
    }
    snapshot
}

fn packets(protocol: Protocol) -> Vec<Packet> {
    let index = if protocol == Protocol::Tcp { 0 } else { 100 };
    let mut destinations = vec![
        at("198.51.100.1:80"),
        at("198.51.100.2:80"),
        at("[2001:db8:100::1]:80"),
        at("172.30.77.77:80"),
    ];
    for n in 1..=5 {
        let last = n + index;
        destinations.extend([
            at(&format!("172.30.0.{last}:80")),
            at(&format!("172.30.0.{last}:81")),
            at(&format!("[fd00:172:30::{last}]:80")),
            at(&format!("192.168.0.11:{}", 30_000 + last)),
            at(&format!("[fd00:192:168::11]:{}", 30_000 + last)),
        ]);
    }
    let senders = [
        (Some("veth1"), "10.1.1.2", "fd00:10:1:1::2"),
        (Some("eth0"), "203.0.113.2", "2001:db8:113::2"),
        (None, "192.168.0.11", "fd00:192:168::11"),
    ];
    let mut all = Vec::new();
    for (interface, v4, v6) in senders {
        for destination in &destinations {
            let source = if destination.is_ipv4() { v4 } else { v6 };
            all.push(Packet {
                protocol,
                source: SocketAddr::new(ip(source), 0),
                destination: *destination,
                interface: interface.map(Into::into),
            });
        }
    }
    all
}

#[test]
fn tcp_flows_end_as_the_oracle_says() {
    isolated!(tcp_flows_end_as_the_oracle_says, {
        let (mut world, snapshot) = (World::new(), services());
        world.load(&snapshot);
        let packets = packets(Protocol::Tcp);
        packets
            .iter()
            .for_each(|packet| world.check(&snapshot, packet));
    });
}

#[test]
fn udp_flows_end_as_the_oracle_says() {
    isolated!(udp_flows_end_as_the_oracle_says, {
        let (mut world, snapshot) = (World::new(), services());
        world.load(&snapshot);
        let packets = packets(Protocol::Udp);
        packets
            .iter()
            .for_each(|packet| world.check(&snapshot, packet));
    });
}

fn from(world: &World, interface: Option<&str>, source: &str, to: &str) -> SocketAddr {
    let packet = Packet {
        protocol: Protocol::Tcp,
        source: SocketAddr::new(ip(source), 0),
        destination: at(to),
        interface: interface.map(Into::into),
    };
    let sender = world.sender(&packet);
    sender.run(|| ask(&packet, ANSWER_MAX)).unwrap().unwrap().0
}

#[test]
fn clients_stay_with_their_endpoint() {
    isolated!(clients_stay_with_their_endpoint, {
        let mut world = World::new();
        let timeout = Duration::from_secs(600);
        let mut sticky = ServicePort {
            affinity: Some(Affinity { timeout }),
            ..service("sticky", 1, Protocol::Tcp)
        };
        let mut snapshot = Snapshot::new(node());
        snapshot.set(sticky.clone());
        world.load(&snapshot);
        let clients = [
            (Some("eth0"), "203.0.113.2", "172.30.0.1:80"),
            (Some("eth0"), "2001:db8:113::2", "[fd00:172:30::1]:80"),
            (None, "192.168.0.11", "172.30.0.1:80"),
        ];
        let choose = |world: &World| clients.map(|(i, source, to)| from(world, i, source, to));
        let first = choose(&world);
        (0..20).for_each(|_| assert_eq!(choose(&world), first));
        // The node port shares the memory of the ClusterIP.
        let by_port = from(&world, Some("eth0"), "203.0.113.2", "192.168.0.11:30001");
        assert_eq!(by_port, first[0]);

        // A new process rewrites everything or adopts it: clients stay.
        let (state, _) = Nftables.compile(&snapshot);
        world.target.apply(&Nftables.diff(None, &state)).unwrap();
        assert_eq!(choose(&world), first);
        let mut other = world.node.run(NftTarget::open).unwrap().unwrap();
        let adopted = other.read().unwrap().expect("our own tables");
        assert!(Nftables.is_empty(&Nftables.diff(Some(&adopted), &state)));

        // Only clients of an endpoint that leaves are moved, and they stay where they are moved to.
        let all = sticky.endpoints.clone();
        let stays = |e: &&Endpoint| e.address != first[0];
        sticky.endpoints = all.iter().filter(stays).cloned().collect();
        snapshot.set(sticky.clone());
        world.load(&snapshot);
        let second = choose(&world);
        assert_ne!(second[0], first[0]);
        assert_eq!(second[1], first[1]);
        sticky.endpoints = all;
        snapshot.set(sticky);
        world.load(&snapshot);
        (0..20).for_each(|_| assert_eq!(choose(&world), second));
    });
}

#[test]
fn a_full_memory_of_clients_refuses_nobody() {
    isolated!(a_full_memory_of_clients_refuses_nobody, {
        let mut world = World::new();
        let timeout = Duration::from_secs(600);
        let mut snapshot = Snapshot::new(node());
        snapshot.set(ServicePort {
            affinity: Some(Affinity { timeout }),
            ..service("sticky", 1, Protocol::Tcp)
        });
        world.load(&snapshot);
        let client = |n: u32| {
            let ip = IpAddr::from((0x1400_0000 + n).to_be_bytes());
            format!("172.30.0.1 . 80 . tcp . {ip} timeout 1h : 0 . 10.1.1.2 . 8080")
        };
        let clients: Vec<String> = (0..AFFINITY_MAX).map(client).collect();
        let text = format!(
            "add element ip portolan affinity {{ {} }}",
            clients.join(", ")
        );
        let file = std::env::temp_dir().join(format!("affinity-{}", std::process::id()));
        std::fs::write(&file, text).unwrap();
        let nft = || Command::new("nft").arg("-f").arg(&file).output();
        let loaded = world.node.run(nft).unwrap().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(loaded.status.success(), "{loaded:?}");
        let ask = || from(&world, Some("eth0"), "203.0.113.2", "172.30.0.1:80");
        let answered: BTreeSet<SocketAddr> = (0..100).map(|_| ask()).collect();
        assert_eq!(answered.len(), 2, "balanced, but not remembered");
    });
}
