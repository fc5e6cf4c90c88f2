//! What was given up is refused by the kernel, and what was kept is not.

use std::path::Path;
use std::process::Command;

use nix::errno::Errno;

use super::*;
use crate::isolated;
use crate::nft::NftTarget;

const BOTH: [Capability; 2] = [Capability::NetAdmin, Capability::NetRaw];

fn raw(result: std::io::Result<impl Sized>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// A line of /proc/thread-self/status.
fn status(name: &str) -> String {
    let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim().into()
}

#[test]
fn what_was_given_up_is_refused() {
    isolated!(what_was_given_up_is_refused, {
        // Of the test's own mount namespace.
        let folder = Path::new("/mnt");
        crate::mount::tmpfs(folder).unwrap();
        let (kept, other) = (folder.join("kept"), folder.join("other"));
        for path in [&kept, &other] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(other.join("old"), "stays").unwrap();
        std::fs::write(folder.join("file"), "").unwrap();
        let needs = Needs {
            capabilities: vec![Capability::NetAdmin],
            writable: vec![
                kept.clone(),
                folder.join("file"),
                "/there/is/no/such/file".into(),
            ],
            ..Needs::default()
        };
        let wanted = Confined {
            capabilities: needs.capabilities.clone(),
            writes: true,
            calls: true,
        };
        assert_eq!(confine(&needs).unwrap(), wanted, "CI's kernel has both");
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(status(set), "0000000000001000", "{set}");
        }
        refused(&kept, &other);
        // Its work goes on, and threads can do no more.
        let work = move || {
            NftTarget::open().unwrap().remove().unwrap();
            refused(&kept, &other);
        };
        std::thread::spawn(work).join().unwrap();
    });
}

fn refused(kept: &Path, other: &Path) {
    std::fs::write(kept.join("file"), "is written").unwrap();
    std::fs::rename(kept.join("file"), kept.join("moved")).unwrap();
    std::fs::write(kept.with_file_name("file"), "is written").unwrap();
    let denied = Some(libc::EACCES);
    assert_eq!(raw(std::fs::write(other.join("new"), "is not")), denied);
    assert_eq!(raw(std::fs::write(other.join("old"), "is not")), denied);
    assert_eq!(raw(std::fs::remove_file(other.join("old"))), denied);
    assert_eq!(raw(std::fs::create_dir(other.join("new"))), denied);
    assert_eq!(std::fs::read_to_string(other.join("old")).unwrap(), "stays");
    let forbidden = Some(libc::EPERM);
    assert_eq!(raw(Command::new("true").status()), forbidden);
    let mount = crate::mount::tmpfs(kept).unwrap_err();
    assert_eq!(mount.errno(), forbidden);
    // Everybody may do these two, so it is the filter that refuses them.
    let user = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    assert_eq!(user, Err(Errno::EPERM));
    assert_eq!(nix::unistd::sethostname("other"), Err(Errno::EPERM));
    let packets = socket2::Domain::from(libc::AF_PACKET);
    let socket = socket2::Socket::new(packets, socket2::Type::RAW, None);
    assert_eq!(raw(socket), Some(libc::EAFNOSUPPORT));
}

#[test]
fn what_is_needed_is_kept() {
    isolated!(what_is_needed_is_kept, {
        let needs = Needs {
            capabilities: BOTH.into(),
            writable: vec!["/dev/null".into()],
            programs: true,
            ..Needs::default()
        };
        let confined = confine(&needs).unwrap();
        assert_eq!(confined.capabilities, BOTH);
        // Once more, as the relay does that a proxy has started.
        assert_eq!(confine(&needs).unwrap(), confined);
        let output = Command::new("nft").args(["list", "ruleset"]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        let apart = Command::new("unshare").args(["--user", "true"]).status();
        assert!(!apart.unwrap().success(), "programs can do no more");
    });
}

#[test]
fn who_says_that_it_is_confined_is_not_believed() {
    isolated!(who_says_that_it_is_confined_is_not_believed, {
        let needs = Needs {
            capabilities: vec![Capability::NetAdmin],
            ..Needs::default()
        };
        assert!(!stands(&needs));
        // What a runtime of containers does for everybody is not enough.
        keep_only(&needs.capabilities).unwrap();
        assert!(capabilities::has_no_more_than(&needs.capabilities));
        assert!(!capabilities::has_no_more_than(&[]), "one too many");
        assert!(!writes::stand() && !calls::stand());
        writes::only_below(&[]).unwrap();
        assert!(writes::stand() && !stands(&needs));
        calls::only_those_for(&needs).unwrap();
        assert!(stands(&needs));
    });
}

#[test]
fn a_newer_call_is_unknown_and_others_are_refused() {
    isolated!(a_newer_call_is_unknown_and_others_are_refused, {
        confine(&Needs::default()).unwrap();
        for (call, error) in [(5000, Errno::ENOSYS), (libc::SYS_clone3, Errno::ENOSYS)] {
            assert_eq!(call_without_arguments(call), Err(error), "{call}");
        }
        for call in [
            libc::SYS_bpf,
            libc::SYS_ptrace,
            libc::SYS_keyctl,
            libc::SYS_perf_event_open,
        ] {
            assert_eq!(call_without_arguments(call), Err(Errno::EPERM), "{call}");
        }
    });
}

#[allow(unsafe_code)]
fn call_without_arguments(call: libc::c_long) -> nix::Result<libc::c_long> {
    // SAFETY: none of these calls does anything with arguments that are all zero.
    Errno::result(unsafe { libc::syscall(call, 0, 0, 0, 0, 0) })
}
