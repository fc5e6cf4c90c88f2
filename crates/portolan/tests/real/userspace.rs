//! Userspace mode with the real binary: the relay outlives its agent, is adopted, followed and exchanged.

use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_kernel::isolated;
use portolan_kernel::namespace::is_first_user;

use crate::node::{Node, ask_over, status_of, until, until_or};
use crate::privilege::NOBODY;

const USERSPACE: [&str; 2] = ["--proxy-mode", "userspace"];
const NFTABLES: [&str; 2] = ["--proxy-mode", "nftables"];

/// A node in userspace mode whose Service leads to two pods.
fn node() -> Node {
    let mut node = Node::new(4);
    node.lead_to(&[2, 3]);
    node.start(&USERSPACE);
    node.converged(&[2, 3]);
    node
}

#[test]
fn the_next_agent_adopts_the_relay() {
    isolated!(the_next_agent_adopts_the_relay, {
        let mut node = node();
        let relays = node.relays();
        assert_eq!(relays.len(), 1);
        node.end(Signal::SIGTERM);
        node.start(&USERSPACE);
        until_or(
            || node.log().contains("the relay is there already"),
            || node.log(),
        );
        node.lead_to(&[4, 5]);
        node.converged(&[4, 5]);
        assert_eq!(node.relays(), relays);
    });
}

/// Two at a time are a mistake, and the newer one is right.
#[test]
fn an_agent_that_is_replaced_starts_no_relay() {
    isolated!(an_agent_that_is_replaced_starts_no_relay, {
        let mut node = node();
        let relays = node.relays();
        let former = node.pid();
        node.start(&USERSPACE);
        until_or(
            || {
                node.log()
                    .contains("another agent has taken the relay over")
            },
            || node.log(),
        );
        kill(former, Signal::SIGKILL).unwrap();
        node.lead_to(&[3, 4]);
        node.converged(&[3, 4]);
        assert_eq!(node.relays(), relays);
    });
}

/// Its connections end; clients that come wait in the doors until another relay takes them.
#[test]
fn a_relay_that_dies_is_followed_by_another() {
    isolated!(a_relay_that_dies_is_followed_by_another, {
        let node = node();
        let relays = node.relays();
        kill(relays[0], Signal::SIGKILL).unwrap();
        let asked = node.ask_everywhere();
        assert!(asked.is_ok(), "{asked:?}\n{}", node.log());
        node.lead_to(&[3, 4]);
        node.converged(&[3, 4]);
        until("there is one relay", || node.relays().len() == 1);
        assert_ne!(node.relays(), relays);
    });
}

/// Another file is another program: its relay takes the doors over, and the former one ends with its last connection.
#[test]
fn an_upgrade_takes_the_doors_over() {
    isolated!(an_upgrade_takes_the_doors_over, {
        let mut node = node();
        let former = node.relays();
        let mut connections = node.connections();
        let load = node.load();
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("portolan");
        std::fs::copy(env!("CARGO_BIN_EXE_portolan"), &program).unwrap();
        node.end(Signal::SIGTERM);
        node.lead_to(&[3, 4]);
        node.start_program(&program, &USERSPACE);
        node.converged(&[3, 4]);
        let (asked, failures) = load.end();
        assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
        assert_eq!(node.relays().len(), 2);
        for connection in &mut connections {
            ask_over(connection).unwrap();
        }
        drop(connections);
        until_or(|| node.relays().len() == 1, || node.log());
        assert_ne!(node.relays(), former);
    });
}

#[test]
fn nothing_is_left_after_a_clean_up() {
    isolated!(nothing_is_left_after_a_clean_up, {
        let mut node = node();
        node.end(Signal::SIGTERM);
        assert_eq!(node.relays().len(), 1);
        node.clean_up();
        until("no relay is left", || node.relays().is_empty());
    });
}

/// Connections go on in the mode that they were made in; the relay ends when it has none any more.
#[test]
fn either_mode_takes_over_from_the_other() {
    isolated!(either_mode_takes_over_from_the_other, {
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        node.start(&NFTABLES);
        node.converged(&[2, 3]);
        let mut lasting = node.connections();
        node.end(Signal::SIGKILL);
        node.start(&USERSPACE);
        node.lead_to(&[3, 4]);
        node.converged(&[3, 4]);
        lasting.extend(node.connections());
        node.end(Signal::SIGKILL);
        node.lead_to(&[2, 4]);
        node.start(&NFTABLES);
        node.converged(&[2, 4]);
        for connection in &mut lasting {
            ask_over(connection).unwrap();
        }
        assert_eq!(node.relays().len(), 1);
        drop(lasting);
        until_or(|| node.relays().is_empty(), || node.log());
    });
}

