//! The iptables target on the real kernel, in namespaces of its own and in both variants: writing, reading back,
//! changing, refusing, removing. A variant that this machine lacks is told aloud, and fails under CI.
#![allow(clippy::unwrap_used)] // A test that cannot speak to the kernel has failed.

#[path = "../../dataplane/tests/fake/mod.rs"]
mod fake;
#[path = "../../dataplane/tests/world/mod.rs"]
mod world;

use std::cell::RefCell;
use std::io::Write;
use std::process::{Command, Stdio};

use portolan_dataplane::iptables::{Iptables, show};
use portolan_kernel::iptables::{CHAINS_PER_COMMIT, Variant};
use portolan_kernel::{IptablesTarget, isolated};
use portolan_model::{Backend, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

const IPTABLES: Iptables = Iptables::DEFAULT;

/// Runs `body` with a target of each variant that this machine has.
fn in_both(body: impl Fn(&mut IptablesTarget)) {
    // The lock of the tools is a file, and this test's is nobody else's.
    let _ = Command::new("mount")
        .args(["-t", "tmpfs", "none", "/run"])
        .status();
    for variant in [Variant::Nft, Variant::Legacy] {
        match IptablesTarget::open(variant) {
            Ok(mut target) => {
                target.reading_share = 0;
                body(&mut target);
            }
            Err(error) => {
                let words = format!("SKIPPED iptables-{}: {error}", variant.name());
                assert!(std::env::var_os("CI").is_none(), "{words}");
                let _ = writeln!(std::io::stderr(), "{words}");
            }
        }
    }
}

/// Feeds a tool of the variant with text.
fn restore(variant: Variant, text: &str) {
    let mut child = Command::new(format!("/usr/sbin/iptables-{}-restore", variant.name()))
        .args(["--noflush", "--wait", "30"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
}

#[test]
fn what_is_applied_is_read_back() {
    isolated!(what_is_applied_is_read_back, {
        in_both(|target| {
            assert!(target.read().unwrap().is_none());
            let target = RefCell::new(target);
            let worlds = (world::snapshot(), vec(vec(world::change(), 1..4), 1..6));
            let config = ProptestConfig {
                cases: 20,
                failure_persistence: None,
                ..ProptestConfig::default()
            };
            let result = TestRunner::new(config).run(&worlds, |(mut snapshot, steps)| {
                let mut target = target.borrow_mut();
                let (mut state, _) = IPTABLES.compile(&snapshot);
                target.apply(&IPTABLES.diff(None, &state)).unwrap();
                // After everything has been rewritten, it must be read once.
                let mut trusted = false;
                for step in steps {
                    let old = state.clone();
                    step.iter().for_each(|change| change.make(&mut snapshot));
                    state = IPTABLES.compile(&snapshot).0;
                    target.apply(&IPTABLES.diff(Some(&old), &state)).unwrap();
                    assert_eq!(
                        target.unchanged().unwrap(),
                        trusted,
                        "only we change anything"
                    );
                    trusted = true;
                    let read = target.read().unwrap();
                    prop_assert!(read.as_ref() == Some(&state), "{}", show(&state));
                    assert!(target.unchanged().unwrap());
                }
                Ok(())
            });
            result.unwrap();
            assert!(target.borrow_mut().remove().unwrap(), "something stood");
            assert!(
                !target.borrow_mut().remove().unwrap(),
                "nothing stands any more"
            );
        });
    });
}

#[test]
fn what_somebody_else_changes_is_noticed_and_put_right() {
    isolated!(what_somebody_else_changes_is_noticed_and_put_right, {
        in_both(|target| {
            let (state, _) = IPTABLES.compile(&fake::many_services(20));
            let accidents = [
                "*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n",
                "*nat\n-F PREROUTING\nCOMMIT\n",
                "*filter\n-D KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n",
                "*mangle\n-X KUBE-PROXY-CANARY\nCOMMIT\n",
                "*filter\n-I KUBE-SERVICES -p tcp -m tcp --dport 1 -j ACCEPT\nCOMMIT\n",
                "*nat\n-A KUBE-SERVICES -s 10.0.0.0/8 -j ACCEPT\nCOMMIT\n",
            ];
            for accident in accidents {
                target.apply(&IPTABLES.diff(None, &state)).unwrap();
                assert!(target.read().unwrap().as_ref() == Some(&state));
                assert!(target.unchanged().unwrap());
                restore(target.variant(), accident);
                assert!(!target.unchanged().unwrap(), "{accident}");
                let read = target.read().unwrap();
                assert!(read.as_ref() != Some(&state), "{accident}");
                target.apply(&IPTABLES.diff(read.as_ref(), &state)).unwrap();
                assert!(target.read().unwrap() == Some(state.clone()), "{accident}");
            }
            target.remove().unwrap();
        });
    });
}

/// More chains than one commit writes: nothing is missing, and every commit is known to be ours.
#[test]
fn large_changes_go_in_parts() {
    isolated!(large_changes_go_in_parts, {
        in_both(|target| {
            let of = |count| IPTABLES.compile(&fake::many_services(count)).0;
            let mut standing = of(CHAINS_PER_COMMIT);
            target.apply(&IPTABLES.diff(None, &standing)).unwrap();
            assert!(target.read().unwrap().as_ref() == Some(&standing));
            for count in [3 * CHAINS_PER_COMMIT, 2] {
                let next = of(count);
                target
                    .apply(&IPTABLES.diff(Some(&standing), &next))
                    .unwrap();
                assert!(target.unchanged().unwrap(), "only we change anything");
                assert!(target.read().unwrap().as_ref() == Some(&next));
                standing = next;
            }
            target
                .apply(&IPTABLES.diff(None, &of(CHAINS_PER_COMMIT)))
                .unwrap();
            assert!(target.remove().unwrap() && !target.remove().unwrap());
        });
    });
}

/// The error says which line was refused, and what had been committed before can be read back.
#[test]
fn a_refusal_names_the_line() {
    isolated!(a_refusal_names_the_line, {
        in_both(|target| {
            let (few, _) = IPTABLES.compile(&fake::many_services(2));
            let (more, _) = IPTABLES.compile(&fake::many_services(3));
            let (less, _) = IPTABLES.compile(&fake::many_services(1));
            target.apply(&IPTABLES.diff(None, &few)).unwrap();
            // The lines of the third Service do not stand.
            let error = target
                .apply(&IPTABLES.diff(Some(&more), &less))
                .unwrap_err()
                .to_string();
            assert!(error.contains("restore refused"), "{error}");
            assert!(
                error.contains("-D KUBE-SERVICES") || error.contains("KUBE-S"),
                "{error}"
            );
            assert!(!target.unchanged().unwrap());
            let read = target.read().unwrap();
            target.apply(&IPTABLES.diff(read.as_ref(), &more)).unwrap();
            assert!(target.read().unwrap() == Some(more));
            target.remove().unwrap();
        });
    });
}

/// Others change their rules all the time; ours are not read each time, as long as the canaries stand.
#[test]
fn reading_takes_a_small_share_of_the_time() {
    isolated!(reading_takes_a_small_share_of_the_time, {
        in_both(|target| {
            let (state, _) = IPTABLES.compile(&fake::many_services(2));
            target.apply(&IPTABLES.diff(None, &state)).unwrap();
            target.read().unwrap();
            // As good as for ever.
            target.reading_share = u32::MAX >> 8;
            restore(
                target.variant(),
                "*filter\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
            );
            assert!(target.unchanged().unwrap());
            restore(target.variant(), "*mangle\n-X KUBE-PROXY-CANARY\nCOMMIT\n");
            assert!(!target.unchanged().unwrap());
            target.remove().unwrap();
        });
    });
}

/// A node that has rules of one variant is a node of that variant.
#[test]
fn the_variant_is_found() {
    isolated!(the_variant_is_found, {
        assert_eq!(Variant::detect().unwrap(), Variant::Nft);
        in_both(|target| {
            restore(
                target.variant(),
                "*filter\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n",
            );
            let (state, _) = IPTABLES.compile(&fake::many_services(2));
            target.apply(&IPTABLES.diff(None, &state)).unwrap();
            assert_eq!(Variant::detect().unwrap(), target.variant());
            target.remove().unwrap();
        });
    });
}
