//! Nodes without anything behind them: their pods run and are ready as soon as they are bound, and go when told to.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use portolan_k8s::watch::{Event, Filter, watch};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How long after a failure the agent tries again, and how often it renews its Leases.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs until dropped.
pub struct Agent {
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Registers nodes n1, n2, … and takes care of their pods.
    pub async fn start(client: Client, nodes: usize) -> Agent {
        let mut tasks = JoinSet::new();
        for number in 1..=nodes {
            register(&client, &format!("n{number}")).await;
            tasks.spawn(renew(client.clone(), format!("n{number}")));
        }
        tasks.spawn(run(client));
        Agent { _tasks: tasks }
    }
}

async fn register(client: &Client, name: &str) {
    let node: Node = decode(json!({"metadata": {"name": name}}));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let ready = json!({
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastTransitionTime": Timestamp::now(),
    });
    let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
    let params = PatchParams::default();
    nodes.patch_status(name, &params, &patch).await.unwrap();
}

async fn renew(client: Client, name: String) {
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        let spec = json!({"holderIdentity": name, "renewTime": Timestamp::now()});
        let lease: Lease = decode(json!({"metadata": {"name": name}, "spec": spec}));
        let patched = leases
            .patch(
                &name,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await;
        if is_absent(&patched) {
            let _ = leases.create(&PostParams::default(), &lease).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn run(client: Client) {
    let mut events = pin!(watch(Api::<Pod>::all(client.clone()), Filter::default()));
    while let Some(event) = events.next().await {
        if let Event::Apply(pod) | Event::InitApply(pod) = event {
            while !care(&client, &pod).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Does what a pod needs; whether the server has answered.
async fn care(client: &Client, pod: &Pod) -> bool {
    let name = pod.metadata.name.clone().unwrap();
    let namespace = pod.metadata.namespace.clone().unwrap();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let bound = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.node_name.is_some());
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if !bound {
        return true;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let params = DeleteParams::default().grace_period(0);
        return answered(&api.delete(&name, &params).await);
    }
    if phase == Some("Running") {
        return true;
    }
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now()});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    let patch = Patch::Strategic(status);
    answered(
        &api.patch_status(&name, &PatchParams::default(), &patch)
            .await,
    )
}

fn answered<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Ok(_) | Err(kube::Error::Api(_)))
}

fn is_absent<T>(result: &Result<T, kube::Error>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.code == 404)
}

fn decode<K: serde::de::DeserializeOwned + Debug>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}
