//! The header that decides about flows from outside, compiled for this machine, against the oracle: on the very bytes of
//! the maps, every slot of every list.
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

use maps::outside::OutsideMaps;
use portolan_dataplane::ebpf::outside::{Tuple, range_of, serves, tuple_of};
use portolan_dataplane::ebpf::{ENDPOINT_LEN, Ebpf, State, read_endpoint};
use portolan_model::{
    Backend, Balance, Family, LocalPods, NodeFacts, Packet, ServicePort, Snapshot, TrafficPolicy,
    Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// `enum chosen` of ebpf/outside.h.
const CHOSEN: u8 = 0;
const OF_NOBODY: u8 = 1;
const OF_A_POD: u8 = 2;
const WITHOUT_SLOT: u8 = 3;

/// The program, compiled once for all tests.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ebpf");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside-native");
    let source = root.join("native_outside.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-O1"]);
    compiler.arg(source).arg("-o").arg(&program);
    let status = compiler.status().expect("a C compiler (make setup)");
    assert!(status.success(), "ebpf/native_outside.c does not compile");
    program
});

/// What the program says of a flow.
struct Said {
    chosen: u8,
    masquerade: bool,
    to: SocketAddr,
}

/// What the program says of flows that begin as these packets do, each with the number that chance gave.
fn choose(maps: &OutsideMaps, flows: &[(&Packet, u32)]) -> Vec<Said> {
    let mut input = Vec::new();
    for (key, value) in &maps.served {
        input.extend([b"S", key.as_slice(), value].concat());
    }
    for (key, value) in &maps.slots {
        input.extend([b"E", key.as_slice(), value].concat());
    }
    for key in maps.node_ips.keys() {
        input.extend([b"N", key.as_slice()].concat());
    }
    for key in maps.pods.keys() {
        input.extend([b"P", key.as_slice()].concat());
    }
    for (packet, number) in flows {
        let tuple = Tuple {
            protocol: packet.protocol,
            from: packet.source,
            to: packet.destination,
        };
        input.push(b'C');
        input.extend(tuple_of(&tuple));
        input.extend(number.to_ne_bytes());
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
    let said = |bytes: &[u8]| {
        let to: [u8; ENDPOINT_LEN] = bytes[2..].try_into().unwrap();
        Said {
            chosen: bytes[0],
            masquerade: bytes[1] != 0,
            to: read_endpoint(&to).unwrap(),
        }
    };
    output
        .stdout
        .chunks_exact(2 + ENDPOINT_LEN)
        .map(said)
        .collect()
}

fn maps_of(state: &State) -> OutsideMaps {
    let mut maps = OutsideMaps::default();
    let ops = Ebpf.diff(None, state).outside;
    ops.iter().for_each(|op| maps.op(op));
    maps
}

/// A number for each of `slots` that chance must give to choose it: `reciprocal_scale()` turned round.
fn numbers(slots: u64) -> impl Iterator<Item = u32> {
    (0..slots).map(move |slot| ((slot << 32).div_ceil(slots)) as u32)
}

/// Checks one packet; says whether the program takes its flow.
fn check(snapshot: &Snapshot, state: &State, maps: &OutsideMaps, packet: &Packet) -> bool {
    let list = serves(&state.outside, packet);
    let slots = list.map_or(1, |list| list.len() as u64);
    let flows: Vec<(&Packet, u32)> = numbers(slots).map(|number| (packet, number)).collect();
    let mut found = BTreeMap::<SocketAddr, u32>::new();
    let mut told = BTreeMap::new();
    for said in choose(maps, &flows) {
        assert_ne!(said.chosen, WITHOUT_SLOT, "{packet:?}");
        if said.chosen == CHOSEN {
            *found.entry(said.to).or_default() += 1;
            told.insert(said.to, said.masquerade);
        }
    }
    // Where no program stands, nothing is asked.
    if packet.interface.is_none() {
        return false;
    }
    assert_eq!(found.is_empty(), list.is_none(), "{packet:?}");
    if list.is_some() {
        assert_eq!(found, snapshot.shares(packet), "{packet:?}");
        assert_eq!(Verdict::Deliver(told), snapshot.route(packet), "{packet:?}");
    }
    list.is_some()
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

fn packet(source: &str, to: &str) -> Packet {
    Packet {
        protocol: portolan_model::Protocol::Tcp,
        source: source.parse().unwrap(),
        destination: to.parse().unwrap(),
        interface: Some("outside".into()),
    }
}

/// A Service with a NodePort, on a node whose pods are known.
fn node_port(change: impl Fn(&mut ServicePort)) -> Snapshot {
    let mut snapshot = fake::many_services(1);
    let mut port = ServicePort::clone(snapshot.ports().next().unwrap());
    port.node_port = Some(30_080.try_into().unwrap());
    port.families = [Family::V4].into_iter().collect();
    change(&mut port);
    snapshot.set_node(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        local_pods: LocalPods::Cidrs(vec!["10.0.0.0/8".parse().unwrap()]),
        ..snapshot.node().clone()
    });
    snapshot.set(port);
    snapshot
}

/// The laws hold also for programs that take nothing: these flows are theirs.
#[test]
fn plain_flows_from_outside_are_taken() {
    let from_outside = packet("203.0.113.2:40000", "192.168.0.11:30080");
    let from_pod = packet("10.2.0.9:40000", "192.168.0.11:30080");
    let takes = |snapshot: &Snapshot, packet: &Packet| {
        let (state, _) = Ebpf.compile(snapshot);
        check(snapshot, &state, &maps_of(&state), packet)
    };
    for balance in [Balance::Random, Balance::SourceHash, Balance::Maglev] {
        let snapshot = node_port(|port| port.balance = balance);
        assert!(takes(&snapshot, &from_outside), "{balance}");
        assert!(takes(&snapshot, &from_pod), "{balance}");
    }
    let in_turn = node_port(|port| port.balance = Balance::RoundRobin);
    assert!(!takes(&in_turn, &from_outside));
    // The short cut of pods has another list.
    let local = node_port(|port| {
        port.external_policy = TrafficPolicy::Local;
        let mut endpoints = port.endpoints.to_vec();
        endpoints[0].local = true;
        port.endpoints = endpoints.into();
    });
    assert!(takes(&local, &from_outside));
    assert!(!takes(&local, &from_pod));
    let (state, _) = Ebpf.compile(&local);
    let said = choose(&maps_of(&state), &[(&from_pod, 0)]);
    assert_eq!(said[0].chosen, OF_A_POD);
}

/// An external IP that is an address of the node hides a NodePort of the same number, also when it is left to the rules.
#[test]
fn a_frontend_of_the_rules_is_not_taken_for_a_node_port() {
    let mut snapshot = node_port(|_| ());
    let mut other = ServicePort::clone(snapshot.ports().next().unwrap());
    other.key = portolan_model::PortKey::new("shop", "sticky", "http", other.key.protocol);
    other.cluster_ips = vec!["172.16.9.9".parse().unwrap()];
    other.external_ips = vec!["192.168.0.11".parse().unwrap()];
    other.port = 30_080.try_into().unwrap();
    other.node_port = None;
    other.affinity = Some(portolan_model::Affinity {
        timeout: std::time::Duration::from_secs(60),
    });
    snapshot.set(other);
    let (state, _) = Ebpf.compile(&snapshot);
    let to_both = packet("203.0.113.2:40000", "192.168.0.11:30080");
    assert!(!check(&snapshot, &state, &maps_of(&state), &to_both));
    let said = choose(&maps_of(&state), &[(&to_both, 0)]);
    assert_eq!(said[0].chosen, OF_NOBODY);
    assert_eq!(Ebpf.trace(&state, &to_both), snapshot.route(&to_both));
}

/// While a map is being changed, a program may find an entry and not its slots: the rules do it then.
#[test]
fn a_slot_that_is_not_there_is_left_to_the_rules() {
    let (state, _) = Ebpf.compile(&node_port(|_| ()));
    let mut maps = maps_of(&state);
    maps.slots.clear();
    let from_outside = packet("203.0.113.2:40000", "192.168.0.11:30080");
    assert_eq!(choose(&maps, &[(&from_outside, 1)])[0].chosen, WITHOUT_SLOT);
}

/// A range of either family is read as it was written.
#[test]
fn ranges_are_read_as_they_were_written() {
    use portolan_dataplane::ebpf::outside::read_range;
    for text in [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "10.1.2.3/32",
        "fd00:10::/32",
        "::/0",
    ] {
        let range = text.parse().unwrap();
        assert_eq!(read_range(&range_of(range)), Some(range));
    }
}
