//! The mode in the configuration file changes while the proxy runs: the same process, clients that never stop, and
//! connections that live on.

use std::net::TcpStream;

use portolan_kernel::isolated;

use crate::modes::{self, ENOUGH};
use crate::node::{Node, ask_over, until, until_or};

const STANDS_ALONE: &str = "the rules stand alone";

/// How often the proxy has said this.
fn said(node: &Node, words: &str) -> usize {
    node.log().matches(words).count()
}

fn all_answer(node: &Node, mode: &str, connections: &mut [TcpStream]) {
    for connection in connections {
        let answer = ask_over(connection);
        answer.unwrap_or_else(|error| panic!("{mode}: {error}\n{}", node.log()));
    }
}

#[test]
fn a_file_that_changes_its_mode_fails_no_request() {
    isolated!(a_file_that_changes_its_mode_fails_no_request, {
        let modes = modes::modes();
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        let file = node.configure(&format!("mode: {}\n", modes[0]));
        node.start_with(&file, &[], None);
        node.converged(&[2, 3]);
        until_or(|| said(&node, STANDS_ALONE) == 1, || node.log());
        let load = node.load();
        // Connections are made in every mode, and asked in all that come after it.
        let mut connections = node.connections();
        let mut changes = 0;
        // Every mode comes after every other one, once.
        let walk = modes.iter().enumerate();
        let walk =
            walk.flat_map(|(i, from)| modes[i + 1..].iter().flat_map(move |to| [*from, *to]));
        let mut runs = modes[0];
        for mode in walk.chain([modes[0]]).skip(1) {
            assert_ne!(mode, runs);
            let asked = load.asked();
            node.configure(&format!("mode: {mode}\n"));
            changes += 1;
            until_or(|| said(&node, STANDS_ALONE) == 1 + changes, || node.log());
            until("requests", || load.asked() >= asked + ENOUGH);
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
        let standing = connections.len();
        eprintln!(
            "{changes} changes of mode: 0 of {asked} requests failed, {standing} connections live"
        );
    });
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
