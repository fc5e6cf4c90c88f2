//! The lab of the soak: `portolan lab` and `kubectl` as processes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use portolan_k8s::Timestamp;
use portolan_testkit::wait;
use serde_json::Value;
use tempfile::TempDir;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The node that is cut off; nobody's client.
pub const CUT: &str = "n3";
/// The nodes with clients.
pub const CLIENTS: [&str; 2] = ["n1", "n2"];
const NODES: &str = "3";
/// Requests that are under way at once, from each node.
const AT_ONCE: &str = "8";
/// How long a client waits.
const CLIENT_PATIENCE_MS: &str = "3000";

/// A lab of its own, which ends with this value.
pub struct Lab {
    dir: TempDir,
    program: PathBuf,
    kubectl: String,
}

/// A pod that is ready.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub node: String,
    /// Address and port, as endpoints are named.
    pub address: String,
}

impl Lab {
    /// Up, with every pod ready.
    pub fn up() -> Result<Lab> {
        let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
        let program = std::env::var_os("PORTOLAN").map_or_else(
            || PathBuf::from(target).join("release/portolan"),
            PathBuf::from,
        );
        let program = program.canonicalize().map_err(|error| {
            format!(
                "{}: {error}; name the binary in PORTOLAN",
                program.display()
            )
        })?;
        let lab = Lab {
            dir: tempfile::Builder::new().prefix("soak").tempdir()?,
            program,
            kubectl: std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".into()),
        };
        let file = lab.dir.path().join("soak.yaml");
        std::fs::write(&file, manifest())?;
        let file = file.to_str().ok_or("a path that is no text")?;
        lab.run(lab.lab(&["up", "--nodes", NODES, "-f", file]))?;
        for what in ["deployment/web", "deployment/steady"] {
            lab.kubectl(&["rollout", "status", what, "--timeout=60s"])?;
        }
        Ok(lab)
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("lab")
            .args(arguments)
            .env("PORTOLAN_LAB_DIR", self.dir.path());
        command
    }

    /// What a command says.
    fn run(&self, mut command: Command) -> Result<String> {
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{command:?}: {}: {words}", output.status).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("--kubeconfig")
            .arg(self.dir.path().join("default/kubeconfig"))
            .args(arguments);
        self.run(command)
    }

    fn on_node(&self, node: &str, argv: &[&str]) -> Result<String> {
        let words = ["exec", "--node", node, "--"];
        self.run(self.lab(&[&words, argv].concat()))
    }

    /// A rolling update from its beginning to its end.
    pub fn update(&self, version: u32) -> Result<()> {
        let version = format!("VERSION=v{version}");
        self.kubectl(&["set", "env", "deployment/web", &version])?;
        self.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"])
            .map(drop)
    }

