//! The header that decides in the kernel, compiled for this machine, against the oracle: on the very bytes of the maps,
//! every slot of every list.
#![allow(clippy::unwrap_used)] // A program that does not run is a failed test.

mod fake;
mod maps;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use maps::Maps;
use portolan_dataplane::ebpf::{
    Decision, ENDPOINT_LEN, Ebpf, ListKey, Sockets, State, connects, decides, ip_of, read_endpoint,
};
use portolan_model::{
    Affinity, Backend, Endpoint, Origin, Packet, Protocol, ServicePort, Snapshot, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// `enum outcome` of ebpf/decide.h.
const CONNECTED: u8 = 0;
const NO_SLOT: u8 = 3;
const REFUSED: u8 = 4;

/// The program, compiled once for all tests.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ebpf-native");
    let source = root.join("native.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-O1"]);
    compiler.arg(source).arg("-o").arg(&program);
    let status = compiler.status().expect("a C compiler (make setup)");
    assert!(status.success(), "ebpf/native.c does not compile");
    program
});

/// A socket that connects: who, where to, and the number that chance gave.
struct Client {
    packet: Packet,
    is_bound: bool,
    /// The cookie of its network namespace.
    netns: u64,
    number: u32,
    now_s: u32,
}

impl Client {
    fn of(packet: &Packet, number: u32) -> Client {
        Client {
            packet: packet.clone(),
            is_bound: false,
            netns: 1,
            number,
            now_s: 0,
        }
    }
}

/// What the program says of each client: the outcome, and the endpoint.
fn decide(maps: &Maps, clients: &[Client]) -> Vec<(u8, SocketAddr)> {
    decide_in_turn(&[(maps, clients)])
}

/// The same with maps that change meanwhile.
fn decide_in_turn(steps: &[(&Maps, &[Client])]) -> Vec<(u8, SocketAddr)> {
    let mut input = Vec::new();
    for (maps, clients) in steps {
        write(maps, clients, &mut input);
    }
    run(input)
}

fn write(maps: &Maps, clients: &[Client], input: &mut Vec<u8>) {
    // All maps are empty.
    input.push(b'Z');
    for (key, value) in &maps.services {
        input.extend([b"S", key.as_slice(), value].concat());
    }
    for (key, value) in &maps.endpoints {
        input.extend([b"E", key.as_slice(), value].concat());
    }
    for key in maps.members.keys() {
        input.extend([b"M", key.as_slice()].concat());
    }
    for key in maps.node_port_ips.keys() {
        input.extend([b"N", key.as_slice()].concat());
    }
    for client in clients {
        let to = client.packet.destination;
        input.push(b'C');
        input.extend(ip_of(to.ip()));
        input.extend(to.port().to_be_bytes());
        input.push(client.packet.protocol.number());
        input.push(u8::from(client.packet.interface.is_none()));
        input.push(u8::from(client.is_bound));
        input.extend(client.netns.to_ne_bytes());
        input.extend(client.number.to_ne_bytes());
        input.extend(client.now_s.to_ne_bytes());
    }
}

fn run(input: Vec<u8>) -> Vec<(u8, SocketAddr)> {
    let mut child = Command::new(&*PROGRAM)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let answers = output.stdout.chunks_exact(1 + ENDPOINT_LEN);
    let answer = |bytes: &[u8]| {
        let to: [u8; ENDPOINT_LEN] = bytes[1..].try_into().unwrap();
        (bytes[0], read_endpoint(&to).unwrap())
    };
    answers.map(answer).collect()
}

fn maps_of(state: &State) -> Maps {
    let mut maps = Maps::default();
    let ops = Ebpf.diff(None, state).sockets;
    ops.iter().for_each(|op| maps.op(op));
    maps
}

/// A number for each of `slots` that chance must give to choose it: `reciprocal_scale()` turned round.
fn numbers(slots: u64) -> impl Iterator<Item = u32> {
    (0..slots).map(move |slot| ((slot << 32).div_ceil(slots)) as u32)
}

/// More slots than any list of a random world has, and a prime: each slot is chosen at least once.
const NUMBERS: u64 = 65_537;

/// Checks one packet; says how many sockets were connected.
fn check(snapshot: &Snapshot, state: &State, maps: &Maps, packet: &Packet) -> usize {
    let decision = decides(&state.sockets, packet, false);
    let list = connects(&state.sockets, packet, false);
    let slots = list.map_or(1, |list| list.len() as u64);
    assert!(slots < NUMBERS);
    // Each is another pod: none is remembered.
    let client = |(netns, number)| Client {
        netns: netns as u64,
        ..Client::of(packet, number)
    };
    let clients: Vec<Client> = numbers(slots).enumerate().map(client).collect();
    let mut found = BTreeMap::<SocketAddr, u32>::new();
    for (outcome, to) in decide(maps, &clients) {
        assert_ne!(outcome, NO_SLOT, "{packet:?}");
        if outcome == CONNECTED {
            *found.entry(to).or_default() += 1;
        }
        if decision.is_some() {
            let refused = decision == Some(Decision::Refuse);
            assert_eq!(outcome == REFUSED, refused, "{packet:?}");
        }
    }
    // A socket is known by its namespace only: whose packets the rules take for outside is not asked here.
    if packet.interface.is_some() && decision.is_none() {
        return 0;
    }
    let wanted = decision.map_or_else(BTreeMap::new, |_| snapshot.shares(packet));
    assert_eq!(found, wanted, "{packet:?}");
    let bound = Client {
        is_bound: true,
        ..Client::of(packet, 0)
    };
    let bound = decide(maps, &[bound])[0];
    let listed = connects(&state.sockets, packet, true).is_some();
    assert_eq!(bound.0 == CONNECTED, listed, "bound: {packet:?}");
    let masquerades = |to| match snapshot.route(packet) {
        Verdict::Deliver(all) => all[&to] && to.ip() != packet.source.ip(),
        _ => false,
    };
    if packet.origin(snapshot.node()) == Origin::Host && bound.0 == CONNECTED {
        assert!(
            !masquerades(bound.1),
            "only rules can masquerade a bound socket: {packet:?}"
        );
    }
    found.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_header_does_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 20),
    ) {
        let (state, _) = Ebpf.compile(&snapshot);
        let maps = maps_of(&state);
        packets.iter().for_each(|packet| {
            check(&snapshot, &state, &maps, packet);
        });
    }
}

