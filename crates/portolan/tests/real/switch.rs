//! The mode in the configuration file changes while the proxy runs: the same process, clients that never stop, and
//! connections that live on.

use portolan_kernel::isolated;

use crate::modes::{self, all_answer};
use crate::node::{Effort, FULL, Node, until, until_or};

const STANDS_ALONE: &str = "the rules stand alone";

/// How often the proxy has said this.
fn said(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}

#[test]
fn a_file_that_changes_its_mode_fails_no_request() {
    isolated!(a_file_that_changes_its_mode_fails_no_request, {
        let modes = modes::modes();
        // Every mode comes after every other one, once.
        let walk = modes.iter().enumerate();
        let walk =
            walk.flat_map(|(i, from)| modes[i + 1..].iter().flat_map(move |to| [*from, *to]));
        let walk: Vec<&str> = walk.chain([modes[0]]).collect();
        file_changes(&walk, FULL);
    });
}

/// The file gets the next mode of a walk, under load.
pub fn file_changes(walk: &[&str], effort: Effort) {
    let mut node = Node::new(4);
    node.lead_to(&[2, 3]);
    let file = node.configure(&format!("mode: {}\n", walk[0]));
    node.start_with(&file, &[], None);
    until_or(|| said(&node, STANDS_ALONE) == 1, || node.log());
    node.converged(&[2, 3]);
    let load = node.load_of(effort);
    // Connections are made in every mode, and asked in all that come after it.
    let mut connections = node.connections();
    let mut runs = walk[0];
    for (changes, mode) in walk[1..].iter().enumerate() {
        assert_ne!(*mode, runs);
        let asked = load.asked();
        node.configure(&format!("mode: {mode}\n"));
        until_or(|| said(&node, STANDS_ALONE) == 2 + changes, || node.log());
        until("requests", || load.asked() >= asked + effort.enough);
        all_answer(&node, mode, &mut connections);
        connections.extend(node.connections());
        runs = mode;
    }
    // It follows the API in the last mode, too.
    node.lead_to(&[3, 4]);
    node.converged(&[3, 4]);
    let (asked, failures) = load.end();
    assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
    assert_eq!(
        said(&node, "proxy is running"),
        1,
        "one process did all of it"
    );
    eprintln!(
        "{} changes of mode by the file: 0 of {asked} requests failed, {} connections live",
        walk.len() - 1,
        connections.len()
    );
}

/// Elsewhere it is a scheduler that no kernel has.
#[test]
fn a_mode_that_cannot_be_had_leaves_the_old_one() {
    isolated!(a_mode_that_cannot_be_had_leaves_the_old_one, {
        let ipvs = match portolan_kernel::ipvs::is_known() {
            true => "ipvs: {scheduler: magic}\n",
            false => "",
        };
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        let file = node.configure(&format!("mode: nftables\n{ipvs}"));
        node.start_with(&file, &[], None);
        node.converged(&[2, 3]);
        let mut connections = node.connections();
        let load = node.load();
        node.configure(&format!("mode: ipvs\n{ipvs}"));
        until_or(
            || said(&node, "the mode stays as it is") == 1,
            || node.log(),
        );
        let log = node.log();
        let why = log
            .lines()
            .find(|line| line.contains("the mode stays as it is"));
        assert!(why.unwrap().contains("ipvs"), "{log}");
        node.lead_to(&[3, 4]);
        node.converged(&[3, 4]);
        all_answer(&node, "nftables", &mut connections);
        let (asked, failures) = load.end();
        assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
        // Another one can be had afterwards.
        node.configure(&format!("mode: iptables\n{ipvs}"));
        until_or(|| said(&node, STANDS_ALONE) == 2, || node.log());
        node.converged(&[3, 4]);
        assert_eq!(said(&node, "proxy is running"), 1);
    });
}
