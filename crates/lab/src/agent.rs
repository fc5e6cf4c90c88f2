//! The agent of a node: a small kubelet. It runs in the node's network namespace, registers the node, watches the pods
//! that are bound to it and runs one [`worker`] for each. It keeps nothing that a successor could not find again in the
//! node's directory, the pods' shims and the API, so it may be killed at any time.

mod backoff;
mod decide;
mod env;
mod events;
mod files;
mod image;
mod ipam;
mod log_read;
mod log_server;
mod network;
mod node;
mod probe;
mod prober;
mod probes;
mod report;
mod sandbox;
mod service_env;
mod shim_client;
mod start;
mod status;
mod stop;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector;
use kube::{Api, Client};
use portolan_k8s::watch::{Event, Filter, watch};
use tokio::sync::watch as latest;
use tokio::task::JoinSet;

use crate::dir::{LabDir, private_dir, read_json};
use crate::error::{Error, Result};
use crate::plan::NodePlan;
use events::Recorder;
use sandbox::Addresses;

pub use shim_client::NETNS_FD;

/// What all workers of the node use.
struct Shared {
    plan: NodePlan,
    client: Client,
    program: PathBuf,
    node_dir: PathBuf,
    addresses: Addresses,
    events: Recorder,
    services: reflector::Store<Service>,
}

impl Shared {
    fn pods_dir(&self) -> PathBuf {
        self.node_dir.join("pods")
    }
}

/// Where an agent's kubeconfig is: as the one for people, with the API's address inside the fabric.
pub fn kubeconfig(dir: &LabDir, node: NodePlan) -> PathBuf {
    dir.node(&node.name()).join("kubeconfig")
}

/// Writes the agent's kubeconfig as soon as the API server has written its own.
pub async fn write_kubeconfig(dir: &LabDir, node: NodePlan) -> Result<PathBuf> {
    let (theirs, ours) = (dir.path("kubeconfig"), kubeconfig(dir, node));
    private_dir(&dir.node(&node.name()))?;
    let text = loop {
        match std::fs::read_to_string(&theirs) {
            Ok(text) if text.contains("server:") => break text,
            _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let local = format!("https://127.0.0.1:{}", dir.config()?.api_port);
    let inside = format!("https://192.168.0.1:{}", crate::plan::API_PORT);
    std::fs::write(&ours, text.replace(&local, &inside))
        .map_err(|e| Error::file("write", &ours, e))?;
    Ok(ours)
}

/// Runs the node, for ever. The caller is in the node's network namespace, and has called [`write_kubeconfig`].
pub async fn run(dir: LabDir, plan: NodePlan, kubeconfig: &Path) -> Result<()> {
    let client = portolan_k8s::client(Some(kubeconfig)).await?;
    let node_dir = dir.node(&plan.name());
    private_dir(&node_dir.join("pods"))?;
    let (events, send_events) = Recorder::new(client.clone(), &plan.name());
    let (services, writer) = reflector::store();
    let program =
        std::env::current_exe().map_err(|e| Error::conversation("find our own program", e))?;
    let addresses = Addresses::open(&node_dir);
    let shared = Arc::new(Shared {
        plan,
        client: client.clone(),
        program,
        node_dir,
        addresses,
        events,
        services,
    });
    let log_socket = dir.path("kubelet").join(format!("{}.sock", plan.name()));
    let logs = log_server::listen(&log_socket)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(send_events);
    tasks.spawn(node::keep(client.clone(), plan));
    tasks.spawn(keep_services(client, writer));
    tasks.spawn(log_server::serve(logs, shared.pods_dir()));
    tasks.spawn(run_pods(shared));
    // None of them ends by itself, so one that does has failed; the supervisor starts us again.
    match tasks.join_next().await {
        Some(Err(error)) => Err(Error::Refused(format!(
            "a part of the agent has failed: {error}"
        ))),
        _ => Err(Error::Refused("a part of the agent has ended".into())),
    }
}

async fn keep_services(client: Client, mut writer: reflector::store::Writer<Service>) {
    let mut events = std::pin::pin!(watch::<Service>(Api::all(client), Filter::default()));
    while let Some(event) = events.next().await {
        writer.apply_watcher_event(&event);
    }
}

/// The workers, and how each is told what is wanted.
#[derive(Default)]
struct Pods {
    wanted: BTreeMap<String, latest::Sender<Option<Arc<Pod>>>>,
    workers: JoinSet<String>,
}

impl Pods {
    fn apply(&mut self, shared: &Arc<Shared>, pod: Pod) {
        let (uid, pod) = (pod.metadata.uid.clone().unwrap_or_default(), Arc::new(pod));
        match self.wanted.get(&uid) {
            Some(wanted) => drop(wanted.send_replace(Some(pod))),
            None => {
                let (tell, wanted) = latest::channel(Some(pod.clone()));
                self.wanted.insert(uid.clone(), tell);
                let shared = shared.clone();
                self.workers.spawn(async move {
                    worker::run(shared, pod, wanted).await;
                    uid
                });
            }
        }
    }

    fn gone(&mut self, uid: &str) {
        if let Some(wanted) = self.wanted.get(uid) {
            wanted.send_replace(None);
        }
    }
}

/// Runs a worker for each pod that the API binds to this node, and for each that an earlier agent has left here.
async fn run_pods(shared: Arc<Shared>) {
    // A container's environment needs the Services that exist when it starts.
    if shared.services.wait_until_ready().await.is_err() {
        return;
    }
    let left = left_pods(&shared.pods_dir());
    let fields = format!("spec.nodeName={}", shared.plan.name());
    let filter = Filter {
        labels: "",
        fields: &fields,
    };
    let mut events = std::pin::pin!(watch::<Pod>(Api::all(shared.client.clone()), filter));
    let mut pods = Pods::default();
    let mut listed: BTreeSet<String> = BTreeSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(ended) = pods.workers.join_next() => {
                if let Ok(uid) = ended {
                    pods.wanted.remove(&uid);
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(Event::Init) => listed.clear(),
            Some(Event::Apply(pod)) => pods.apply(&shared, pod),
            Some(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                pods.apply(&shared, pod);
            }
            Some(Event::Delete(pod)) => pods.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
            Some(Event::InitDone) => {
                for (uid, pod) in &left {
                    if !listed.contains(uid) && !pods.wanted.contains_key(uid) {
                        pods.apply(&shared, pod.clone());
                    }
                }
                let gone: Vec<String> = pods
                    .wanted
                    .keys()
                    .filter(|uid| !listed.contains(*uid))
                    .cloned()
                    .collect();
                gone.iter().for_each(|uid| pods.gone(uid));
            }
        }
    }
}

/// The pods that an earlier agent has left on this node, by uid.
fn left_pods(pods_dir: &Path) -> BTreeMap<String, Pod> {
    let entries = std::fs::read_dir(pods_dir).into_iter().flatten().flatten();
    let read = |entry: std::fs::DirEntry| {
        let pod: Pod = read_json(&entry.path().join("pod.json")).ok()?;
        Some((entry.file_name().to_string_lossy().into_owned(), pod))
    };
    entries.filter_map(read).collect()
}