/// A pod that is not there costs a client a quarter of a second and not its request.
#[test]
fn who_does_not_answer_is_passed_over() {
    isolated!(who_does_not_answer_is_passed_over, {
        let mut node = Node::new(2);
        node.lead_to(&[2, 99]);
        node.start(&[&USERSPACE[..], &["--health-ejection=false"]].concat());
        node.converged(&[2]);
        let load = node.load();
        node.converged(&[2]);
        let (asked, failures) = load.end();
        assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
    });
}

/// A process of nobody, without a capability, serves ClusterIPs on the loopback and NodePorts at their addresses; its
/// relay outlives it, too.
#[test]
fn who_has_no_privileges_has_services_on_the_loopback() {
    isolated!(who_has_no_privileges_has_services_on_the_loopback, {
        if !is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            return eprintln!("SKIPPED: only root can become nobody");
        }
        let at = "127.30.0.80:8080";
        let mut node = Node::new(4);
        only_root_has_low_ports();
        node.lead_to(&[2, 3]);
        node.start_as(NOBODY, "-all", &["--proxy-mode", "loopback"]);
        node.converged_on_the_node(&[2, 3], at);
        let relays = node.relays();
        assert_eq!(relays.len(), 1);
        for pid in [node.pid(), relays[0]] {
            let uid = status_of(pid, "Uid");
            assert!(uid.starts_with("65534\t"), "{uid}");
            may_do_nothing(pid);
        }
        node.lead_to(&[3, 4, 99]);
        node.converged_on_the_node(&[3, 4], at);
        node.end(Signal::SIGKILL);
        node.converged_on_the_node(&[3, 4], at);
        node.start_as(NOBODY, "-all", &["--proxy-mode", "loopback"]);
        node.lead_to(&[2]);
        node.converged_on_the_node(&[2], at);
        assert_eq!(node.relays(), relays, "the next agent adopts it");
    });
}

/// It gives up everything, though it was given it.
#[test]
fn root_needs_no_privileges_for_the_loopback() {
    isolated!(root_needs_no_privileges_for_the_loopback, {
        let mut node = Node::new(2);
        only_root_has_low_ports();
        node.lead_to(&[2, 3]);
        node.start(&["--proxy-mode", "loopback"]);
        node.converged_on_the_node(&[2, 3], "127.30.0.80:8080");
        for pid in [node.pid(), node.relays()[0]] {
            may_do_nothing(pid);
        }
    });
}

/// With a file, and the privileges of other modes, their rules do not stay when this one takes over.
#[test]
fn a_node_changes_to_the_loopback_and_back() {
    isolated!(a_node_changes_to_the_loopback_and_back, {
        let mut node = Node::new(2);
        only_root_has_low_ports();
        node.lead_to(&[2, 3]);
        let file = node.configure("mode: nftables\n");
        node.start_with(&file, &[], None);
        until_or(|| node.stands_alone(), || node.log());
        node.converged(&[2, 3]);
        node.configure("mode: loopback\n");
        let alone = |times| node.log().matches("the rules stand alone").count() == times;
        until_or(|| alone(2), || node.log());
        node.converged_on_the_node(&[2, 3], "127.30.0.80:8080");
        let rules = Command::new("nft").args(["list", "tables"]).output();
        let rules = String::from_utf8(rules.unwrap().stdout).unwrap();
        assert!(!rules.contains("portolan"), "{rules}");
        node.configure("mode: nftables\n");
        until_or(|| alone(3), || node.log());
        node.converged(&[2, 3]);
        until("its relay to end", || node.relays().is_empty());
    });
}

/// Some machines let everybody have port 80.
fn only_root_has_low_ports() {
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024").unwrap();
}

fn may_do_nothing(pid: Pid) {
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status_of(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_of(pid, "NoNewPrivs"), "1");
    assert_eq!(status_of(pid, "Seccomp"), "2", "a filter");
}
