//! The portal of userspace mode: where it differs from nftables mode, and that one transaction leads from one to the other.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod ways;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use fake::FakeKernel;
use portolan_dataplane::nftables::{Nftables, Ops, Portal, PortalTarget, State, show};
use portolan_model::{
    ApplyError, Backend, Doors, Family, NodeFacts, Origin, Packet, Protocol, ServicePort, Snapshot,
    Target, TrafficPolicy, Verdict,
};
use proptest::collection::vec;
use proptest::prelude::*;

const PORTAL: Portal = Portal {
    doors: Doors { first_port: 10270 },
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Who is let in, rejected or dropped is the oracle's word; who would be delivered comes to the door of its origin.
    #[test]
    fn the_portal_does_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 60),
    ) {
        let (state, _) = PORTAL.compile(&snapshot);
        let (plain, _) = Nftables.compile(&snapshot);
        for packet in packets {
            let found = PORTAL.trace(&state, &packet);
            let door = PORTAL.doors.at(
                snapshot.node(),
                Family::of(packet.destination.ip()),
                packet.origin(snapshot.node()),
            );
            let shares: Vec<SocketAddr> = PORTAL.shares(&state, &packet).into_keys().collect();
            match (Nftables.trace(&plain, &packet), door) {
                (Verdict::Deliver(_), Some(door)) if packet.protocol != Protocol::Sctp => {
                    let to: Vec<SocketAddr> = found.endpoints().collect();
                    prop_assert_eq!(&to, &[door], "{:?}\n{}", packet, show(&state));
                    prop_assert_eq!(&shares, &[door]);
                }
                (wanted, _) => {
                    prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, show(&state));
                    let wanted = Nftables.shares(&plain, &packet).into_keys();
                    prop_assert_eq!(shares, wanted.collect::<Vec<_>>());
                }
            };
        }
    }

    #[test]
    fn updates_give_what_compile_gives(
        mut snapshot in world::snapshot(),
        changes in vec(world::change(), 1..8),
    ) {
        let (mut state, _) = PORTAL.compile(&snapshot);
        for change in changes {
            let before = snapshot.clone();
            change.make(&mut snapshot);
            match snapshot.node() == before.node() {
                true => drop(PORTAL.update(&mut state, &snapshot, &snapshot.touched(&before))),
                false => state = PORTAL.compile(&snapshot).0,
            }
            let (whole, _) = PORTAL.compile(&snapshot);
            prop_assert!(state == whole, "{}\n--- compiled ---\n{}", show(&state), show(&whole));
        }
    }

    /// The modes share their tables: what one left behind the other adopts, and changes only what differs.
    #[test]
    fn one_transaction_leads_from_one_mode_to_the_other(snapshot in world::snapshot()) {
        let (plain, portal) = (Nftables.compile(&snapshot).0, PORTAL.compile(&snapshot).0);
        let mut kernel = FakeKernel::default();
        kernel.apply(&Nftables.diff(None, &plain)).unwrap();
        for wanted in [&portal, &plain] {
            let standing = kernel.read().unwrap();
            kernel.apply(&PORTAL.diff(Some(&standing), wanted)).unwrap();
            prop_assert!(kernel.read().unwrap() == *wanted);
        }
        prop_assert!(PORTAL.is_empty(&PORTAL.diff(Some(&portal), &portal)));
        prop_assert_eq!(PORTAL.is_empty(&PORTAL.diff(Some(&plain), &portal)), plain == portal);
    }
}

/// One Service with every kind of rule, and one that nobody serves, on a node with doors in one family only.
fn world() -> Snapshot {
    let plain = ways::every_way(1);
    let mut snapshot = Snapshot::new(NodeFacts {
        node_port_addresses: ["192.168.0.11".parse().unwrap()].into(),
        ..plain.node().clone()
    });
    let mut port = ServicePort::clone(plain.ports().next().unwrap());
    port.external_policy = TrafficPolicy::Local;
    snapshot.set(port);
    snapshot
}

#[test]
fn rules_are_as_they_were_read() {
    let found = show(&PORTAL.compile(&world()).0);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/portal.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    assert_eq!(
        found,
        std::fs::read_to_string(path).unwrap(),
        "UPDATE=1 writes {path}"
    );
}

/// Doors that do not exist because their ports are no ports: nobody is sent there.
#[test]
fn without_a_door_a_packet_passes() {
    let portal = Portal {
        doors: Doors { first_port: 65_535 },
    };
    let world = world();
    let (state, _) = portal.compile(&world);
    let to = SocketAddr::new(world.ports().next().unwrap().cluster_ips[0], 80);
    let packet = |source: &str, interface: Option<&str>| Packet {
        source: source.parse().unwrap(),
        destination: to,
        protocol: Protocol::Tcp,
        interface: interface.map(Arc::from),
    };
    let pod = packet("10.1.0.2:4000", Some("pod0"));
    assert_eq!(pod.origin(world.node()), Origin::Pod);
    let door = "192.168.0.11:65535".parse().unwrap();
    assert_eq!(
        portal.trace(&state, &pod),
        Verdict::Deliver([(door, false)].into())
    );
    let outside = packet("203.0.113.2:4000", Some("outside"));
    assert_eq!(portal.trace(&state, &outside), Verdict::Pass);
}

/// Says what was asked of it.
#[derive(Default)]
struct Heard(Vec<&'static str>);

impl Target<Nftables> for Heard {
    fn apply(&mut self, _: &Ops) -> Result<(), ApplyError> {
        self.0.push("apply");
        Ok(())
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        self.0.push("read");
        Ok(Some(State::default()))
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        self.0.push("unchanged");
        Ok(self.0.len() > 3)
    }
}

#[test]
fn a_target_of_the_portal_is_one_of_nftables() {
    let mut target = PortalTarget(Heard::default());
    target.apply(&Ops::default()).unwrap();
    assert!(target.read().unwrap().is_some());
    assert!(!target.unchanged().unwrap());
    assert!(target.unchanged().unwrap());
    assert_eq!(target.0.0, ["apply", "read", "unchanged", "unchanged"]);
}
