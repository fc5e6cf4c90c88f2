//! The nftables target on the real kernel, in namespaces of its own: loading, reading back, changing, refusing.
#![allow(clippy::unwrap_used)] // A test that cannot speak to the kernel has failed.

#[path = "../../dataplane/tests/fake/mod.rs"]
mod fake;
#[path = "../../dataplane/tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use std::process::Command;

use nix::sys::signal::Signal;
use portolan_dataplane::nftables::{Nftables, Op, Ops, show};
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{NftTarget, isolated};
use portolan_model::{Backend, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[test]
fn what_is_applied_is_read_back() {
    isolated!(what_is_applied_is_read_back, {
        let target = RefCell::new(NftTarget::open().unwrap());
        assert!(target.borrow_mut().read().unwrap().is_none());
        let worlds = (world::snapshot(), vec(vec(world::change(), 1..4), 1..6));
        let result = TestRunner::new(config(60)).run(&worlds, |(mut snapshot, steps)| {
            let mut target = target.borrow_mut();
            let (mut state, _) = Nftables.compile(&snapshot);
            target.apply(&Nftables.diff(None, &state)).unwrap();
            for step in steps {
                let old = state.clone();
                step.iter().for_each(|change| change.make(&mut snapshot));
                state = Nftables.compile(&snapshot).0;
                let ops = Nftables.diff(Some(&old), &state);
                target.apply(&ops).unwrap();
                assert!(target.unchanged().unwrap());
                let read = target.read().unwrap().expect("our own tables");
                prop_assert!(
                    read == state,
                    "{}\n--- wanted ---\n{}",
                    show(&read),
                    show(&state)
                );
            }
            Ok(())
        });
        result.unwrap();
    });
}

#[test]
fn nft_can_print_the_tables() {
    isolated!(nft_can_print_the_tables, {
        let mut target = NftTarget::open().unwrap();
        let mut runner = TestRunner::deterministic();
        for _ in 0..20 {
            let snapshot = world::snapshot().new_tree(&mut runner).unwrap().current();
            let (state, _) = Nftables.compile(&snapshot);
            target.apply(&Nftables.diff(None, &state)).unwrap();
            let nft = Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .unwrap();
            assert!(nft.status.success(), "{nft:?}");
            let text = String::from_utf8(nft.stdout).unwrap();
            assert!(text.contains("table ip portolan"), "{text}");
            if std::env::var_os("SHOW").is_some() {
                eprintln!("{text}\n{}", String::from_utf8_lossy(&nft.stderr));
            }
        }
    });
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_which_message() {
    isolated!(
        a_refused_transaction_changes_nothing_and_says_which_message,
        {
            let mut target = NftTarget::open().unwrap();
            let (state, _) = Nftables.compile(&fake::many_services(3));
            target.apply(&Nftables.diff(None, &state)).unwrap();
            let element = state.elements()[0];
            let family = portolan_model::Family::V4;
            let again = Op::DeleteElements(family, element.set(), vec![element]);
            let error = target.apply(&Ops(vec![again.clone(), again])).unwrap_err();
            assert_eq!(
                error.to_string(),
                "nf_tables refused message 2 (delete 1 elements of services): No such file or directory"
            );
            assert!(target.read().unwrap().unwrap() == state);
        }
    );
}

#[test]
fn somebody_elses_change_is_noticed() {
    isolated!(somebody_elses_change_is_noticed, {
        let mut target = NftTarget::open().unwrap();
        let (state, _) = Nftables.compile(&fake::many_services(3));
        target.apply(&Nftables.diff(None, &state)).unwrap();
        assert!(target.unchanged().unwrap());
        let nft = |words: &[&str]| {
            let done = Command::new("nft").args(words).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        };
        nft(&["flush", "chain", "ip", "portolan", "postrouting"]);
        assert!(!target.unchanged().unwrap());
        let read = target.read().unwrap().expect("still ours");
        let repair = Nftables.diff(Some(&read), &state);
        assert_eq!(repair.0.len(), 2, "{repair:?}");
        target.apply(&repair).unwrap();
        assert!(target.read().unwrap().unwrap() == state);
        nft(&["add", "set", "ip", "portolan", "strange", "{ type mark; }"]);
        assert!(target.read().unwrap().is_none());
        target.apply(&Nftables.diff(None, &state)).unwrap();
        assert!(target.read().unwrap().unwrap() == state);
    });
}

const UNPRIVILEGED: &str = "PORTOLAN_UNPRIVILEGED_TEST";

/// Root of a user namespace may not enlarge the socket's buffer beyond `net.core.wmem_max`.
#[test]
fn without_privileges_a_large_load_goes_in_parts() {
    let name = "without_privileges_a_large_load_goes_in_parts";
    if std::env::var_os(UNPRIVILEGED).is_some() {
        let mut target = NftTarget::open().unwrap();
        let (state, _) = Nftables.compile(&fake::many_services(6000));
        target.apply(&Nftables.diff(None, &state)).unwrap();
        assert!(target.read().unwrap().unwrap() == state);
        return;
    }
    let mut again = Command::new("unshare");
    again.arg("--map-root-user").arg("--net");
    again.arg(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--test-threads=1"]);
    again.env(UNPRIVILEGED, "1");
    again.die_with_parent(Signal::SIGKILL);
    let output = again.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
