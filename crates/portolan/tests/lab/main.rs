//! The life of a lab, with the real binary: up, pods, exec, logs, the death of an agent, down, and nothing left.
//! As the user who runs the tests and, when that is root, also as one without privileges.
#![allow(clippy::unwrap_used)] // A test that can't set up has failed.

mod gateway;
mod names;
mod pod;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(60);
/// A user without privileges: nobody.
const NOBODY: u32 = 65534;

const PODS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: words, namespace: default}
data: {greeting: hello from a config map}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default}
spec:
  initContainers:
  - {name: first, image: none, command: [sh, -c, "echo first"]}
  containers:
  - name: web
    image: portolan/echo
    args: ["--drain", "0"]
    readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
  - name: talk
    image: none
    command: [sh, -c, "echo $(GREETING); echo $0 $HOSTNAME; exec sleep infinity", "$(NODE)"]
    env:
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}
"#;

/// A lab of its own for a test; it is ended with the test, however that ends.
struct Lab {
    dir: TempDir,
    program: PathBuf,
    user: Option<u32>,
}

impl Lab {
    fn up(user: Option<u32>) -> Lab {
        Lab::up_with(user, PODS)
    }

    fn up_with(user: Option<u32>, manifest: &str) -> Lab {
        Lab::up_in(user, manifest, "nftables")
    }

    fn up_in(user: Option<u32>, manifest: &str, mode: &str) -> Lab {
        let dir = tempfile::Builder::new().prefix("pl").tempdir().unwrap();
        let built = PathBuf::from(env!("CARGO_BIN_EXE_portolan"));
        let program = match user {
            None => built,
            Some(user) => {
                // The build directory may be closed to others.
                let copy = dir.path().join("portolan");
                std::fs::copy(built, &copy).unwrap();
                std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
                std::os::unix::fs::chown(dir.path(), Some(user), Some(user)).unwrap();
                copy
            }
        };
        std::fs::write(dir.path().join("pods.yaml"), manifest).unwrap();
        let lab = Lab { dir, program, user };
        let manifest = lab.dir.path().join("pods.yaml");
        let manifest = manifest.to_str().unwrap();
        let of_mode = ["--proxy-mode", mode, "-f", manifest];
        lab.must(&[&["up", "--nodes", "2"], &of_mode[..]].concat());
        lab
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("lab").args(arguments).stdin(Stdio::null());
        command
            .env("PORTOLAN_LAB_DIR", self.dir.path())
            .current_dir("/");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn kubeconfig(&self) -> String {
        self.status()["kubeconfig"].as_str().unwrap().to_string()
    }

    /// What kubectl prints; nothing when it fails.
    fn kubectl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments);
        let output = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Another command of the program, about the lab's API.
    fn run_portolan(&self, arguments: &[&str], more: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(more)
            .env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn portolan(&self, arguments: &[&str], more: &[&str]) -> String {
        let output = self.run_portolan(arguments, more);
        assert!(
            output.status.success(),
            "{arguments:?} {more:?}: {output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "lab {arguments:?}: {}\n{errors}",
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until a command answers as it should.
    fn until(&self, arguments: &[&str], good: impl Fn(&str) -> bool) -> String {
        let mut last = None;
        wait_until(&format!("lab {arguments:?}"), || {
            let output = self.run(arguments);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let done = output.status.success() && good(&text);
            last = Some(text);
            done
        });
        last.unwrap()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.must(&["status", "-o", "json"])).unwrap()
    }

    fn process(&self, name: &str) -> serde_json::Value {
        let status = self.status();
        let mut all = status["processes"].as_array().unwrap().iter();
        all.find(|process| process["name"] == name).unwrap().clone()
    }

    /// Waits until nothing of the lab is left on the machine: no process, no mount, no file.
    fn wait_for_nothing(&self) {
        wait_until("the end of all processes of the lab", || {
            self.processes().is_empty()
        });
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.dir.path().to_str().unwrap()),
            "{mounts}"
        );
        wait_until("the end of the lab's directory", || {
            !self.dir.path().join("default").exists()
        });
    }

