//! The laws of what stands between the transactions of one change, on random worlds.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use fake::FakeKernel;
use portolan_dataplane::nftables::{Class, Element, List, Nftables, Ops, Spot, State, Via, show};
use portolan_model::{Backend, Balance, Family, Snapshot};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn small_changes_are_safe(
        mut snapshot in world::snapshot(),
        steps in vec(vec(world::change(), 1..4), 1..6),
    ) {
        for step in steps {
            let before = Nftables.compile(&snapshot).0;
            step.iter().for_each(|change| change.make(&mut snapshot));
            is_safe(&before, &Nftables.compile(&snapshot).0)?;
        }
    }

    #[test]
    fn any_change_is_safe(a in world::snapshot(), b in world::snapshot()) {
        // Of another node other rules would stand.
        let mut c = Snapshot::new(a.node().clone());
        b.ports().for_each(|port| c.set(port.as_ref().clone()));
        is_safe(&Nftables.compile(&a).0, &Nftables.compile(&c).0)?;
    }
}

fn is_safe(from: &State, to: &State) -> Result<(), TestCaseError> {
    let ops = Nftables.diff(Some(from), to);
    prop_assert!(ops.transactions().len() <= 3);
    let mut kernel = FakeKernel::default();
    kernel.apply(&Nftables.diff(None, from)).unwrap();
    is_followed(&kernel, to)?;
    for transaction in ops.transactions() {
        let before = kernel.elements();
        kernel.transact(&transaction).unwrap();
        nobody_on_the_way_is_lost(&before, &kernel.elements(), &ops)?;
        is_followed(&kernel, to)?;
    }
    Ok(())
}

/// A process that is killed now leaves what the next one understands, and goes on from.
fn is_followed(kernel: &FakeKernel, to: &State) -> Result<(), TestCaseError> {
    let mut kernel = kernel.clone();
    let Some(found) = kernel.read() else {
        return Err(TestCaseError::fail("not adopted"));
    };
    prop_assert_eq!(
        found.elements().into_iter().collect::<BTreeSet<_>>(),
        kernel.elements()
    );
    let ops = Nftables.diff(Some(&found), to);
    let done = kernel.apply(&ops);
    prop_assert!(done.is_ok(), "{done:?}: {ops:?}");
    let read = kernel.read().unwrap();
    prop_assert!(read == *to, "{}\n--- wanted ---\n{}", show(&read), show(to));
    Ok(())
}

/// A packet asks for its frontend before a transaction, and for all that follows from it after that.
fn nobody_on_the_way_is_lost(
    before: &BTreeSet<Element>,
    after: &BTreeSet<Element>,
    ops: &Ops,
) -> Result<(), TestCaseError> {
    for element in before {
        let (family, class, id) = match element {
            Element::Service(spot, class, id) => (Family::of(spot.address), class, id),
            Element::NodePort(_, _, class, id) => (Family::of(id.address), class, id),
            _ => continue,
        };
        let class_stands = after.contains(&Element::Class(family, *class));
        prop_assert!(class_stands, "{element}: no class: {ops:?}");
        for turn in counters(class, *id) {
            prop_assert!(after.contains(&turn), "{element}: no {turn}: {ops:?}");
        }
        if class.guarded && !is_guarded(element, after) {
            let ours = |allowed: &&Element| is_allowed_at(element, allowed);
            let all = before.iter().filter(ours).all(|e| after.contains(e));
            prop_assert!(all, "{element}: who may enter: {ops:?}");
        }
        // The chain asks for the identity again, and a frontend that has got another one is dropped if its slots differ.
        if class.via != Via::Direct && !has_identity(element, after) {
            continue;
        }
        for (slot, ip) in slots(class, *id, before) {
            let stands = has_slot(class, *id, slot, after);
            prop_assert!(stands, "{element}: no slot {slot}: {ops:?}");
            let hairpin = after.contains(&Element::Hairpin(ip));
            prop_assert!(hairpin, "{element}: no hairpin {ip}: {ops:?}");
        }
    }
    Ok(())
}

const LISTS: [List; 2] = [List::Main, List::Other];

fn counters(class: &Class, id: Spot) -> Vec<Element> {
    let counted = |list: &List| class.balance == Balance::RoundRobin && class.slots(*list) > 0;
    let turn = |list| portolan_dataplane::nftables::Turn {
        id,
        list,
        slots: class.slots(list),
        affinity_s: class.affinity_s,
    };
    let lists = LISTS.into_iter().filter(counted);
    lists.map(|list| Element::Turn(turn(list))).collect()
}

/// The slots that a chain draws from, and the addresses in them.
fn slots(class: &Class, id: Spot, among: &BTreeSet<Element>) -> Vec<(u32, IpAddr)> {
    let drawn = |slot: u32| {
        LISTS.iter().any(|list| {
            let first = list.first_slot();
            (first..first + u32::from(class.slots(*list))).contains(&slot)
        })
    };
    let of = |element: &Element| match (element, class.affinity_s > 0) {
        (Element::Endpoint(at, slot, to), false)
        | (Element::StickyEndpoint(at, slot, to), true) => {
            (*at == id && drawn(*slot)).then_some((*slot, to.ip()))
        }
        _ => None,
    };
    let found: Vec<(u32, IpAddr)> = among.iter().filter_map(of).collect();
    let count: u16 = LISTS.iter().map(|list| class.slots(*list)).sum();
    assert_eq!(found.len(), usize::from(count), "{class} of {id:?}");
    found
}

fn has_slot(class: &Class, id: Spot, slot: u32, among: &BTreeSet<Element>) -> bool {
    among.iter().any(|element| match element {
        Element::Endpoint(at, of, _) => class.affinity_s == 0 && (*at, *of) == (id, slot),
        Element::StickyEndpoint(at, of, _) => class.affinity_s > 0 && (*at, *of) == (id, slot),
        _ => false,
    })
}

/// The element with the same key.
fn successor(element: &Element, among: &BTreeSet<Element>) -> Option<(Class, Spot)> {
    among.iter().find_map(|other| match (element, other) {
        (Element::Service(was, ..), Element::Service(is, class, id)) if was == is => {
            Some((*class, *id))
        }
        (Element::NodePort(protocol, port, _, was), Element::NodePort(p, n, class, id)) => {
            let family = Family::of(was.address) == Family::of(id.address);
            (family && (protocol, port) == (p, n)).then_some((*class, *id))
        }
        _ => None,
    })
}

fn has_identity(element: &Element, among: &BTreeSet<Element>) -> bool {
    let (Element::Service(_, _, id) | Element::NodePort(_, _, _, id)) = element else {
        return false;
    };
    successor(element, among).is_some_and(|(_, now)| now == *id)
}

fn is_guarded(element: &Element, among: &BTreeSet<Element>) -> bool {
    successor(element, among).is_some_and(|(class, _)| class.guarded)
}

fn is_allowed_at(element: &Element, allowed: &Element) -> bool {
    match (element, allowed) {
        (Element::Service(spot, ..), Element::Allowed(at, _)) => spot == at,
        _ => false,
    }
}
