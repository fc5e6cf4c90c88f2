//! The laws of the eBPF backend, on random worlds.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod maps;
mod world;

use maps::Maps;
use maps::outside::OutsideMaps;
use portolan_dataplane::ebpf::{Ebpf, Op, connects};
use portolan_dataplane::nftables::Nftables;
use portolan_model::{Backend, Endpoint, Packet, Protocol, ServicePort};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Both ways: what programs do with sockets, and what the rules underneath do with the same packets.
    #[test]
    fn programs_and_rules_do_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 60),
    ) {
        let (state, _) = Ebpf.compile(&snapshot);
        for packet in packets {
            let wanted = (snapshot.route(&packet), snapshot.shares(&packet));
            let found = (Ebpf.trace(&state, &packet), Ebpf.shares(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{:?}", packet, state.sockets);
            let below = (Nftables.trace(&state.rules, &packet), Nftables.shares(&state.rules, &packet));
            prop_assert_eq!(&below, &wanted, "{:?}", packet);
        }
    }

    #[test]
    fn updates_give_what_compile_gives(
        mut snapshot in world::snapshot(),
        steps in vec(vec(world::change(), 1..4), 1..8),
    ) {
        let (mut state, _) = Ebpf.compile(&snapshot);
        let mut maps = Maps::default();
        let mut outside = OutsideMaps::default();
        let ops = Ebpf.diff(None, &state);
        ops.sockets.iter().for_each(|op| maps.op(op));
        ops.outside.iter().for_each(|op| outside.op(op));
        for step in steps {
            let (before, old) = (snapshot.clone(), state.clone());
            step.iter().for_each(|change| change.make(&mut snapshot));
            let touched = snapshot.touched(&before);
            if snapshot.node() == before.node() {
                Ebpf.update(&mut state, &snapshot, &touched);
            } else {
                state = Ebpf.compile(&snapshot).0;
            }
            let (whole, _) = Ebpf.compile(&snapshot);
            prop_assert!(state == whole, "{:?}\n--- compiled ---\n{:?}", state.sockets, whole.sockets);
            let ops = Ebpf.diff(Some(&old), &state);
            prop_assert_eq!(Ebpf.is_empty(&ops), old == state);
            for op in &ops.sockets {
                maps.op(op);
                prop_assert!(maps.is_whole(), "a frontend leads to nothing after {:?}", op);
            }
            prop_assert!(maps.read().unwrap() == state.sockets);
            for op in &ops.outside {
                outside.op(op);
                prop_assert!(outside.is_whole(), "a frontend leads to nothing after {:?}", op);
            }
            prop_assert!(outside.read().unwrap() == state.outside);
        }
    }

    #[test]
    fn diff_goes_from_anything_to_anything(a in world::snapshot(), b in world::snapshot()) {
        let (a, b) = (Ebpf.compile(&a).0, Ebpf.compile(&b).0);
        prop_assert!(Ebpf.is_empty(&Ebpf.diff(Some(&a), &a)));
        let mut maps = Maps::default();
        let mut outside = OutsideMaps::default();
        let mut make = |from, to| {
            let ops = Ebpf.diff(from, to);
            ops.sockets.iter().for_each(|op| maps.op(op));
            ops.outside.iter().for_each(|op| outside.op(op));
            maps.read().unwrap() == to.sockets && outside.read().unwrap() == to.outside
        };
        prop_assert!(make(None, &a));
        prop_assert!(make(Some(&a), &b));
        prop_assert!(make(None, &a));
    }
}

fn from(source: &str, interface: Option<&str>) -> Packet {
    Packet {
        protocol: Protocol::Tcp,
        source: format!("{source}:40000").parse().unwrap(),
        destination: "172.16.0.0:80".parse().unwrap(),
        interface: interface.map(Into::into),
    }
}

/// The laws hold also for programs that do nothing at all: plain Services are theirs.
#[test]
fn plain_services_are_done_at_the_socket() {
    let snapshot = fake::many_services(1);
    let (state, _) = Ebpf.compile(&snapshot);
    for packet in [from("10.1.0.2", Some("pod0")), from("192.168.0.11", None)] {
        let list = connects(&state.sockets, &packet, false).map(<[_]>::len);
        assert_eq!(list, Some(2), "{packet:?}");
    }
    let outside = from("203.0.113.2", Some("outside"));
    assert_eq!(connects(&state.sockets, &outside, false), None);
}

/// One more endpoint at a thousand Services is a list, an entry, and the old list.
#[test]
fn a_change_tells_the_maps_only_itself() {
    let mut snapshot = fake::many_services(1000);
    let (mut state, _) = Ebpf.compile(&snapshot);
    let (before, old) = (snapshot.clone(), state.clone());
    let mut port = ServicePort::clone(snapshot.ports().nth(500).unwrap());
    let mut endpoints = port.endpoints.to_vec();
    endpoints.push(Endpoint::ready("10.77.0.1:8080".parse().unwrap()));
    port.endpoints = endpoints.into();
    snapshot.set(port);
    Ebpf.update(&mut state, &snapshot, &snapshot.touched(&before));
    let ops = Ebpf.diff(Some(&old), &state).sockets;
    let kind = |op: &Op| match op {
        Op::PutEndpoint(..) => "slot",
        Op::PutService(..) => "entry",
        Op::RemoveEndpoint(..) => "gone",
        _ => "other",
    };
    let kinds: Vec<&str> = ops.iter().map(kind).collect();
    assert_eq!(kinds, ["slot", "slot", "slot", "entry", "gone", "gone"]);
}

/// What somebody else has written into the maps is not taken for something of ours.
#[test]
fn what_cannot_be_ours_is_not_adopted() {
    let (state, _) = Ebpf.compile(&fake::many_services(2));
    let mut maps = Maps::default();
    let ops = Ebpf.diff(None, &state).sockets;
    ops.iter().for_each(|op| maps.op(op));
    assert!(maps.read().unwrap() == state.sockets);
    let first = *maps.endpoints.keys().next().unwrap();
    let mut torn = maps.clone();
    torn.endpoints.remove(&first);
    assert!(torn.read().is_none(), "a list without its first slot");
    let key = *maps.services.keys().next().unwrap();
    for (byte, strange) in [(16, [0, 0]), (18, [99, 0]), (18, [6, 9])] {
        let mut found = maps.clone();
        let mut other = key;
        other[byte..byte + 2].copy_from_slice(&strange);
        found.services.insert(other, found.services[&key]);
        assert!(found.read().is_none(), "{other:?}");
    }
}
