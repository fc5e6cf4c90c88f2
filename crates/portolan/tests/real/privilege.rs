//! How little the proxy may do, in every mode: as root and as nobody, and so the programs that it runs.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use portolan_kernel::isolated;
use portolan_kernel::namespace::is_first_user;

use crate::modes;
use crate::node::{Node, until_or};

/// CAP_NET_ADMIN and CAP_NET_RAW, as /proc shows them.
pub const NETWORK: &str = "0000000000003000";
/// These, CAP_PERFMON and CAP_BPF.
const WITH_BPF: &str = "000000c000003000";
/// And CAP_SYS_ADMIN, if it was given.
const ALL: &str = "000000c000203000";

/// A user without privileges: nobody.
pub const NOBODY: u32 = 65534;

/// Every mode of this kernel, with the capabilities that are left in it.
fn modes() -> Vec<(&'static str, &'static str)> {
    let kept = |mode| match mode {
        "ebpf" => WITH_BPF,
        _ => NETWORK,
    };
    let all = modes::modes().iter().chain(&["userspace"]);
    all.map(|mode| (*mode, kept(*mode))).collect()
}

#[test]
fn a_proxy_keeps_what_its_mode_needs_and_no_more() {
    isolated!(a_proxy_keeps_what_its_mode_needs_and_no_more, {
        // In a user namespace of ours there is nobody else.
        let users: &[u32] = match is_first_user() {
            true => &[0, NOBODY],
            false => &[0],
        };
        let mut node = Node::new(3);
        for (mode, kept) in modes() {
            for user in users {
                keeps_no_more(&mut node, mode, kept, *user);
            }
        }
    });
}

/// A proxy of this user has no more than `kept`, and works.
pub fn keeps_no_more(node: &mut Node, mode: &str, kept: &str, user: u32) {
    node.lead_to(&[2, 3]);
    let capabilities = match kept {
        WITH_BPF => "-all,+net_admin,+net_raw,+perfmon,+bpf",
        _ => "-all,+net_admin,+net_raw",
    };
    let arguments = ["--proxy-mode", mode, "--reset-gone-connections"];
    match user {
        0 => node.start(&arguments),
        _ => {
            // What root's process has left is root's.
            let pins = Path::new("/sys/fs/bpf/portolan");
            if pins.exists() {
                chown(pins, Some(user), None).unwrap();
            }
            node.start_as(user, capabilities, &arguments);
        }
    }
    until_or(|| node.stands_alone(), || node.log());
    let kept = match (kept, user) {
        (WITH_BPF, 0) => ALL,
        _ => kept,
    };
    for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(node.status(set), kept, "{mode} {user} {set}");
    }
    assert_eq!(node.status("NoNewPrivs"), "1", "{mode} {user}");
    assert_eq!(node.status("Seccomp"), "2", "{mode} {user}: a filter");
    let uid = node.status("Uid");
    assert!(uid.starts_with(&user.to_string()), "{mode} {uid}");
    node.converged(&[2, 3]);
    node.lead_to(&[3, 4]);
    node.converged(&[3, 4]);
    node.end(Signal::SIGTERM);
    // The next one has to write everything.
    node.clean_up();
}

/// Programs at devices, and XDP, need what eBPF mode has anyway.
#[test]
fn xdp_needs_no_more_than_ebpf_mode() {
    isolated!(xdp_needs_no_more_than_ebpf_mode, {
        if !is_first_user() {
            assert!(std::env::var_os("CI").is_none(), "CI has root");
            return eprintln!("SKIPPED: eBPF mode needs root");
        }
        let mut node = Node::new(2);
        node.take_frames_outside();
        node.lead_to(&[2, 3]);
        let pins = Path::new("/sys/fs/bpf/portolan");
        std::fs::create_dir(pins).unwrap();
        chown(pins, Some(NOBODY), None).unwrap();
        let arguments = [
            &["--proxy-mode", "ebpf", "--ebpf-outside-devices", "eth0"][..],
            &["--ebpf-outside-xdp"],
        ];
        let capabilities = "-all,+net_admin,+net_raw,+perfmon,+bpf";
        node.start_as(NOBODY, capabilities, &arguments.concat());
        until_or(|| node.stands_alone(), || node.log());
        node.converged(&[2, 3]);
        let shown = Command::new("ip").args(["link", "show", "eth0"]).output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        assert!(shown.contains(" xdp "), "{shown}\n{}", node.log());
        assert!(!node.log().contains("no XDP"), "{}", node.log());
        assert_eq!(node.status("CapEff"), WITH_BPF);
        // No flow needs it any more.
        node.end(Signal::SIGTERM);
        chown(pins, Some(0), None).unwrap();
        node.clean_up();
    });
}

