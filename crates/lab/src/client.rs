//! The user's side of a lab: bringing it up step by step, looking at it, finding its pods, ending it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use nix::sys::signal::Signal;
use portolan_kernel::process::PidFd;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::apply::{self, Applier};
use crate::dir::{LabConfig, LabDir};
use crate::error::{Error, Result};
use crate::exec::ask;
use crate::settle::settle;
use crate::supervisor::{self, Question};
use crate::{gateway, names, plan};

/// How long a lab may take until its nodes are Ready.
const UP_MAX: Duration = Duration::from_secs(60);
/// How long a lab may take to end before it is killed.
const DOWN_MAX: Duration = Duration::from_secs(10);
/// How often something is looked at again.
const POLL: Duration = Duration::from_millis(50);
/// How long one request may take: the API is on this machine, so a later answer is none.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// A client of the lab's API for a person on this machine.
pub async fn api(dir: &LabDir) -> Result<Client> {
    Ok(portolan_k8s::client(Some(&dir.path("kubeconfig"))).await?)
}

/// Waits until the API answers and all nodes are Ready, and applies manifests. `tell` hears of each step.
pub async fn bring_up(
    dir: &LabDir,
    manifests: &[PathBuf],
    mut tell: impl FnMut(&str),
) -> Result<()> {
    let objects = manifests
        .iter()
        .map(|path| apply::read(path))
        .collect::<Result<Vec<_>>>()?
        .concat();
    let nodes = dir.config()?.nodes;
    let deadline = Instant::now() + UP_MAX;
    let client = wait_for_api(dir, deadline).await?;
    tell("the API server answers");
    let mut applier = Applier::new(client.clone());
    for object in [names::objects()?, gateway::objects()?].concat() {
        applier.apply(&object).await?;
    }
    // Nodes first: a scheduler that knows only some of them would put everything there.
    wait_for_nodes(dir, client.clone(), nodes, deadline, &mut tell).await?;
    wait_for_names(dir, client.clone(), nodes, deadline, &mut tell).await?;
    for object in &objects {
        tell(&applier.apply(object).await?);
    }
    match settle(&client, &objects).await.as_slice() {
        [] if objects.is_empty() => {}
        [] => tell("all their pods are Ready, their Ingresses are served"),
        waiting => tell(&format!(
            "still waiting for {}; `kubectl describe` tells why",
            waiting.join(", ")
        )),
    }
    Ok(())
}

async fn wait_for_api(dir: &LabDir, deadline: Instant) -> Result<Client> {
    loop {
        if dir.path("kubeconfig").exists()
            && let Ok(client) = api(dir).await
        {
            let ready = http::Request::get("/readyz").body(Vec::new());
            let ready =
                ready.map_err(|e| Error::api("ask for /readyz", kube::Error::HttpError(e)))?;
            if let Ok(Ok(_)) = timeout(REQUEST_MAX, client.request_text(ready)).await {
                return Ok(client);
            }
        }
        give_up_after(dir, deadline, "the API server does not answer", "apiserver").await?;
    }
}

async fn wait_for_nodes(
    dir: &LabDir,
    client: Client,
    count: u8,
    deadline: Instant,
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    let api: Api<Node> = Api::all(client);
    let mut told = 0;
    loop {
        if let Ok(Ok(list)) = timeout(REQUEST_MAX, api.list(&ListParams::default())).await {
            let ready = list.items.iter().filter(|node| is_ready(node)).count();
            if ready > told {
                told = ready;
                tell(&format!("{ready} of {count} nodes are Ready"));
            }
            if ready >= usize::from(count) {
                return Ok(());
            }
        }
        give_up_after(dir, deadline, "the nodes do not become Ready", "agent-n1").await?;
    }
}

/// Waits until the answerers of all nodes answer.
async fn wait_for_names(
    dir: &LabDir,
    client: Client,
    count: u8,
    deadline: Instant,
    tell: &mut impl FnMut(&str),
) -> Result<()> {
    let api: Api<EndpointSlice> = Api::namespaced(client, names::NAMESPACE);
    let of_service = format!("kubernetes.io/service-name={}", names::SERVICE);
    let params = ListParams::default().labels(&of_service);
    let answers = |slice: &&EndpointSlice| {
        let mut ready = slice.endpoints.iter().filter_map(|e| e.conditions.as_ref());
        slice.address_type == "IPv4" && ready.any(|conditions| conditions.ready == Some(true))
    };
    loop {
        if let Ok(Ok(list)) = timeout(REQUEST_MAX, api.list(&params)).await
            && list.items.iter().filter(answers).count() >= usize::from(count)
        {
            tell(&format!("names are answered at {}", plan::DNS_SERVICE));
            return Ok(());
        }
        give_up_after(dir, deadline, "nobody answers names", "dns-n1").await?;
    }
}

async fn give_up_after(dir: &LabDir, deadline: Instant, what: &str, log: &str) -> Result<()> {
    if !dir.is_running()? {
        return Err(Error::Refused(format!(
            "the lab has ended:\n{}",
            log_end(&dir.path("log/supervisor.log"))
        )));
    }
    if Instant::now() > deadline {
        let log = dir.path("log").join(format!("{log}.log"));
        return Err(Error::Refused(format!(
            "{what}; {} ends with:\n{}",
            log.display(),
            log_end(&log)
        )));
    }
    sleep(POLL).await;
    Ok(())
}

