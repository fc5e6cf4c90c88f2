//! ipvs mode with the real binary, on a kernel that has IPVS: this one, or Debian's in a machine of its own
//! (scripts/machine.sh). There this program runs the tests of this file once more, and this time all of them.

use std::process::Command;
use std::time::Duration;

use portolan_kernel::isolated;
use portolan_kernel::machine::{self, Ended, Luggage};

use crate::node::{Effort, Node, PORTOLAN, until, until_or};
use crate::{modes, privilege, switch};

/// What an emulated machine can do: some 100 requests a second.
const EMULATED: Effort = Effort {
    between: Duration::from_millis(80),
    enough: 100,
};

/// Programs that the proxy or the tests run.
const PROGRAMS: [&str; 14] = [
    PORTOLAN,
    "setpriv",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-nft-restore",
    "ip6tables-nft",
    "ip6tables-nft-save",
    "ip6tables-nft-restore",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-legacy-restore",
    "ip6tables-legacy",
    "ip6tables-legacy-save",
    "ip6tables-legacy-restore",
];

/// Tests of this file that need IPVS.
const TESTS: usize = 6;

/// Whether this kernel has IPVS; where it has not, the test below takes care of it.
fn is_possible() -> bool {
    let known = portolan_kernel::ipvs::is_known();
    if !known {
        eprintln!("this kernel has no IPVS: in a machine with another one");
    }
    known
}

#[test]
fn all_of_this_runs_in_a_machine_where_this_kernel_has_no_ipvs() {
    if portolan_kernel::ipvs::is_known() {
        return;
    }
    let arguments = [
        "ipvs::",
        "--skip=all_of_this_runs",
        "--test-threads=1",
        "--nocapture",
    ];
    let luggage = Luggage {
        files: Vec::new(),
        programs: PROGRAMS.map(String::from).into(),
    };
    let mut lines = Vec::new();
    let ended = machine::run(&arguments.map(String::from), &luggage, |line| {
        eprintln!("  {line}");
        lines.push(line.to_owned());
    });
    match ended.unwrap() {
        Ended::Missing => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI's machine can do everything"
            );
            eprintln!("SKIPPED: QEMU or its kernel is missing: run scripts/setup.sh");
        }
        ended => {
            let text = lines.join("\n");
            assert_eq!(ended, Ended::Status(0), "{text}");
            assert!(
                text.contains(&format!("{TESTS} passed; 0 failed")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_proxy_that_is_killed_is_not_missed() {
    if is_possible() {
        isolated!(a_proxy_that_is_killed_is_not_missed, {
            // nftables mode says how much slower than other kernels this one is.
            for mode in ["nftables", "ipvs"] {
                modes::is_not_missed(mode, EMULATED);
            }
        });
    }
}

/// From ipvs mode to every other one, and back.
const WALK: [&str; 9] = [
    "ipvs",
    "nftables",
    "ipvs",
    "iptables",
    "ipvs",
    "userspace",
    "ipvs",
    "ebpf",
    "ipvs",
];

#[test]
fn a_mode_changes_without_a_failed_request() {
    if is_possible() {
        isolated!(a_mode_changes_without_a_failed_request, {
            modes::changes(&["ipvs", "nftables", "ipvs", "iptables", "ipvs"], EMULATED);
        });
    }
}

#[test]
fn a_file_that_changes_its_mode_fails_no_request() {
    if is_possible() {
        isolated!(a_file_that_changes_its_mode_fails_no_request, {
            switch::file_changes(&WALK, EMULATED);
        });
    }
}

const BY_MODE: [&str; 2] = ["--proxy-mode", "ipvs"];

/// A node with three endpoints that have all answered.
fn node() -> Node {
    let mut node = Node::new(3);
    node.lead_to(&[2, 3, 4]);
    node.start(&BY_MODE);
    until_or(|| node.stands_alone(), || node.log());
    node.converged(&[2, 3, 4]);
    node
}

/// Whether no virtual server sends new connections there.
fn is_out(endpoint: &str) -> bool {
    let listed = Command::new("ipvsadm").args(["-Ln"]).output().unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    // An arrow, the address, the way, the weight.
    let weight = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words.get(1) == Some(&endpoint)).then(|| words[3].to_owned())
    };
    text.lines().filter_map(weight).all(|weight| weight == "0")
}

/// As in every mode (R-HEALTH-5): clients wait meanwhile, and nobody fails.
#[test]
fn an_endpoint_that_hangs_leaves_and_comes_back() {
    if is_possible() {
        isolated!(an_endpoint_that_hangs_leaves_and_comes_back, {
            let node = node();
            let load = node.load_of(EMULATED);
            node.hang(2, true);
            until_or(|| node.log().contains("endpoint ejected"), || node.log());
            until_or(|| is_out("10.1.1.2:8080"), || node.log());
            node.converged(&[3, 4]);
            node.hang(2, false);
            until_or(|| node.log().contains("endpoint readmitted"), || node.log());
            node.converged(&[2, 3, 4]);
            let (asked, failures) = load.end();
            assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
            let log = node.log();
            assert_eq!(log.matches("endpoint ejected").count(), 1, "{log}");
        });
    }
}

/// Connections that it has not answered go elsewhere (R-HEALTH-9).
#[test]
fn who_waits_for_an_endpoint_that_is_cut_off_gets_another_one() {
    if is_possible() {
        isolated!(
            who_waits_for_an_endpoint_that_is_cut_off_gets_another_one,
            {
                let node = node();
                let load = node.load_of(EMULATED);
                node.cut_off(2);
                until_or(|| node.log().contains("endpoint ejected"), || node.log());
                node.converged(&[3, 4]);
                let asked = load.asked();
                until("requests", || load.asked() >= asked + EMULATED.enough);
                let (asked, failures) = load.end();
                assert_eq!(failures, Vec::<String>::new(), "of {asked}\n{}", node.log());
            }
        );
    }
}

/// What ipvs mode sets in its namespace, it can set as any user who has CAP_NET_ADMIN.
#[test]
fn a_proxy_keeps_what_its_mode_needs_and_no_more() {
    if is_possible() {
        isolated!(a_proxy_keeps_what_its_mode_needs_and_no_more, {
            let setting = "/proc/sys/net/ipv4/vs/conntrack";
            let mut node = Node::new(3);
            for user in [0, privilege::NOBODY] {
                std::fs::write(setting, "0").unwrap();
                privilege::keeps_no_more(&mut node, "ipvs", privilege::NETWORK, user);
                assert_eq!(std::fs::read_to_string(setting).unwrap(), "1\n", "{user}");
            }
        });
    }
}