/// One that stands where the proxy looks for `iptables-nft-save`. A setting of the network tells how far it came.
const INTRUDER: &str = "#!/bin/sh
echo 33 > /proc/sys/net/ipv4/tcp_fin_timeout
touch DIR/written 2> /dev/null && echo 34 > /proc/sys/net/ipv4/tcp_fin_timeout
unshare --user true 2> /dev/null && echo 35 > /proc/sys/net/ipv4/tcp_fin_timeout
PATH=${PATH#*:}
exec iptables-nft-save \"$@\"
";

#[test]
fn programs_that_the_proxy_runs_can_do_no_more() {
    isolated!(programs_that_the_proxy_runs_can_do_no_more, {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("iptables-nft-save");
        let text = INTRUDER.replace("DIR", &dir.path().display().to_string());
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!(
            "{}:{}:/usr/sbin:/sbin",
            dir.path().display(),
            std::env::var("PATH").unwrap()
        );
        let setting = "/proc/sys/net/ipv4/tcp_fin_timeout";
        let came = || std::fs::read_to_string(setting).unwrap().trim().to_owned();
        let mut node = Node::new(2);
        node.lead_to(&[2, 3]);
        for (mode, _) in modes() {
            std::fs::write(setting, "60").unwrap();
            let file = node.configure(&format!("mode: {mode}\n"));
            node.start_with(&file, &[], Some(&path));
            until_or(|| node.stands_alone(), || node.log());
            node.converged(&[2, 3]);
            assert_eq!(came(), "33", "{mode}: it ran, and got no further");
            assert!(!dir.path().join("written").exists(), "{mode}");
            node.end(Signal::SIGTERM);
        }
        // It would have got further.
        let file = node.configure("mode: nftables\n");
        node.start_with(&file, &["--confine=false"], Some(&path));
        until_or(|| node.stands_alone(), || node.log());
        assert_eq!(came(), "35");
        assert!(dir.path().join("written").exists());
    });
}

/// The variable by which a proxy tells itself that it is confined says nothing by itself.
#[test]
fn who_says_that_it_is_confined_is_confined_nevertheless() {
    isolated!(who_says_that_it_is_confined_is_confined_nevertheless, {
        let mut node = Node::new(2);
        node.lead_to(&[2, 3]);
        node.start_in(("PORTOLAN_CONFINED", "1"), &["--proxy-mode", "nftables"]);
        until_or(|| node.stands_alone(), || node.log());
        assert_eq!(node.status("CapEff"), NETWORK);
        assert_eq!(node.status("Seccomp"), "2", "a filter");
        let told = "PORTOLAN_CONFINED is set, and nothing was given up before";
        assert!(node.log().contains(told), "{}", node.log());
    });
}

/// A change of more than the mode is obeyed by beginning anew, more often than the kernel would let a process confine
/// itself.
#[test]
fn a_confined_proxy_begins_anew_as_often_as_it_is_told() {
    isolated!(a_confined_proxy_begins_anew_as_often_as_it_is_told, {
        let mut node = Node::new(2);
        node.lead_to(&[2, 3]);
        let file = node.configure("mode: nftables\n");
        node.start_with(&file, &[], None);
        until_or(|| node.stands_alone(), || node.log());
        for time in 1..=2 {
            node.configure(&format!("mode: nftables\nconfigSyncPeriod: {time}s\n"));
            let begun = || node.log().matches("proxy is running").count() == 1 + time;
            until_or(begun, || node.log());
        }
        node.converged(&[2, 3]);
        assert_eq!(node.status("CapEff"), ALL, "every mode may come");
        assert_eq!(node.status("Seccomp_filters"), "1");
    });
}
