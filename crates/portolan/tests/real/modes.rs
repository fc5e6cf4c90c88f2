//! The data planes of a node with the real binary: killed and started again, with clients that never stop.

use std::time::{Duration, Instant};

use crate::node::{Node, ask_over, pause, until};
use nix::sys::signal::Signal;
use portolan_kernel::isolated;
use portolan_kernel::namespace::is_first_user;

/// Those of `--proxy-mode` that carry flows when the process is gone.
const MODES: [&str; 4] = ["nftables", "iptables", "userspace", "ebpf"];

/// Those that this user may run.
pub fn modes() -> &'static [&'static str] {
    if is_first_user() {
        return &MODES;
    }
    assert!(std::env::var_os("CI").is_none(), "CI has root");
    eprintln!("SKIPPED: eBPF mode needs root");
    &MODES[..3]
}

/// Requests that are made at each stage, at least.
pub const ENOUGH: usize = 300;

#[test]
fn a_proxy_that_is_killed_is_not_missed() {
    isolated!(a_proxy_that_is_killed_is_not_missed, {
        for mode in modes() {
            let mut node = Node::new(4);
            node.lead_to(&[2, 3]);
            node.start(&["--proxy-mode", mode]);
            node.converged(&[2, 3]);
            let mut connections = node.connections();
            let load = node.load();
            let go_on = || {
                let asked = load.asked();
                until("requests", || load.asked() >= asked + ENOUGH);
            };
            go_on();
            node.end(Signal::SIGKILL);
            node.lead_to(&[3, 4]);
            go_on();
            let began = Instant::now();
            node.start(&["--proxy-mode", mode]);
            node.converged(&[3, 4]);
            let took = began.elapsed();
            go_on();
            pause(Duration::from_millis(100));
            for connection in &mut connections {
                let answer = ask_over(connection);
                answer.unwrap_or_else(|error| panic!("{mode}: {error}\n{}", node.log()));
            }
            let (asked, failures) = load.end();
            assert_eq!(
                failures,
                Vec::<String>::new(),
                "{mode}: of {asked}\n{}",
                node.log()
            );
            eprintln!(
                "{mode}: 0 of {asked} requests failed; converged {took:?} after the restart, as seen by 160 requests one after the other"
            );
        }
    });
}

/// The next process is started with another mode.
#[test]
fn a_mode_changes_without_a_failed_request() {
    isolated!(a_mode_changes_without_a_failed_request, {
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        node.start(&["--proxy-mode", MODES[0]]);
        node.converged(&[2, 3]);
        let mut connections = node.connections();
        let load = node.load();
        // Every mode comes after every other one.
        let to = |from| modes().iter().map(move |to| [from, *to]);
        let pairs = modes().iter().flat_map(|from| to(*from));
        for mode in pairs.flatten().collect::<Vec<_>>() {
            let asked = load.asked();
            node.end(Signal::SIGTERM);
            node.start(&["--proxy-mode", mode]);
            until("the mode stands alone", || node.stands_alone());
            until("requests", || load.asked() >= asked + ENOUGH);
            for connection in &mut connections {
                let answer = ask_over(connection);
                answer.unwrap_or_else(|error| panic!("{mode}: {error}\n{}", node.log()));
            }
        }
        let (asked, failures) = load.end();
        assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
    });
}
