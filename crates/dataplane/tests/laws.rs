//! The laws of the nftables backend, on random worlds.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod ways;
mod world;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;
use std::time::Duration;

use fake::FakeKernel;
use portolan_dataplane::nftables::{
    Class, ENDPOINTS_MAX, Element, Nftables, Op, Ops, Readback, Spot, State, adopt, show,
};
use portolan_model::{Affinity, Backend, Balance, Endpoint, ServicePort, Snapshot};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rules_do_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 60),
    ) {
        let (state, _) = Nftables.compile(&snapshot);
        for packet in packets {
            let (wanted, found) = (snapshot.route(&packet), Nftables.trace(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, show(&state));
            let (wanted, found) = (snapshot.shares(&packet), Nftables.shares(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, show(&state));
        }
    }

    #[test]
    fn updates_give_what_compile_gives(
        mut snapshot in world::snapshot(),
        steps in vec(vec(world::change(), 1..4), 1..8),
    ) {
        let (mut state, _) = Nftables.compile(&snapshot);
        let mut kernel = FakeKernel::default();
        kernel.apply(&Nftables.diff(None, &state)).unwrap();
        for step in steps {
            let (before, old) = (snapshot.clone(), state.clone());
            step.iter().for_each(|change| change.make(&mut snapshot));
            let touched = snapshot.touched(&before);
            if snapshot.node() == before.node() {
                Nftables.update(&mut state, &snapshot, &touched);
            } else {
                state = Nftables.compile(&snapshot).0;
            }
            let (whole, _) = Nftables.compile(&snapshot);
            prop_assert!(state == whole, "{}\n--- compiled ---\n{}", show(&state), show(&whole));
            prop_assert_eq!(show(&state), show(&whole));
            let ops = Nftables.diff(Some(&old), &state);
            prop_assert_eq!(Nftables.is_empty(&ops), old == state);
            changes_only_what_differs(&ops, &old, &state, snapshot.node() == before.node())?;
            chains_stand_before_they_are_led_to(&ops)?;
            kernel.apply(&ops).unwrap();
            let read = kernel.read().unwrap();
            prop_assert!(read == state, "{}\n--- wanted ---\n{}", show(&read), show(&state));
        }
    }

    #[test]
    fn diff_goes_from_anything_to_anything(a in world::snapshot(), b in world::snapshot()) {
        let (a, b) = (Nftables.compile(&a).0, Nftables.compile(&b).0);
        prop_assert!(Nftables.is_empty(&Nftables.diff(Some(&a), &a)));
        let mut kernel = FakeKernel::default();
        kernel.apply(&Nftables.diff(None, &a)).unwrap();
        let adopted = kernel.read().unwrap();
        prop_assert!(adopted == a);
        kernel.apply(&Nftables.diff(Some(&adopted), &b)).unwrap();
        prop_assert!(kernel.read().unwrap() == b);
        kernel.apply(&Nftables.diff(None, &a)).unwrap();
        prop_assert!(kernel.read().unwrap() == a);
    }

    #[test]
    fn the_order_of_events_does_not_matter(ports in vec(world::port(), 1..6), node in world::node()) {
        let mut seen = std::collections::BTreeSet::new();
        let mut ports = ports;
        ports.retain(|port| seen.insert(port.key.clone()));
        let of = |ports: &mut dyn Iterator<Item = &portolan_model::ServicePort>| {
            let mut snapshot = Snapshot::new(node.clone());
            ports.for_each(|port| snapshot.set(port.clone()));
            Nftables.compile(&snapshot).0
        };
        let (forth, back) = (of(&mut ports.iter()), of(&mut ports.iter().rev()));
        prop_assert_eq!(show(&forth), show(&back));
    }
}

/// The kernel is told of exactly the elements that differ, each once, and of no chain that stays.
fn changes_only_what_differs(
    ops: &Ops,
    old: &State,
    new: &State,
    same_node: bool,
) -> Result<(), TestCaseError> {
    let (mut removed, mut added) = (Vec::<Element>::new(), Vec::<Element>::new());
    for op in &ops.0 {
        match op {
            Op::DeleteElements(_, _, all) | Op::ForgetElements(_, _, all) => removed.extend(all),
            Op::AddElements(_, _, all) => added.extend(all),
            // Rules depend on nothing else than the node and the class, which has a name of its own.
            Op::FlushChain(..) | Op::Reset(_) => prop_assert!(!same_node, "{op:?}"),
            Op::AddChain(..) | Op::AddRules(..) | Op::DeleteChain(..) => {}
        }
    }
    let set = |state: &State| state.elements().into_iter().collect::<BTreeSet<_>>();
    let (old, new) = (set(old), set(new));
    for list in [&mut removed, &mut added] {
        list.sort();
    }
    prop_assert_eq!(&removed, &old.difference(&new).copied().collect::<Vec<_>>());
    prop_assert_eq!(&added, &new.difference(&old).copied().collect::<Vec<_>>());
    Ok(())
}

/// A packet that meets the end of a transaction finds its elements, and chains as they were before it.
fn chains_stand_before_they_are_led_to(ops: &Ops) -> Result<(), TestCaseError> {
    let transactions = ops.transactions();
    let count: usize = transactions.iter().map(Vec::len).sum();
    prop_assert_eq!(count, ops.0.len());
    for transaction in &transactions {
        let any = |is: fn(&Op) -> bool| transaction.iter().any(|op| is(op));
        let makes_chains = any(|op| matches!(op, Op::AddChain(..)));
        let leads = any(|op| matches!(op, Op::AddElements(_, set, _) if !set.has_verdicts()));
        prop_assert!(!(makes_chains && leads), "{transaction:?}");
        let all_have_rules = transaction.iter().all(|op| match op {
            Op::AddChain(family, chain) => transaction.iter().any(
                |op| matches!(op, Op::AddRules(of, rules, _) if (of, rules) == (family, chain)),
            ),
            _ => true,
        });
        prop_assert!(all_have_rules, "{transaction:?}");
    }
    Ok(())
}

/// What somebody else has changed is not taken for something of ours, or it is read as it is.
#[test]
fn what_is_adopted_is_what_is_there() {
    let (state, _) = Nftables.compile(&ways::every_way(14));
    let mut kernel = FakeKernel::default();
    kernel.apply(&Nftables.diff(None, &state)).unwrap();
    let whole = kernel.found().unwrap();
    assert!(adopt(&whole).unwrap() == state);
    let mut backwards = whole.clone();
    for table in &mut backwards {
        table.elements.reverse();
        table.chains.reverse();
    }
    assert!(
        adopt(&backwards).unwrap() == state,
        "the kernel has an order of its own"
    );
    let honest = |found: &[Readback; 2], what: &dyn Debug| {
        let Some(adopted) = adopt(found) else { return };
        let all = |elements: Vec<Element>| elements.into_iter().collect::<BTreeSet<_>>();
        let there = found.iter().flat_map(|table| table.elements.clone());
        assert_eq!(all(adopted.elements()), all(there.collect()), "{what:?}");
    };
    let other_id = |id: &Spot| Spot {
        port: id.port + 1,
        ..*id
    };
    for family in 0..2 {
        for index in 0..whole[family].elements.len() {
            let mut found = whole.clone();
            let gone = found[family].elements.remove(index);
            honest(&found, &gone);
            let instead = match gone {
                Element::Endpoint(id, slot, to) => Element::StickyEndpoint(id, slot, to),
                Element::StickyEndpoint(id, slot, to) => Element::Endpoint(id, slot, to),
                Element::Member(list, id, to) => Element::Member(list, other_id(&id), to),
                _ => continue,
            };
            found[family].elements.push(instead);
            honest(&found, &instead);
        }
        for index in 0..whole[family].chains.len() {
            let mut found = whole.clone();
            found[family].chains.remove(index);
            assert!(adopt(&found).is_none(), "a chain is missing");
        }
        let mut found = whole.clone();
        found[family].chains.push(("strange".to_owned(), vec![0]));
        assert!(adopt(&found).is_none(), "a chain is somebody else's");
    }
}

/// R-AFFINITY-3: the timeout that is written, also for a single endpoint, which may get company.
#[test]
fn classes_say_what_chains_need() {
    let mut snapshot = fake::many_services(1);
    let port = snapshot.ports().next().unwrap().clone();
    let mut class = |seconds: u64, endpoints: usize| {
        snapshot.set(ServicePort {
            affinity: Some(Affinity {
                timeout: Duration::from_secs(seconds),
            }),
            balance: Balance::RoundRobin,
            endpoints: port.endpoints[..endpoints].into(),
            ..ServicePort::clone(&port)
        });
        let (state, _) = Nftables.compile(&snapshot);
        let classes = state
            .elements()
            .into_iter()
            .find_map(|element| match element {
                Element::Class(_, class) => Some((class.affinity_s, class.balance)),
                _ => None,
            });
        classes.unwrap()
    };
    let longest = Class::AFFINITY_S_MAX;
    for (seconds, written) in [(0, 1), (1, 1), (10_800, 10_800), (1_000_000, longest)] {
        assert_eq!(class(seconds, 1), (written, Balance::Random));
        assert_eq!(class(seconds, 2), (written, Balance::RoundRobin));
    }
    assert_eq!(class(10, 0), (0, Balance::Random));
}

/// R-AFFINITY-3: also for the shortest time.
#[test]
fn a_client_is_remembered_for_a_second() {
    let mut snapshot = fake::many_services(1);
    let port = snapshot.ports().next().unwrap().clone();
    let mut rules = |affinity: Option<u64>| {
        let timeout = affinity.map(Duration::from_secs);
        snapshot.set(ServicePort {
            affinity: timeout.map(|timeout| Affinity { timeout }),
            ..ServicePort::clone(&port)
        });
        show(&Nftables.compile(&snapshot).0)
    };
    let remembers = |rules: &str| rules.matches("update @affinity").count();
    let long = rules(Some(10_800));
    assert!(remembers(&long) > 0, "{long}");
    let short = rules(Some(1));
    assert_eq!(remembers(&short), remembers(&long), "{short}");
    let looks = |rules: &str| rules.matches("@affinity").count();
    assert_eq!(looks(&short), looks(&long), "{short}");
    assert_eq!(remembers(&rules(None)), 0);
}

/// One more than the slots have numbers for: the first get connections, and the user is told.
#[test]
fn too_many_endpoints_are_told_and_left_out() {
    let mut snapshot = fake::many_services(1);
    let port = snapshot.ports().next().unwrap().clone();
    let mut with = |count: usize| {
        let at = |n: u32| Endpoint::ready((Ipv4Addr::from(0x0a01_0000 + n), 8080).into());
        let endpoints = (0..count as u32).map(at).collect();
        snapshot.set(ServicePort {
            endpoints,
            ..ServicePort::clone(&port)
        });
        let (state, problems) = Nftables.compile(&snapshot);
        let is_slot = |element: &&Element| matches!(element, Element::Endpoint(..));
        let slots = state.elements().iter().filter(is_slot).count();
        let classes: Vec<u16> = state.elements().iter().filter_map(main_of).collect();
        let problems: Vec<String> = problems.iter().map(|p| p.message.clone()).collect();
        (slots, classes, problems)
    };
    let most = ENDPOINTS_MAX as u16;
    assert_eq!(with(ENDPOINTS_MAX), (ENDPOINTS_MAX, vec![most], vec![]));
    let (slots, classes, problems) = with(ENDPOINTS_MAX + 1);
    assert_eq!((slots, classes), (ENDPOINTS_MAX, vec![most]));
    let told = format!("has {} endpoints; only the first", ENDPOINTS_MAX + 1);
    assert!(
        problems.len() == 1 && problems[0].contains(&told),
        "{problems:?}"
    );
}

fn main_of(element: &Element) -> Option<u16> {
    match element {
        Element::Class(_, class) => Some(class.main),
        _ => None,
    }
}

/// One more endpoint at a thousand Services is a handful of elements.
#[test]
fn a_change_tells_the_kernel_only_itself() {
    let mut snapshot = fake::many_services(1000);
    let (mut state, _) = Nftables.compile(&snapshot);
    let (before, old) = (snapshot.clone(), state.clone());
    let mut port = portolan_model::ServicePort::clone(snapshot.ports().nth(500).unwrap());
    let mut endpoints = port.endpoints.to_vec();
    endpoints[0].address.set_ip("10.77.0.1".parse().unwrap());
    port.endpoints = endpoints.into();
    snapshot.set(port);
    Nftables.update(&mut state, &snapshot, &snapshot.touched(&before));
    let ops = Nftables.diff(Some(&old), &state);
    let elements = |op: &Op| match op {
        Op::AddElements(_, _, all)
        | Op::DeleteElements(_, _, all)
        | Op::ForgetElements(_, _, all) => all.len(),
        other => panic!("unexpected {other:?}"),
    };
    let count: usize = ops.0.iter().map(elements).sum();
    assert!(count <= 6, "{ops:?}");
}

/// What is wrong with a Service is told when it is compiled and when it is updated.
#[test]
fn a_clash_is_told() {
    let mut snapshot = fake::many_services(2);
    let before = snapshot.clone();
    let mut port = portolan_model::ServicePort::clone(snapshot.ports().nth(1).unwrap());
    port.cluster_ips = snapshot.ports().next().unwrap().cluster_ips.clone();
    snapshot.set(port);
    let (mut state, _) = Nftables.compile(&before);
    let updated = Nftables.update(&mut state, &snapshot, &snapshot.touched(&before));
    let (_, compiled) = Nftables.compile(&snapshot);
    let reasons = |problems: &[portolan_model::Problem]| -> Vec<&str> {
        problems.iter().map(|problem| problem.reason).collect()
    };
    assert_eq!(reasons(&updated), ["AddressInUse"]);
    assert_eq!(reasons(&compiled), ["AddressInUse"]);
}

/// The first frontend of a Service port is its identity, so that its packets need no second lookup.
#[test]
fn the_first_frontend_is_no_alias() {
    let (state, _) = Nftables.compile(&fake::many_services(1));
    assert!(!show(&state).contains("alias-"), "{}", show(&state));
}
