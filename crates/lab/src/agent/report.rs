//! What the agent tells the API about a pod: its status when that changes, and at the end that it is gone.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::decide::{Plan, Stand};
use super::worker::Worker;
use super::{sandbox, status};
use crate::shim::protocol::PodState;

/// How long a request may take before it is tried again.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// The wait between tries to remove a pod.
const RETRY: Duration = Duration::from_millis(500);

/// Patches the pod's status if it differs from what was last sent. False when the API did not take it.
pub async fn report(worker: &mut Worker, plan: &Plan) -> bool {
    let meta = &worker.pod.metadata;
    let new = status::build(&status::Input {
        pod: &worker.pod,
        facts: &worker.facts,
        sandbox: worker.shim.is_some(),
        state: &worker.state,
        memory: &worker.memory,
        plan,
        now: Timestamp::now(),
    });
    let Ok(new) = serde_json::to_value(&new) else {
        return true;
    };
    if worker
        .sent
        .as_ref()
        .is_some_and(|sent| comparable(sent) == comparable(&new))
    {
        return true;
    }
    let patch = json!({"metadata": {"uid": meta.uid}, "status": with_nulls(new.clone())});
    let name = meta.name.clone().unwrap_or_default();
    let api = pods(worker);
    let params = PatchParams::default();
    let sent = timeout(
        REQUEST_MAX,
        api.patch_status(&name, &params, &Patch::Merge(&patch)),
    )
    .await;
    match sent {
        Ok(Ok(_)) => {
            worker.sent = Some(new);
            true
        }
        // It is gone, or another pod has its name: there is nothing to tell.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => true,
        Ok(Err(error)) => {
            tracing::debug!(%error, name, "can't report");
            false
        }
        Err(_) => false,
    }
}

/// Transition times of conditions are made anew while the API's answer is under way; they alone are no news.
fn comparable(status: &Value) -> Value {
    let mut status = status.clone();
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    status["startTime"] = Value::Null;
    status
}

/// In a merge patch what is absent stays; these fields must go when they no longer hold.
fn with_nulls(mut status: Value) -> Value {
    for field in ["message", "reason"] {
        if let Some(object) = status.as_object_mut() {
            object.entry(field).or_insert(Value::Null);
        }
    }
    status
}

/// The plan of a pod that is being ended: what has run is finished, nothing is started.
pub fn ended(state: &PodState, spec: &PodSpec) -> Plan {
    let all = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers);
    let stands = all.map(|container| {
        let stand = match state.last_run(&container.name) {
            Some(run) if run.is_running() => Stand::Running,
            Some(_) => Stand::Finished,
            None => Stand::Later,
        };
        (container.name.clone(), stand)
    });
    let initialized = spec
        .containers
        .iter()
        .any(|container| state.last_run(&container.name).is_some());
    Plan {
        stands: stands.collect(),
        initialized,
    }
}

/// Takes away what is left of the pod on the node, then the pod in the API, however long that takes.
pub async fn remove(worker: &Worker) {
    let uid = worker.pod.metadata.uid.clone().unwrap_or_default();
    let (shared, directory, pod) = (worker.shared.clone(), worker.directory.clone(), uid.clone());
    let cleared =
        tokio::task::spawn_blocking(move || sandbox::tear_down(&shared, &directory, &pod)).await;
    if let Ok(Err(error)) = cleared {
        tracing::warn!(%error, "something of a pod is left");
    }
    let name = worker.pod.metadata.name.clone().unwrap_or_default();
    let api = pods(worker);
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions {
            uid: Some(uid),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    loop {
        match timeout(REQUEST_MAX, api.delete(&name, &params)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => return,
            Ok(Err(error)) => tracing::debug!(%error, name, "can't remove the pod from the API"),
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn pods(worker: &Worker) -> Api<Pod> {
    let namespace = worker
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or("default");
    Api::namespaced(worker.shared.client.clone(), namespace)
}