/// The last lines of a log, for error messages.
pub fn log_end(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(10).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A pod's container, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The socket of the pod's shim.
    pub socket: PathBuf,
    /// The container's name.
    pub container: String,
}

/// Finds a pod and its container: the named one, the default one of its annotation, or the first.
pub async fn find_pod(
    dir: &LabDir,
    namespace: &str,
    name: &str,
    container: Option<&str>,
) -> Result<Found> {
    let api: Api<Pod> = Api::namespaced(api(dir).await?, namespace);
    let pod = api
        .get(name)
        .await
        .map_err(|e| Error::api(format!("get the pod {namespace}/{name}"), e))?;
    let spec = pod.spec.unwrap_or_default();
    let node = spec
        .node_name
        .ok_or_else(|| Error::Refused(format!("the pod {name} is on no node yet")))?;
    let annotations = pod.metadata.annotations.unwrap_or_default();
    let default = annotations
        .get("kubectl.kubernetes.io/default-container")
        .map(String::as_str);
    let names = || {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
            .map(|container| container.name.as_str())
    };
    let first = spec
        .containers
        .first()
        .map(|container| container.name.as_str());
    let wanted = container.or(default).or(first).unwrap_or_default();
    if !names().any(|name| name == wanted) {
        let all = names().collect::<Vec<_>>().join(", ");
        return Err(Error::Refused(format!(
            "the pod {name} has no container {wanted:?}, but {all}"
        )));
    }
    let uid = pod.metadata.uid.unwrap_or_default();
    Ok(Found {
        socket: dir.node(&node).join("pods").join(uid).join("shim.sock"),
        container: wanted.to_string(),
    })
}

/// A lab as its user sees it.
#[derive(Debug, Serialize)]
pub struct LabStatus {
    /// Its name.
    pub name: String,
    /// The API's address on this machine.
    pub server: String,
    /// The file for `KUBECONFIG`.
    pub kubeconfig: PathBuf,
    /// The directory with everything, also the logs.
    pub directory: PathBuf,
    /// How many nodes it has.
    pub nodes: u8,
    /// The data plane of its nodes.
    pub proxy_mode: String,
    /// The supervisor's process number.
    pub supervisor: u32,
    /// The API server, the agents, the answerers of names and the gateway.
    pub processes: Vec<Process>,
}

/// A process of the lab.
#[derive(Debug, Serialize)]
pub struct Process {
    /// `apiserver`, `agent-n1` …
    pub name: String,
    /// Its number as the machine sees it, if it runs.
    pub pid: Option<u32>,
    /// How often it was started.
    pub starts: u32,
}

/// Looks at a lab. `None` when it does not run; what a dead one has left is removed.
pub fn status(dir: &LabDir) -> Result<Option<LabStatus>> {
    if !dir.is_running()? {
        dir.remove_if_stale()?;
        return Ok(None);
    }
    let LabConfig {
        name,
        nodes,
        api_port,
        proxy_mode,
        supervisor_pid,
    } = dir.config()?;
    let daemons: supervisor::Status = ask(&dir.path("control.sock"), &Question::Status, &[])?;
    let children = children(supervisor_pid);
    let outer = |inner: u32| {
        children
            .iter()
            .find(|(_, number)| *number == inner)
            .map(|(outer, _)| *outer)
    };
    let processes = daemons.daemons.into_iter().map(|(name, daemon)| Process {
        name,
        pid: daemon.pid.and_then(outer),
        starts: daemon.starts,
    });
    Ok(Some(LabStatus {
        name,
        server: format!("https://127.0.0.1:{api_port}"),
        kubeconfig: dir.path("kubeconfig"),
        directory: dir.root().to_path_buf(),
        nodes,
        proxy_mode,
        supervisor: supervisor_pid,
        processes: processes.collect(),
    }))
}

/// The supervisor's children: their numbers here and in the lab.
fn children(supervisor: u32) -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        let parent: u32 = field("PPid:")?.parse().ok()?;
        let inner: u32 = field("NSpid:")?.split_whitespace().last()?.parse().ok()?;
        (parent == supervisor).then_some((pid, inner))
    };
    numbers.filter_map(read).collect()
}

/// Ends a lab and removes its directory. False when none ran.
pub fn down(dir: &LabDir) -> Result<bool> {
    // Opened before the lock is looked at: if the lab runs then, this is its supervisor and no later process.
    let supervisor = dir
        .config()
        .ok()
        .and_then(|config| PidFd::open(config.supervisor_pid).ok());
    let running = dir.is_running()?;
    if let Some(supervisor) = supervisor.filter(|_| running) {
        supervisor.kill(Signal::SIGTERM)?;
        if !supervisor.wait_end(DOWN_MAX)? {
            supervisor.kill(Signal::SIGKILL)?;
            supervisor.wait_end(DOWN_MAX)?;
        }
        // The supervisor's parent removes the directory and lets go of the lock.
        let deadline = std::time::Instant::now() + DOWN_MAX;
        while dir.root().exists() && dir.is_running()? && std::time::Instant::now() < deadline {
            std::thread::park_timeout(POLL);
        }
    }
    dir.remove_if_stale()?;
    Ok(running)
}
