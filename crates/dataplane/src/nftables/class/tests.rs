//! Names of chains: as they are documented, and no two the same.

use std::collections::BTreeSet;

use portolan_model::Protocol;

use super::*;

fn turn(list: List, slots: u16, affinity_s: u32) -> Turn {
    let id = Spot {
        address: [172, 30, 0, 1].into(),
        protocol: Protocol::Tcp,
        port: 80,
    };
    Turn {
        id,
        list,
        slots,
        affinity_s,
    }
}

fn class(balance: Balance, other: u16, affinity_s: u32) -> Class {
    Class {
        via: Via::Direct,
        guarded: false,
        affinity_s,
        pod: Way::pick(List::Main, false),
        host: Way::pick(List::Main, true),
        outside: Way::pick(List::Main, true),
        balance,
        main: 3,
        other,
    }
}

#[test]
fn names_are_as_documented() {
    let plain = turn(List::Main, 3, 0).to_string();
    assert_eq!(plain, "turn-172.30.0.1-80-tcp-main-3");
    assert_eq!(class(Balance::Random, 0, 0).to_string(), "ip-mMM-3");
}

#[test]
fn no_two_share_a_name() {
    let mut seen = BTreeSet::new();
    for affinity_s in 0..3 {
        for count in 0..3 {
            for list in [List::Main, List::Other] {
                assert!(seen.insert(turn(list, count, affinity_s).to_string()));
            }
            for balance in Balance::ALL {
                assert!(seen.insert(class(balance, count, affinity_s).to_string()));
            }
        }
    }
}
