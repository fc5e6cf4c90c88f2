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
    ENDPOINT_LEN, Ebpf, ListKey, Sockets, State, connects, ip_of, read_endpoint,
};
use portolan_model::{Backend, Origin, Packet, Snapshot, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;

/// `enum outcome` of ebpf/decide.h.
const CONNECTED: u8 = 0;
const NO_SLOT: u8 = 3;

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
    number: u32,
}

/// What the program says of each client: the outcome, and the endpoint.
fn decide(maps: &Maps, clients: &[Client]) -> Vec<(u8, SocketAddr)> {
    let mut input = Vec::new();
    for (key, value) in &maps.services {
        input.extend([b"S", key.as_slice(), value].concat());
    }
    for (key, value) in &maps.endpoints {
        input.extend([b"E", key.as_slice(), value].concat());
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
        input.extend(client.number.to_ne_bytes());
    }
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
    let list = connects(&state.sockets, packet, false);
    let slots = list.map_or(1, |list| list.len() as u64);
    assert!(slots < NUMBERS);
    let client = |number, is_bound| Client {
        packet: packet.clone(),
        is_bound,
        number,
    };
    let clients: Vec<Client> = numbers(slots).map(|n| client(n, false)).collect();
    let mut found = BTreeMap::<SocketAddr, u32>::new();
    for (outcome, to) in decide(maps, &clients) {
        assert_ne!(outcome, NO_SLOT, "{packet:?}");
        if outcome == CONNECTED {
            *found.entry(to).or_default() += 1;
        }
    }
    // A socket is known by its namespace only: whose packets the rules take for outside is not asked here.
    if packet.interface.is_some() && list.is_none() {
        return 0;
    }
    let wanted = list.map_or_else(BTreeMap::new, |_| snapshot.shares(packet));
    assert_eq!(found, wanted, "{packet:?}");
    let bound = decide(maps, &[client(0, true)])[0];
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
            protocol: portolan_model::Protocol::Tcp,
            source: "10.1.0.2:40000".parse().unwrap(),
            destination: "172.16.0.1:80".parse().unwrap(),
            interface: interface.map(Into::into),
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
    let client = Client {
        packet: Packet {
            protocol: portolan_model::Protocol::Tcp,
            source: "10.1.0.2:40000".parse().unwrap(),
            destination: "172.16.0.0:80".parse().unwrap(),
            interface: Some("pod0".into()),
        },
        is_bound: false,
        number: 1,
    };
    assert_eq!(decide(&maps, &[client])[0].0, NO_SLOT);
    let lists: Vec<&ListKey> = state.sockets.lists.keys().collect();
    assert_eq!(lists.len(), 1);
    assert!(state.sockets != Sockets::default());
}