    /// The processes whose command line names the lab's directory: the supervisor, agents, shims.
    fn processes(&self) -> Vec<String> {
        let wanted = self.dir.path().to_str().unwrap().to_string();
        let lines = std::fs::read_dir("/proc").unwrap().flatten();
        let lines = lines.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        lines.filter(|line| line.contains(&wanted)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
    }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn kill(pid: &serde_json::Value) {
    let pid = nix::unistd::Pid::from_raw(pid.as_i64().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Everything a lab does, from up to down.
fn live(user: Option<u32>) {
    let lab = Lab::up(user);
    let said = lab.until(&["logs", "web", "-c", "talk"], |text| {
        text.lines().count() == 2
    });
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "hello from a config map");
    assert!(lines[1] == "n1 web" || lines[1] == "n2 web", "{said}");
    assert_eq!(lab.must(&["logs", "web", "-c", "first"]), "first\n");
    let program = lab.program.to_str().unwrap();
    let ask = [
        "exec",
        "web",
        "--",
        program,
        "ask",
        "http://127.0.0.1:8080",
        "-o",
        "json",
    ];
    lab.until(&ask, |text| text.contains("\"web\":1"));
    let search = lab.must(&["exec", "web", "--", "cat", "/etc/resolv.conf"]);
    assert!(
        search.contains("search default.svc.cluster.local"),
        "{search}"
    );
    assert_eq!(
        lab.run(&["exec", "web", "--", "sh", "-c", "exit 7"])
            .status
            .code(),
        Some(7)
    );

    // What a pod is must not change when its agent dies: the shim is PID 1 of the pod, known by its start time.
    let identity = [
        "exec",
        "web",
        "--",
        "cat",
        "/proc/sys/kernel/hostname",
        "/proc/1/stat",
    ];
    let started = |text: &str| text.split_whitespace().nth(22).map(str::to_string);
    let before = started(&lab.must(&identity));
    for agent in ["agent-n1", "agent-n2"] {
        kill(&lab.process(agent)["pid"]);
        wait_until("the agent's successor", || {
            lab.process(agent)["starts"].as_u64() > Some(1)
        });
    }
    assert_eq!(started(&lab.must(&identity)), before);
    lab.until(&["logs", "web", "-c", "talk"], |text| text == said);

    lab.must(&["down"]);
    lab.wait_for_nothing();
    assert!(!lab.run(&["status"]).status.success());
}

#[test]
fn a_lab_lives_and_leaves_nothing() {
    live(None);
}

#[test]
fn a_lab_needs_no_privileges() {
    // An ordinary user has just proved that with the test above.
    if nix::unistd::geteuid().is_root() {
        live(Some(NOBODY));
    }
}

#[test]
fn a_crash_of_the_supervisor_leaves_nothing() {
    let lab = Lab::up(None);
    lab.until(&["exec", "web", "-c", "talk", "--", "true"], |_| true);
    assert!(!lab.processes().is_empty());
    kill(&lab.status()["supervisor"]);
    lab.wait_for_nothing();
    let again = lab.dir.path().join("pods.yaml");
    lab.must(&["up", "--nodes", "1", "-f", again.to_str().unwrap()]);
}

#[test]
fn two_labs_of_one_name_are_refused_and_wrong_manifests_start_nothing() {
    let lab = Lab::up(None);
    let second = lab.run(&["up"]);
    assert!(
        String::from_utf8_lossy(&second.stderr).contains("already up"),
        "{second:?}"
    );
    let wrong = lab.run(&["up", "--name", "other", "-f", "/nothing/here.yaml"]);
    assert!(
        String::from_utf8_lossy(&wrong.stderr).contains("No such file or directory"),
        "{wrong:?}"
    );
    assert!(!Path::new(lab.dir.path()).join("other").exists());
}
