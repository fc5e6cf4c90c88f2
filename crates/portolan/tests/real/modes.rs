//! The data planes of a node with the real binary: killed and started again, with clients that never stop.

use std::time::{Duration, Instant};

use crate::node::{Node, pause, until};
use portolan_kernel::isolated;

/// Those of `--proxy-mode` whose rules stand by themselves when the process is gone.
const MODES: [&str; 2] = ["nftables", "iptables"];

/// Requests that are made at each stage, at least.
const ENOUGH: usize = 300;

#[test]
fn a_proxy_that_is_killed_is_not_missed() {
    isolated!(a_proxy_that_is_killed_is_not_missed, {
        for mode in MODES {
            let mut node = Node::new(4);
            node.lead_to(&[2, 3]);
            node.start(&["--proxy-mode", mode]);
            node.converged(&[2, 3]);
            let load = node.load();
            let go_on = || {
                let asked = load.asked();
                until("requests", || load.asked() >= asked + ENOUGH);
            };
            go_on();
            node.kill();
            node.lead_to(&[3, 4]);
            go_on();
            let began = Instant::now();
            node.start(&["--proxy-mode", mode]);
            node.converged(&[3, 4]);
            let took = began.elapsed();
            go_on();
            pause(Duration::from_millis(100));
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
