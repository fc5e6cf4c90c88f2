//! A write that was acknowledged survives SIGKILL of the API server.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test by panicking"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Objects that each of the writers tries to create.
const OBJECTS: usize = 200;

#[test]
fn acknowledged_writes_survive_sigkill() {
    let home = TempDir::new().unwrap();
    let mut server = serve(home.path());
    let mut writers: Vec<Child> = (0..3).map(|writer| write(home.path(), writer)).collect();
    let mut outputs: Vec<_> = writers
        .iter_mut()
        .map(|child| BufReader::new(child.stdout.take().unwrap()).lines())
        .collect();

    // The server dies in the middle of the work: when the first writer has seen a quarter of its objects stored.
    let mut acknowledged = BTreeSet::new();
    for line in outputs[0].by_ref().take(OBJECTS / 4) {
        acknowledged.insert(line.unwrap());
    }
    server.kill().unwrap();
    server.wait().unwrap();
    for (child, lines) in writers.iter_mut().zip(outputs) {
        acknowledged.extend(lines.map(Result::unwrap));
        child.wait().unwrap();
    }
    assert!(
        acknowledged.len() < 3 * OBJECTS,
        "the server was killed too late to show anything"
    );

    let mut server = serve(home.path());
    let listed = kubectl(home.path(), &["get", "cm", "-o", "name"])
        .output()
        .unwrap();
    let stored: BTreeSet<String> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    server.kill().unwrap();
    server.wait().unwrap();
    for line in acknowledged {
        let name = line.split(' ').next().unwrap();
        assert!(
            stored.contains(name),
            "{line:?} was acknowledged, but is lost"
        );
    }
}

/// Starts the real program and waits until it answers.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause between two looks, up to a deadline"
)]
fn serve(home: &Path) -> Child {
    let kubeconfig = home.join("kubeconfig");
    if kubeconfig.exists() {
        std::fs::remove_file(&kubeconfig).unwrap();
    }
    let child = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["apiserver", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(home.join("data"))
        .arg("--kubeconfig-out")
        .arg(&kubeconfig)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let answers = || {
        let probe = kubectl(home, &["get", "--raw", "/readyz"])
            .stderr(Stdio::null())
            .output();
        kubeconfig.exists() && probe.unwrap().status.success()
    };
    while !answers() {
        assert!(Instant::now() < deadline, "the server does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// Creates many objects one after the other; kubectl prints each that the server has acknowledged.
fn write(home: &Path, writer: usize) -> Child {
    let mut child = kubectl(home, &["create", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    for object in 0..OBJECTS {
        let name = format!("w{writer}-{object}");
        writeln!(
            input,
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}"
        )
        .unwrap();
    }
    child
}

fn kubectl(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("kubectl");
    command
        .args(arguments)
        .env("HOME", home)
        .env("KUBECONFIG", home.join("kubeconfig"))
        .env("KUBECACHEDIR", home.join("cache"));
    command
}
