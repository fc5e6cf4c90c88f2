//! The agent's own Node object and Lease: who the node is, and that it is alive.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::status::time;
use crate::plan::NodePlan;

/// How often the Lease is renewed (the kubelet: every 10 s, valid for 40 s).
const RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// How long to wait after a failed request.
const RETRY: Duration = Duration::from_millis(500);
/// A request to the API that takes longer is tried again.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// What kubelet reports by default; a scheduler puts no more on a node.
pub const PODS_MAX: usize = 110;

/// Registers the node and keeps saying that it is alive, for ever.
pub async fn keep(client: Client, plan: NodePlan) {
    let nodes: Api<Node> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    loop {
        let told = tokio::time::timeout(REQUEST_MAX, beat(&nodes, &leases, plan)).await;
        let wait = match told {
            Ok(Ok(())) => RENEW,
            Ok(Err(error)) => {
                tracing::debug!(%error, "can't tell the API that the node is alive");
                RETRY
            }
            Err(_) => RETRY,
        };
        tokio::time::sleep(wait).await;
    }
}

async fn beat(nodes: &Api<Node>, leases: &Api<Lease>, plan: NodePlan) -> kube::Result<()> {
    let name = plan.name();
    let known = match nodes.get_opt(&name).await? {
        Some(node) => node,
        None => create(nodes, plan).await?,
    };
    let wanted = status(plan, &known, Timestamp::now());
    nodes
        .patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({"status": wanted})),
        )
        .await?;
    let now = MicroTime(Timestamp::now());
    let spec =
        json!({"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now});
    if leases.get_opt(&name).await?.is_some() {
        leases
            .patch(
                &name,
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await?;
    } else {
        let lease =
            json!({"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": spec});
        let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
        leases.create(&PostParams::default(), &lease).await?;
    }
    Ok(())
}

async fn create(nodes: &Api<Node>, plan: NodePlan) -> kube::Result<Node> {
    let name = plan.name();
    let cidrs = plan.pod_cidrs().map(|net| net.to_string());
    let node = json!({
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": architecture(),
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": architecture(),
        }},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs, "providerID": format!("portolan-lab://{name}")},
    });
    let node = serde_json::from_value(node).map_err(kube::Error::SerdeError)?;
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => nodes.get(&name).await,
        other => other,
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The node's status. A condition's transition time stays when its status does.
fn status(plan: NodePlan, known: &Node, now: Timestamp) -> Value {
    let [v4, v6] = plan.ips();
    let resources = json!({
        "cpu": std::thread::available_parallelism().map_or(1, usize::from).to_string(),
        "memory": format!("{}Ki", memory_kib()),
        "ephemeral-storage": "10Gi",
        "pods": PODS_MAX.to_string(),
    });
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        let old = known
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let since = old
            .into_iter()
            .find(|c| c.type_ == kind && c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": time(now), "lastTransitionTime": since.unwrap_or_else(|| time(now))})
    };
    json!({
        "addresses": [
            {"type": "InternalIP", "address": v4.to_string()},
            {"type": "InternalIP", "address": v6.to_string()},
            {"type": "Hostname", "address": plan.name()},
        ],
        "capacity": resources,
        "allocatable": resources,
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            condition("Ready", "True", "KubeletReady", "the lab's agent is posting ready status"),
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": node_info(),
    })
}

fn node_info() -> Value {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .map(|text| text.trim().to_string())
            .unwrap_or_default()
    };
    let version = concat!("v1.35.0+portolan.", env!("CARGO_PKG_VERSION"));
    let os = read("/etc/os-release");
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    json!({
        "machineID": read("/etc/machine-id"),
        "systemUUID": "",
        "bootID": read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": read("/proc/sys/kernel/osrelease"),
        "osImage": os,
        "containerRuntimeVersion": concat!("portolan-lab://", env!("CARGO_PKG_VERSION")),
        "kubeletVersion": version,
        "kubeProxyVersion": version,
        "operatingSystem": "linux",
        "architecture": architecture(),
    })
}

fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .unwrap_or_default()
}
