//! What golden files and oracles do not see: what other programs need, and what would only cost memory.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::{Balance, Protocol};

use super::super::class::{Class, List, Turn, Via, Way};
use super::super::element::Spot;
use super::*;

const fn pick(list: List, masquerade: bool) -> Way {
    Way::Pick { list, masquerade }
}

fn class(via: Via, balance: Balance, affinity_s: u32) -> Class {
    Class {
        via,
        guarded: true,
        affinity_s,
        pod: pick(List::Main, false),
        host: pick(List::Main, true),
        outside: pick(List::Other, true),
        balance,
        main: 3,
        other: 2,
    }
}

fn turn(family: Family, affinity_s: u32) -> Turn {
    let address = match family {
        Family::V4 => IpAddr::from([172, 30, 0, 1]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    Turn {
        id: Spot {
            address,
            protocol: Protocol::Tcp,
            port: 80,
        },
        list: List::Main,
        slots: 3,
        affinity_s,
    }
}

/// The rules of chains of all kinds.
fn chains(family: Family) -> Vec<Vec<Rule>> {
    let mut chains: Vec<ChainId> = BaseChain::ALL.into_iter().map(ChainId::Base).collect();
    for affinity_s in [0, 60] {
        chains.push(ChainId::Turn(turn(family, affinity_s)));
        for via in [Via::Direct, Via::Alias, Via::NodePort] {
            let of = |balance| ChainId::Class(class(via, balance, affinity_s));
            chains.extend(Balance::ALL.map(of));
        }
    }
    let rules = |chain: &ChainId| rules(family, chain, &Pods::Cidrs, false, &[]);
    chains.iter().map(rules).collect()
}

/// The `nft` tool shows a lookup only if each part of its key was loaded from somewhere before, and does not understand
/// that a map can load it, too.
#[test]
fn keys_are_loaded_before_anything_is_found() {
    for family in Family::ALL {
        for rule in chains(family).iter().flatten() {
            let mut loaded = BTreeSet::new();
            for expr in &rule.0 {
                let (into, bytes) = match expr {
                    Expr::Load(field, into) => (into, field.len(family)),
                    Expr::Value { into, bytes } => (into, bytes.len()),
                    Expr::Random { into, .. } | Expr::Next { into, .. } => (into, 4),
                    Expr::Hash { into, .. } => (into, 4),
                    Expr::Dispatch { map: set, key }
                    | Expr::Member { set, key, .. }
                    | Expr::Find { map: set, key, .. } => {
                        let parts = set.key().iter();
                        let width: u8 = parts.map(|part| part.registers(family)).sum();
                        let all = key.0..key.0 + width;
                        let missing: Vec<u8> = all.filter(|reg| !loaded.contains(reg)).collect();
                        assert!(missing.is_empty(), "{missing:?} of {expr:?} in {rule:?}");
                        continue;
                    }
                    _ => continue,
                };
                loaded.extend(into.0..into.0 + bytes.div_ceil(4) as u8);
            }
        }
    }
}

#[test]
fn only_services_with_affinity_remember() {
    let remembers = |rules: &[Rule]| {
        let mut all = rules.iter().flat_map(|rule| &rule.0);
        all.any(|expr| matches!(expr, Expr::Remember { .. } | Expr::Forget { .. }))
    };
    for family in Family::ALL {
        // A second is the shortest affinity.
        for (affinity_s, count) in [(0, 2), (1, 3), (60, 3)] {
            let turn = rules(
                family,
                &ChainId::Turn(turn(family, affinity_s)),
                &Pods::Cidrs,
                false,
                &[],
            );
            assert_eq!(turn.len(), count, "{turn:?}");
            assert_eq!(remembers(&turn), affinity_s > 0);
            for balance in Balance::ALL {
                let class = class(Via::Direct, balance, affinity_s);
                let class = rules(family, &ChainId::Class(class), &Pods::Cidrs, false, &[]);
                assert_eq!(remembers(&class), affinity_s > 0, "{class:?}");
                let new = class.iter().flat_map(|rule| &rule.0);
                let sticky = new.filter(|expr| {
                    matches!(expr, Expr::Find { map, .. } if *map == SetName::StickyEndpoints)
                });
                let wanted = affinity_s > 0 && balance != Balance::RoundRobin;
                assert_eq!(sticky.count() > 0, wanted, "{class:?}");
            }
        }
    }
}

/// A packet on its way may find that the slot or the counter is gone.
#[test]
fn whoever_finds_no_endpoint_is_dropped() {
    for family in Family::ALL {
        for rules in chains(family) {
            let picks = |expr: &Expr| match expr {
                Expr::Find { map, .. } => {
                    matches!(map, SetName::Endpoints | SetName::StickyEndpoints)
                }
                Expr::Dispatch { map, .. } => *map == SetName::Turns,
                _ => false,
            };
            if rules.iter().any(|rule| rule.0.iter().any(picks)) {
                assert_eq!(rules.last(), Some(&Rule(vec![Expr::Drop])));
            }
        }
    }
}

#[test]
fn a_name_that_no_interface_has_recognises_nobody() {
    let name = |length: usize| -> Arc<str> { "p".repeat(length).into() };
    let of = |pods: LocalPods| Pods::of(&pods);
    assert_eq!(of(LocalPods::Interface(name(0))), Pods::Unknown);
    assert_eq!(of(LocalPods::Interface(name(1))), Pods::Interface(name(1)));
    assert_eq!(
        of(LocalPods::Interface(name(15))),
        Pods::Interface(name(15))
    );
    assert_eq!(of(LocalPods::Interface(name(16))), Pods::Unknown);
    for length in [0, 1, 15] {
        let prefix = Pods::InterfacePrefix(name(length));
        assert_eq!(of(LocalPods::InterfacePrefix(name(length))), prefix);
    }
    assert_eq!(of(LocalPods::InterfacePrefix(name(16))), Pods::Unknown);
}

/// Of the mark that conntrack keeps one bit is ours, and the others are somebody else's.
#[test]
fn one_bit_of_the_flow_mark_is_ours() {
    let (reg, bit) = (SCRATCH, SERVER_MARK);
    let is_set = [
        Expr::Load(Field::FlowMark, reg),
        Expr::Bits {
            reg,
            mask: bit,
            xor: 0,
        },
        Expr::Compare {
            reg,
            negate: true,
            bytes: vec![0; 4],
        },
    ];
    let set = [
        Expr::Load(Field::FlowMark, reg),
        Expr::Bits {
            reg,
            mask: !bit,
            xor: bit,
        },
        Expr::SetFlowMark(reg),
    ];
    assert_eq!(to_server()[..3], set);
    for family in Family::ALL {
        let postrouting = ChainId::Base(BaseChain::Postrouting);
        let asks = |servers| {
            let rules = rules(family, &postrouting, &Pods::Cidrs, servers, &[]);
            rules
                .iter()
                .filter(|rule| rule.0.starts_with(&is_set))
                .count()
        };
        assert_eq!((asks(false), asks(true)), (0, 1));
    }
}
