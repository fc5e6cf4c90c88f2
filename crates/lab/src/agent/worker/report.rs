//! Writing a pod's status to the API, when it has changed.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Worker;
use crate::agent::context::bounded;
use crate::agent::decide::Decision;
use crate::agent::status;
use crate::error::{Error, Result};

impl Worker {
    /// Writes the status, if it is not what was written last, or if somebody else has changed whether the pod is ready.
    pub(super) async fn report(&mut self, decision: &Decision, now: Timestamp) -> Result<()> {
        let found = self.containers().filter_map(|(container, _)| {
            let live = self.lives.get(&container.name)?;
            Some((container.name.clone(), live.found(container)))
        });
        let input = status::Input {
            pod: &self.pod,
            state: &self.state(),
            decision,
            found: &found.collect(),
            pod_ips: &self.ips,
            host_ips: &self.context.node_ips(),
            sandbox: self.shim.is_some(),
            now,
        };
        let built = status::build(&input);
        let in_api = self.pod.status.as_ref().and_then(ready);
        let meddled = self.written.is_some() && in_api != ready(&built);
        let value = serde_json::to_value(&built)
            .map_err(|e| Error::conversation("write a status", std::io::Error::other(e)))?;
        if self.written.as_ref() == Some(&value) && !meddled {
            return Ok(());
        }
        let pod = write(self, &value).await?;
        self.written = Some(value);
        self.pod = Arc::new(pod);
        Ok(())
    }
}

async fn write(worker: &Worker, status: &Value) -> Result<Pod> {
    let namespace = worker.pod.metadata.namespace.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(worker.context.client.clone(), namespace);
    // The uid is a precondition: another pod of the same name must not get this one's status.
    let patch = Patch::Merge(json!({"metadata": {"uid": worker.uid}, "status": status}));
    let params = PatchParams::default();
    bounded(
        "write a pod's status",
        api.patch_status(worker.name(), &params, &patch),
    )
    .await
}

fn ready(status: &PodStatus) -> Option<String> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    Some(ready.status.clone())
}
