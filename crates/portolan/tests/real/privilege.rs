//! How little the proxy may do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{Links, isolated};

use crate::node::until;
use crate::server::Server;

/// CAP_NET_ADMIN and CAP_NET_RAW.
const TWO: &str = "0000000000003000";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// What the kernel says of the process.
    fn status(&self, name: &str) -> String {
        let path = format!("/proc/{}/status", self.0.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    }
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the proxy in front of the words of a command that may do less; it has to program the API's own Service.
fn works(before: &[&str], kubeconfig: &Path) -> Running {
    let portolan = [env!("CARGO_BIN_EXE_portolan")];
    let words: Vec<&str> = before.iter().chain(&portolan).copied().collect();
    let child = Command::new(words[0])
        .args(&words[1..])
        .args([
            "proxy",
            "--hostname-override=n1",
            "--reset-gone-connections",
            "--kubeconfig",
        ])
        .arg(kubeconfig)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .die_with_parent(Signal::SIGKILL)
        .spawn()
        .unwrap();
    let running = Running(child);
    until("the API's own Service stands", || {
        nft(&["list", "ruleset"]).contains("172.30.0.1")
    });
    running
}

#[test]
fn two_capabilities_are_enough_and_no_more_are_kept() {
    isolated!(two_capabilities_are_enough_and_no_more_are_kept, {
        Links::here().unwrap().up("lo").unwrap();
        let server = Server::start();
        server.wait();
        // For a user who owns nothing.
        let dir = tempfile::tempdir().unwrap();
        let kubeconfig = dir.path().join("kubeconfig");
        std::fs::copy(server.kubeconfig(), &kubeconfig).unwrap();
        for path in [dir.path(), &kubeconfig] {
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, mode).unwrap();
        }

        let root = works(&[], &kubeconfig);
        for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
            assert_eq!(root.status(set), TWO, "{set}");
        }
        assert_eq!(root.status("NoNewPrivs:"), "1");
        drop(root);
        nft(&["flush", "ruleset"]);

        // In a user namespace of ours there is nobody else, and root with two capabilities has to do.
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        let alone = map.split_whitespace().nth(2) == Some("1");
        let user = match alone {
            true => "0",
            false => "65534",
        };
        let two = "-all,+net_admin,+net_raw";
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let caps = ["--bounding-set", "--inh-caps", "--ambient-caps"];
        let mut before = vec!["setpriv", &ids[0], &ids[1]];
        if !alone {
            before.push("--clear-groups");
        }
        before.extend(caps.iter().flat_map(|set| [*set, two]));
        let nobody = works(&before, &kubeconfig);
        assert_eq!(nobody.status("Uid:").split_whitespace().next(), Some(user));
        assert_eq!(nobody.status("CapEff:"), TWO);
    });
}
