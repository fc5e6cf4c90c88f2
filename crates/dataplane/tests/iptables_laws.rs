//! The laws of the iptables backend, on random worlds.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
#[allow(dead_code)] // Its wiping is for another proof.
#[path = "../../testkit/src/fake_iptables.rs"]
mod fake_iptables;
mod world;

use fake_iptables::FakeIptables;
use portolan_dataplane::iptables::{Iptables, LARGE_CLUSTER, commits, show, write_removal};
use portolan_model::{
    Backend, Balance, Endpoint, Family, Packet, Problem, ServicePort, Snapshot, Target,
};
use proptest::collection::vec;
use proptest::prelude::*;

const IPTABLES: Iptables = Iptables::DEFAULT;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_rules_do_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 60),
    ) {
        let snapshot = without_hashes(&snapshot);
        let (state, _) = IPTABLES.compile(&snapshot);
        for packet in packets {
            let (wanted, found) = (snapshot.route(&packet), IPTABLES.trace(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, show(&state));
            let (wanted, found) = (snapshot.shares(&packet), IPTABLES.shares(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, show(&state));
        }
    }

    #[test]
    fn updates_give_what_compile_gives(
        mut snapshot in world::snapshot(),
        steps in vec(vec(world::change(), 1..4), 1..8),
    ) {
        let (mut state, _) = IPTABLES.compile(&snapshot);
        let mut kernel = FakeIptables::default();
        kernel.apply(&IPTABLES.diff(None, &state)).unwrap();
        for step in steps {
            let (before, old) = (snapshot.clone(), state.clone());
            step.iter().for_each(|change| change.make(&mut snapshot));
            let touched = snapshot.touched(&before);
            if snapshot.node() == before.node() {
                IPTABLES.update(&mut state, &snapshot, &touched);
            } else {
                state = IPTABLES.compile(&snapshot).0;
            }
            let (whole, _) = IPTABLES.compile(&snapshot);
            prop_assert!(state == whole, "{}\n--- compiled ---\n{}", show(&state), show(&whole));
            prop_assert_eq!(show(&state), show(&whole));
            let ops = IPTABLES.diff(Some(&old), &state);
            prop_assert_eq!(IPTABLES.is_empty(&ops), old == state);
            kernel.apply(&ops).unwrap();
            let read = kernel.read().unwrap();
            prop_assert!(read.as_ref() == Some(&state), "{}", kernel.save(Family::V4));
        }
    }

    #[test]
    fn diff_goes_from_anything_to_anything(a in world::snapshot(), b in world::snapshot()) {
        let (a, b) = (IPTABLES.compile(&a).0, IPTABLES.compile(&b).0);
        prop_assert!(IPTABLES.is_empty(&IPTABLES.diff(Some(&a), &a)));
        let mut kernel = FakeIptables::default();
        kernel.apply(&IPTABLES.diff(None, &a)).unwrap();
        let adopted = kernel.read().unwrap().unwrap();
        prop_assert!(adopted == a);
        kernel.apply(&IPTABLES.diff(Some(&adopted), &b)).unwrap();
        prop_assert!(kernel.read().unwrap() == Some(b));
        kernel.apply(&IPTABLES.diff(None, &a)).unwrap();
        prop_assert!(kernel.read().unwrap() == Some(a));
        for family in Family::ALL {
            let mut text = String::new();
            let found = kernel.saved(family);
            write_removal(family, &found, kernel.chains_max, &mut text).unwrap();
            kernel.restore(family, &text).unwrap();
            prop_assert_eq!(kernel.save(family), FakeIptables::default().save(family));
        }
    }

    #[test]
    fn the_order_of_events_does_not_matter(ports in vec(world::port(), 1..6), node in world::node()) {
        let mut seen = std::collections::BTreeSet::new();
        let mut ports = ports;
        ports.retain(|port| seen.insert(port.key.clone()));
        let of = |ports: &mut dyn Iterator<Item = &ServicePort>| {
            let mut snapshot = Snapshot::new(node.clone());
            ports.for_each(|port| snapshot.set(port.clone()));
            IPTABLES.compile(&snapshot).0
        };
        let (forth, back) = (of(&mut ports.iter()), of(&mut ports.iter().rev()));
        prop_assert_eq!(show(&forth), show(&back));
    }
}

/// Hashes of clients are what this mode cannot do, and says so; everything else must be as the oracle says.
fn without_hashes(snapshot: &Snapshot) -> Snapshot {
    let mut all = snapshot.clone();
    for port in snapshot.ports() {
        if matches!(port.balance, Balance::SourceHash | Balance::Maglev) {
            all.set(ServicePort {
                balance: Balance::Random,
                ..ServicePort::clone(port)
            });
        }
    }
    all
}

/// Brings `kernel` from one Snapshot to the next; says how many lines of text that took.
fn change(kernel: &mut FakeIptables, from: &Snapshot, to: &Snapshot) -> usize {
    let (old, _) = IPTABLES.compile(from);
    let mut new = old.clone();
    IPTABLES.update(&mut new, to, &to.touched(from));
    let before = kernel.lines;
    kernel.apply(&IPTABLES.diff(Some(&old), &new)).unwrap();
    assert!(kernel.read().unwrap() == Some(new));
    kernel.lines - before
}

/// A change of one of a thousand Services is a handful of lines, whatever changes.
#[test]
fn a_change_writes_only_itself() {
    let many = fake::many_services(1000);
    let mut kernel = FakeIptables::default();
    kernel
        .apply(&IPTABLES.diff(None, &IPTABLES.compile(&many).0))
        .unwrap();
    let middle = many.ports().nth(500).unwrap();

    let mut other_endpoint = many.clone();
    let mut endpoints = middle.endpoints.to_vec();
    endpoints[0].address.set_ip("10.77.0.1".parse().unwrap());
    other_endpoint.set(ServicePort {
        endpoints: endpoints.into(),
        ..ServicePort::clone(middle)
    });
    let mut no_endpoint = many.clone();
    no_endpoint.set(ServicePort {
        endpoints: [].into(),
        ..ServicePort::clone(middle)
    });
    let mut gone = many.clone();
    gone.remove(&middle.key);

    for next in [&other_endpoint, &no_endpoint, &gone] {
        let there = change(&mut kernel, &many, next);
        let back = change(&mut kernel, next, &many);
        assert!(
            there <= 20 && back <= 20,
            "{there} lines there, {back} lines back"
        );
    }
}

/// To delete many lines one by one costs the tool more than to write a chain anew.
#[test]
fn many_lines_go_at_once() {
    let many = fake::many_services(400);
    let mut few = many.clone();
    many.ports().skip(10).for_each(|port| few.remove(&port.key));
    let mut kernel = FakeIptables::default();
    kernel
        .apply(&IPTABLES.diff(None, &IPTABLES.compile(&many).0))
        .unwrap();
    let ops = IPTABLES.diff(Some(&IPTABLES.compile(&many).0), &IPTABLES.compile(&few).0);
    assert!(
        ops.changes.iter().all(|change| change.removed.is_empty()),
        "{:?}",
        ops.changes
    );
    kernel.apply(&ops).unwrap();
    assert!(kernel.read().unwrap() == Some(IPTABLES.compile(&few).0));
}

/// Words for people go when the cluster grows, and come back when it shrinks.
#[test]
fn a_large_cluster_has_no_comments_for_services() {
    let small = fake::many_services(LARGE_CLUSTER / 2);
    let large = fake::many_services(LARGE_CLUSTER / 2 + 1);
    let words = "shop/s000001:http cluster IP";
    assert!(show(&IPTABLES.compile(&small).0).contains(words));
    assert!(!show(&IPTABLES.compile(&large).0).contains(words));
    let mut kernel = FakeIptables::default();
    kernel
        .apply(&IPTABLES.diff(None, &IPTABLES.compile(&small).0))
        .unwrap();
    change(&mut kernel, &small, &large);
    assert!(!kernel.save(Family::V4).contains(words));
    change(&mut kernel, &large, &small);
    assert!(kernel.save(Family::V4).contains(words));
}

/// Others have rules too; ours are found among them, and theirs stay.
#[test]
fn rules_of_others_stay() {
    let mut kernel = FakeIptables::default();
    let theirs = "*nat\n:DOCKER - [0:0]\n:KUBE-XLB-XPGD46QRK7WJZT7O - [0:0]\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n-A DOCKER -i docker0 -j RETURN\nCOMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n";
    kernel.restore(Family::V4, theirs).unwrap();
    let before = kernel.save(Family::V4);
    kernel
        .apply(&IPTABLES.diff(None, &IPTABLES.compile(&fake::many_services(3)).0))
        .unwrap();
    theirs
        .lines()
        .filter(|line| line.starts_with("-A"))
        .for_each(|line| {
            assert!(kernel.save(Family::V4).contains(line), "{line}");
        });
    let mut text = String::new();
    let found = kernel.saved(Family::V4);
    write_removal(Family::V4, &found, kernel.chains_max, &mut text).unwrap();
    kernel.restore(Family::V4, &text).unwrap();
    assert_eq!(kernel.save(Family::V4), before);
}

/// Beside ipvs mode, flows come to the filter that nothing has rewritten (docs/decisions/0007).
#[test]
fn the_filter_comes_last_and_goes_first() {
    let first = |text: &str, table: &str| text.find(table).unwrap();
    let (state, _) = IPTABLES.compile(&fake::many_services(1));
    let all = show(&state);
    assert!(first(&all, "*nat") < first(&all, "*filter"), "{all}");
    let mut kernel = FakeIptables::default();
    kernel.apply(&IPTABLES.diff(None, &state)).unwrap();
    let found = kernel.saved(Family::V4);
    let mut text = String::new();
    write_removal(Family::V4, &found, kernel.chains_max, &mut text).unwrap();
    assert!(first(&text, "*filter") < first(&text, "*nat"), "{text}");
}

/// What kube-proxy left is of our names but not of our making: it goes at once when the first State comes.
#[test]
fn kube_proxys_rules_are_replaced() {
    let mut kernel = FakeIptables::default();
    let left = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-XPGD46QRK7WJZT7O - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:CNI-HOSTPORT - [0:0]\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n-A CNI-HOSTPORT -j KUBE-MARK-MASQ\n-A KUBE-SERVICES -d 172.30.0.41/32 -p tcp -m comment --comment \"ns1/svc1:p80 cluster IP\" -m tcp --dport 80 -j KUBE-SVC-XPGD46QRK7WJZT7O\n-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n*filter\n:KUBE-SERVICES - [0:0]\n-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\nCOMMIT\n";
    kernel.restore(Family::V4, left).unwrap();
    assert!(kernel.read().unwrap().is_none());
    let (state, _) = IPTABLES.compile(&fake::many_services(1));
    kernel.apply(&IPTABLES.diff(None, &state)).unwrap();
    assert!(kernel.read().unwrap() == Some(state));
    let save = kernel.save(Family::V4);
    assert!(!save.contains("XPGD46QRK7WJZT7O"), "{save}");
    assert!(save.contains("-A CNI-HOSTPORT -j KUBE-MARK-MASQ"), "{save}");
}

/// The chances of a list with weights are the weights.
#[test]
fn weights_are_chances() {
    let mut snapshot = fake::many_services(1);
    let mut port = ServicePort::clone(snapshot.ports().next().unwrap());
    let endpoint = |n: u8, weight| Endpoint {
        weight,
        ..Endpoint::ready(([10, 0, 0, n], 80).into())
    };
    port.endpoints = [endpoint(1, 1), endpoint(2, 2), endpoint(3, 1)].into();
    snapshot.set(port.clone());
    let chances = |snapshot: &Snapshot| -> Vec<String> {
        let text = show(&IPTABLES.compile(snapshot).0);
        let lines = text.lines().filter(|line| line.contains("statistic"));
        lines
            .map(|line| line.split(" -m statistic ").nth(1).unwrap().to_owned())
            .collect()
    };
    let found = chances(&snapshot);
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("--mode random --probability 0.25000000000"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with("--mode random --probability 0.66666666651"),
        "{found:?}"
    );

    port.balance = Balance::RoundRobin;
    snapshot.set(port.clone());
    let found = chances(&snapshot);
    assert_eq!(
        found.len(),
        3,
        "four turns, the last one without a condition"
    );
    assert!(
        found[0].starts_with("--mode nth --every 4 --packet 0"),
        "{found:?}"
    );

    port.balance = Balance::Maglev;
    snapshot.set(port);
    let (_, problems) = IPTABLES.compile(&snapshot);
    assert_eq!(problems[0].reason, Problem::NOT_IN_THIS_MODE);
}

/// What stands is recognised in whatever family, and a packet of nobody passes.
#[test]
fn nobody_else_is_touched() {
    let (state, _) = IPTABLES.compile(&fake::many_services(10));
    let packet = Packet {
        protocol: portolan_model::Protocol::Tcp,
        source: "10.0.0.9:4000".parse().unwrap(),
        destination: "203.0.113.2:443".parse().unwrap(),
        interface: Some("eth0".into()),
    };
    assert_eq!(
        IPTABLES.trace(&state, &packet),
        portolan_model::Verdict::Pass
    );
}

/// Whoever shares the packet mark with us may have its bit.
#[test]
fn the_mark_and_what_fits_no_flow_are_for_users_to_say() {
    let other = Iptables {
        mark: 0x1_0000,
        drop_invalid: false,
    };
    let snapshot = fake::many_services(3);
    let (plain, chosen) = (IPTABLES.compile(&snapshot).0, other.compile(&snapshot).0);
    let (plain_text, chosen_text) = (show(&plain), show(&chosen));
    assert!(plain_text.contains("0x4000/0x4000") && plain_text.contains("INVALID"));
    assert!(!chosen_text.contains("0x4000") && !chosen_text.contains("INVALID"));
    assert!(chosen_text.contains("-j MARK --set-xmark 0x10000/0x10000"));
    let mut kernel = FakeIptables::default();
    kernel.apply(&IPTABLES.diff(None, &plain)).unwrap();
    let adopted = kernel.read().unwrap();
    let ops = other.diff(adopted.as_ref(), &chosen);
    let rewritten = ops.changes.iter().flat_map(|change| &change.chains);
    assert_eq!(
        rewritten.count(),
        6,
        "three chains of each family speak of it"
    );
    kernel.apply(&ops).unwrap();
    assert!(kernel.read().unwrap() == Some(chosen));
}

/// In one commit or in several: what stands at the end is the same.
#[test]
fn large_changes_go_in_parts() {
    let state = IPTABLES.compile(&fake::many_services(50)).0;
    let ops = IPTABLES.diff(None, &state);
    assert_eq!(
        commits(&ops, usize::MAX),
        6,
        "one for each table of each family"
    );
    let stand = |chains_max| {
        let mut kernel = FakeIptables::default();
        kernel.chains_max = chains_max;
        kernel.apply(&ops).unwrap();
        kernel.save(Family::V4)
    };
    let parts = commits(&ops, 10);
    assert!(
        (21..30).contains(&parts),
        "150 chains of Services in parts of 10: {parts}"
    );
    assert_eq!(stand(10), stand(usize::MAX));
}