    /// The pods behind a Service that are ready and not about to end.
    pub fn pods(&self, app: &str) -> Result<Vec<Pod>> {
        let selector = format!("app={app}");
        let text = self.kubectl(&["get", "pods", "-l", &selector, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let items = list["items"].as_array().ok_or("no list of pods")?;
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        let pod = |pod: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
            Pod {
                name: text(&pod["metadata"]["name"]),
                node: text(&pod["spec"]["nodeName"]),
                address: format!("{}:8080", text(&pod["status"]["podIP"])),
            }
        };
        Ok(items.iter().filter(stays).map(pod).collect())
    }

    /// A signal to every process of a pod; says when.
    pub fn signal(&self, pod: &str, signal: &str) -> Result<Timestamp> {
        let kill = format!("{NOW}; kill -{signal} -1");
        time(&self.run(self.lab(&["exec", pod, "--", "sh", "-c", &kill]))?)
    }

    /// Nothing from the fabric enters the node [`CUT`], or everything does again; says when.
    pub fn cut(&self, is_off: bool) -> Result<Timestamp> {
        let add = "add table inet cut; \
            add chain inet cut entry { type filter hook prerouting priority -400; }; \
            add rule inet cut entry iifname eth0 drop";
        let rules = if is_off { add } else { "delete table inet cut" };
        let script = format!("{NOW}; nft '{rules}'");
        time(&self.on_node(CUT, &["sh", "-c", &script])?)
    }

    /// The endpoints that a node has ejected.
    fn ejected(&self, node: &str) -> Result<Vec<String>> {
        let url = "http://127.0.0.1:10249/ejected";
        let text = self.on_node(node, &["curl", "--silent", "--fail", url])?;
        let list: Value = serde_json::from_str(&text)?;
        let all = list.as_array().ok_or("no list of endpoints")?.iter();
        let endpoint = |out: &Value| out["endpoint"].as_str().unwrap_or_default().to_string();
        Ok(all.map(endpoint).collect())
    }

    /// Waits until each node with clients has ejected one of these at least, which is all of them that it may.
    pub fn await_ejected(&self, addresses: &[&str], patience: Duration) -> Result<()> {
        let knows = |node: &&str| {
            let out = self.ejected(node).unwrap_or_default();
            out.iter().any(|out| addresses.contains(&out.as_str()))
        };
        match wait::until(patience, || CLIENTS.iter().all(knows)) {
            true => Ok(()),
            false => Err(format!("nobody has ejected any of {addresses:?}").into()),
        }
    }

    /// Waits until nobody is ejected.
    pub fn await_nobody(&self, patience: Duration) -> Result<()> {
        let is_well = |node: &&str| self.ejected(node).is_ok_and(|out| out.is_empty());
        match wait::until(patience, || CLIENTS.iter().all(is_well)) {
            true => Ok(()),
            false => Err("somebody is still ejected, though all answer".into()),
        }
    }

    /// What the agents have logged: the node and its lines.
    pub fn logs(&self) -> Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(self.dir.path().join("default/log"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(node) = name.strip_prefix("agent-") {
                let node = node.split('.').next().unwrap_or_default().to_string();
                logs.push((node, std::fs::read_to_string(&path)?));
            }
        }
        Ok(logs)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.run(self.lab(&["down"]));
    }
}

/// Clients of one Service, one on each of the nodes [`CLIENTS`], until they are told to end.
pub struct Load {
    clients: Vec<(Child, ChildStdin)>,
}

impl Load {
    pub fn begin(lab: &Lab, service: &str) -> Result<Load> {
        let path = "jsonpath={.spec.clusterIP}";
        let vip = lab.kubectl(&["get", "service", service, "-o", path])?;
        let program = lab.program.to_str().ok_or("a path that is no text")?;
        let begin = |node: &str| -> Result<(Child, ChildStdin)> {
            let (client, url) = (format!("client-{node}"), format!("http://{vip}"));
            let mut command = lab.lab(&["exec", &client, "--", program, "ask", &url]);
            command
                .args([
                    "--until-eof",
                    "-c",
                    AT_ONCE,
                    "--pause-ms",
                    "10",
                    "-o",
                    "json",
                ])
                .args(["--timeout-ms", CLIENT_PATIENCE_MS])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped());
            let mut child = command.spawn()?;
            let hold = child
                .stdin
                .take()
                .ok_or("a client without standard input")?;
            Ok((child, hold))
        };
        let clients = CLIENTS.iter().map(|node| begin(node));
        Ok(Load {
            clients: clients.collect::<Result<_>>()?,
        })
    }

    /// What the clients say in the end.
    pub fn end(self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for (child, mut hold) in self.clients {
            hold.flush()?;
            drop(hold);
            let output = child.wait_with_output()?;
            all.push(serde_json::from_slice(&output.stdout)?);
        }
        Ok(all)
    }
}

/// Says the time: to get into a pod may take longer than what is measured.
const NOW: &str = "date --utc +%Y-%m-%dT%H:%M:%S.%NZ";

fn time(text: &str) -> Result<Timestamp> {
    Ok(text.trim().parse()?)
}

/// Pods behind each Service.
const REPLICAS: usize = 4;

/// A Deployment that can be updated without a failure, one without probes, so that nobody but the proxies notices when
/// its pods hang, and clients.
fn manifest() -> String {
    let mut text = String::new();
    let careful = "
        readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 1}}}";
    for (app, more) in [("web", careful), ("steady", "")] {
        let _ = write!(
            text,
            "
apiVersion: v1
kind: Service
metadata: {{name: {app}}}
spec: {{selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {app}}}
spec:
  replicas: {REPLICAS}
  strategy: {{rollingUpdate: {{maxSurge: 4, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: {app}}}}}
  template:
    metadata: {{labels: {{app: {app}}}}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: echo
        image: portolan/echo
        args: [--http, '8080', --drain, '1']{more}
---
"
        );
    }
    for node in CLIENTS {
        let _ = write!(
            text,
            "
apiVersion: v1
kind: Pod
metadata: {{name: client-{node}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: pause}}]}}
---
"
        );
    }
    text
}