/// The law above holds also for a header that never connects anybody.
#[test]
fn plain_services_are_connected() {
    let snapshot = fake::many_services(3);
    let (state, _) = Ebpf.compile(&snapshot);
    let maps = maps_of(&state);
    for interface in [None, Some("pod0")] {
        let packet = Packet {
            interface: interface.map(Into::into),
            ..from_pod("172.16.0.1:80")
        };
        assert_eq!(check(&snapshot, &state, &maps, &packet), 2);
    }
}

/// While a map is being changed, a program may find an entry and not its slots: the rules do it then.
#[test]
fn a_slot_that_is_not_there_is_left_to_the_rules() {
    let (state, _) = Ebpf.compile(&fake::many_services(1));
    let mut maps = maps_of(&state);
    maps.endpoints.clear();
    let client = Client::of(&from_pod("172.16.0.0:80"), 1);
    assert_eq!(decide(&maps, &[client])[0].0, NO_SLOT);
    let lists: Vec<&ListKey> = state.sockets.lists.keys().collect();
    assert_eq!(lists.len(), 1);
    assert!(state.sockets != Sockets::default());
}

fn from_pod(to: &str) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: "10.1.0.2:40000".parse().unwrap(),
        destination: to.parse().unwrap(),
        interface: Some("pod0".into()),
    }
}

/// The first Service port of many, changed.
fn changed(change: impl FnOnce(&mut ServicePort)) -> Maps {
    let mut snapshot = fake::many_services(1);
    let mut port = ServicePort::clone(snapshot.ports().next().unwrap());
    change(&mut port);
    snapshot.set(port);
    maps_of(&Ebpf.compile(&snapshot).0)
}

fn remembering(endpoints: &[&str]) -> Maps {
    changed(|port| {
        port.affinity = Some(Affinity {
            timeout: std::time::Duration::from_secs(60),
        });
        let ready = |text: &&str| Endpoint::ready(text.parse().unwrap());
        port.endpoints = endpoints.iter().map(ready).collect();
    })
}

/// R-AFFINITY-1, -3 and -4: a pod is a client.
#[test]
fn a_pod_stays_with_its_endpoint() {
    let [low, high] = [0, u32::MAX];
    let packet = from_pod("172.16.0.0:80");
    let at = |netns, number, now_s| Client {
        netns,
        now_s,
        ..Client::of(&packet, number)
    };
    let both = remembering(&["10.9.0.1:80", "10.9.0.2:80"]);
    let more = remembering(&["10.9.0.0:80", "10.9.0.1:80", "10.9.0.2:80"]);
    let gone = remembering(&["10.9.0.2:80", "10.9.0.3:80"]);
    let answers = decide_in_turn(&[
        (
            &both,
            &[at(1, low, 1000), at(1, high, 1059), at(2, high, 1059)],
        ),
        // Each flow starts the time anew, and another list changes nothing for those who are in it.
        (&more, &[at(1, high, 1118), at(1, low, 1177)]),
        // After the time it is a new client.
        (&both, &[at(1, high, 1237), at(1, low, 1238)]),
        (&both, &[at(3, low, 2000)]),
        (&gone, &[at(3, high, 2001), at(3, low, 2002)]),
    ]);
    let to: Vec<String> = answers.iter().map(|(_, to)| to.to_string()).collect();
    assert!(answers.iter().all(|(outcome, _)| *outcome == CONNECTED));
    let [one, two, three] = ["10.9.0.1:80", "10.9.0.2:80", "10.9.0.3:80"];
    assert_eq!(to, [one, one, two, one, one, two, two, one, three, three]);
}

/// Processes of the node have several addresses, and are different clients to the rules.
#[test]
fn only_pods_are_remembered_by_programs() {
    let maps = remembering(&["10.9.0.1:80", "10.9.0.2:80"]);
    let packet = Packet {
        interface: None,
        ..from_pod("172.16.0.0:80")
    };
    let answers = decide(&maps, &[Client::of(&packet, 0)]);
    assert!(answers[0].0 != CONNECTED && answers[0].0 != REFUSED);
}

#[test]
fn nobody_is_there_and_the_socket_is_told() {
    let maps = changed(|port| port.endpoints = [].into());
    let answers = decide(&maps, &[Client::of(&from_pod("172.16.0.0:80"), 0)]);
    assert_eq!(answers[0].0, REFUSED);
}
