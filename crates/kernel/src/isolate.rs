//! Tests on the real kernel: a test runs itself again in namespaces of its own, as root or not.

use std::process::{Command, Stdio};

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use crate::command::CommandNamespaces;

const MARK: &str = "PORTOLAN_ISOLATED_TEST";

/// Runs `body` in fresh user (if needed), network, mount, UTS and IPC namespaces. Call it as the only statement of
/// a `#[test]` whose full path is `test` (use [`isolated!`](crate::isolated)). The namespaces end with the process,
/// and the process ends with the test run, however that ends.
pub fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some_and(|mark| mark == test) {
        crate::mount::make_private().expect("a private mount namespace");
        return body();
    }
    let own = std::env::current_exe().expect("the path of the test program");
    let mut command = Command::new(own);
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .stdin(Stdio::null());
    command.die_with_parent(Signal::SIGKILL).in_new_namespaces(
        CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    );
    let output = command
        .output()
        .expect("this machine must allow namespaces (root, or unprivileged user namespaces)");
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("1 passed"),
        "{test} in its own namespaces ({}):\n{text}",
        output.status
    );
    // For whoever runs tests with --nocapture.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a block in namespaces of its own; the first argument is the test function's name.
#[macro_export]
macro_rules! isolated {
    ($name:ident, $body:block) => {{
        let module = module_path!();
        let path = module
            .split_once("::")
            .map(|(_, rest)| format!("{rest}::"))
            .unwrap_or_default();
        $crate::isolate::isolated(&format!("{path}{}", stringify!($name)), || $body)
    }};
}
