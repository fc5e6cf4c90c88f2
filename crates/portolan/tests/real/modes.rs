//! The data planes of a node with the real binary: killed and started again, with clients that never stop.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::node::{Effort, FULL, Node, ask_over, pause, until, until_or};
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

#[test]
fn a_proxy_that_is_killed_is_not_missed() {
    isolated!(a_proxy_that_is_killed_is_not_missed, {
        for mode in modes() {
            is_not_missed(mode, FULL);
        }
    });
}

/// The proxy is killed under load, endpoints change while it is down, and it is started again.
pub fn is_not_missed(mode: &str, effort: Effort) {
    let mut node = Node::new(4);
    node.lead_to(&[2, 3]);
    node.start(&["--proxy-mode", mode]);
    until_or(|| node.stands_alone(), || node.log());
    node.converged(&[2, 3]);
    let mut connections = node.connections();
    let load = node.load_of(effort);
    let go_on = || {
        let asked = load.asked();
        until("requests", || load.asked() >= asked + effort.enough);
    };
    let loaded = Instant::now();
    go_on();
    node.end(Signal::SIGKILL);
    node.lead_to(&[3, 4]);
    go_on();
    let began = Instant::now();
    node.start(&["--proxy-mode", mode]);
    until_or(|| node.stands_alone(), || node.log());
    let stood = began.elapsed();
    node.converged(&[3, 4]);
    let took = began.elapsed();
    go_on();
    pause(Duration::from_millis(100));
    all_answer(&node, mode, &mut connections);
    let seconds = loaded.elapsed().as_secs_f64();
    let (asked, failures) = load.end();
    let log = node.log();
    assert_eq!(failures, Vec::<String>::new(), "{mode}: of {asked}\n{log}");
    let rate = asked as f64 / seconds;
    eprintln!(
        "{mode}: 0 of {asked} requests failed ({rate:.0} a second); after the restart the rules stood in {stood:?}, and 160 requests one after the other had seen it in {took:?}"
    );
}

/// Connections that stand go on.
pub fn all_answer(node: &Node, mode: &str, connections: &mut [TcpStream]) {
    for connection in connections {
        let answer = ask_over(connection);
        answer.unwrap_or_else(|error| panic!("{mode}: {error}\n{}", node.log()));
    }
}

#[test]
fn a_mode_changes_without_a_failed_request() {
    isolated!(a_mode_changes_without_a_failed_request, {
        // Every mode comes after every other one.
        let to = |from| modes().iter().flat_map(move |to| [from, *to]);
        let walk: Vec<&str> = modes().iter().flat_map(|from| to(*from)).collect();
        changes(&walk, FULL);
    });
}

/// The next process is started with the next mode of a walk, under load.
pub fn changes(walk: &[&str], effort: Effort) {
    let mut node = Node::new(4);
    node.lead_to(&[2, 3]);
    node.start(&["--proxy-mode", walk[0]]);
    until_or(|| node.stands_alone(), || node.log());
    node.converged(&[2, 3]);
    // Connections are made in every mode, and asked in all that come after it.
    let mut connections = node.connections();
    let mut made_in = vec![walk[0]];
    let load = node.load_of(effort);
    for mode in &walk[1..] {
        let asked = load.asked();
        node.end(Signal::SIGTERM);
        node.start(&["--proxy-mode", mode]);
        until_or(|| node.stands_alone(), || node.log());
        until("requests", || load.asked() >= asked + effort.enough);
        all_answer(&node, mode, &mut connections);
        if !made_in.contains(mode) {
            connections.extend(node.connections());
            made_in.push(mode);
        }
    }
    let (asked, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
    eprintln!(
        "{} changes of mode by new processes: 0 of {asked} requests failed, {} connections live",
        walk.len() - 1,
        connections.len()
    );
}
