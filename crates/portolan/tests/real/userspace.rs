//! Userspace mode with the real binary: started, killed, adopted, and exchanged for another mode.

use nix::sys::signal::Signal;
use portolan_kernel::isolated;

use crate::node::{Node, ask_over};

const USERSPACE: [&str; 2] = ["--proxy-mode", "userspace"];
const NFTABLES: [&str; 2] = ["--proxy-mode", "nftables"];

/// The portal that a killed process has left leads to the relay of the next one, which knows who is there by then.
#[test]
fn a_relay_that_is_killed_is_followed_by_another() {
    isolated!(a_relay_that_is_killed_is_followed_by_another, {
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        node.start(&USERSPACE);
        node.converged(&[2, 3]);
        node.end(Signal::SIGKILL);
        node.lead_to(&[3, 4]);
        node.start(&USERSPACE);
        node.converged(&[3, 4]);
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

/// A connection through rules of nftables mode goes on when userspace mode writes the same tables, and new ones go
/// through the relay; the other way round, the relay's go with its process.
#[test]
fn either_mode_takes_over_from_the_other() {
    isolated!(either_mode_takes_over_from_the_other, {
        let mut node = Node::new(4);
        node.lead_to(&[2, 3]);
        node.start(&NFTABLES);
        node.converged(&[2, 3]);
        let mut lasting = node.connections();
        let mut answers = || lasting.iter_mut().all(|stream| ask_over(stream).is_ok());
        assert!(answers());
        node.end(Signal::SIGKILL);
        node.start(&USERSPACE);
        node.lead_to(&[3, 4]);
        node.converged(&[3, 4]);
        assert!(answers());
        node.end(Signal::SIGKILL);
        node.lead_to(&[2, 4]);
        node.start(&NFTABLES);
        node.converged(&[2, 4]);
        assert!(answers());
    });
}
