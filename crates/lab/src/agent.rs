//! The agent of a node: a small kubelet. It runs in the node's network namespace, registers the node, watches the pods
//! that are bound to it and runs one worker for each. It keeps nothing that a successor could not find again in the
//! node's directory, the pods' shims and the API, so it may be killed at any time: containers and traffic go on.
//!
//! ```text
//! API ── watch ──► pods ──► worker (one per pod) ──► shim ──► containers
//!                              │  decide, probe, status, env, volumes: pure rules
//! API ◄── status, events ◄─────┘
//! ```

mod action;
mod backoff;
mod conditions;
mod context;
mod decide;
mod env;
mod events;
mod files;
mod image;
mod ipam;
mod live;
mod log_read;
mod log_server;
mod memory;
mod names;
mod network;
mod node;
mod pods;
mod probe;
pub mod service_env;
mod shim_client;
mod status;
mod volumes;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::dir::{LabDir, private_dir};
use crate::error::{Error, Result};
use crate::plan::NodePlan;
use context::Context;
use events::Recorder;

pub use shim_client::NETNS_FD;

/// How often a new agent looks whether the API server has written its kubeconfig.
const KUBECONFIG_POLL: Duration = Duration::from_millis(50);

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
            _ => tokio::time::sleep(KUBECONFIG_POLL).await,
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
    let (events, write_events) = Recorder::new(client.clone(), &plan.name());
    let (context, follow_services) = Context::new(plan, &dir, client.clone(), events)?;
    let context = Arc::new(context);
    let dns = crate::names::config_dir(&dir, plan);
    let socket = dir.path("kubelet").join(format!("{}.sock", plan.name()));
    let logs = log_server::listen(&socket)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(write_events);
    tasks.spawn(follow_services);
    tasks.spawn(node::keep(client.clone(), plan));
    tasks.spawn(names::keep(client, plan, dns));
    tasks.spawn(log_server::serve(logs, context.pods_dir()));
    tasks.spawn(pods::run(context));
    // None of them ends by itself, so one that does has failed; the supervisor starts us again.
    let why = match tasks.join_next().await {
        Some(Err(error)) => error.to_string(),
        _ => "it has ended".into(),
    };
    Err(Error::Refused(format!(
        "a part of the agent has failed: {why}"
    )))
}
