//! Waiting until what was applied runs: the Pods are Ready, the Deployments have all their replicas.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

/// How long pods may take before `lab up` goes on without them: slow ones are no error.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked again.
const POLL: Duration = Duration::from_millis(50);
/// How long one request may take; after it, it is asked again.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Waits until the Pods and Deployments among `objects` run, or until it has taken long enough.
/// Gives the names of those that do not run yet.
pub async fn settle(client: &Client, objects: &[Value]) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut left: Vec<&Value> = objects.iter().filter(|object| runs_pods(object)).collect();
    loop {
        let mut waiting = Vec::new();
        for object in left {
            let done = timeout(REQUEST_MAX, runs(client, object)).await;
            if done != Ok(Some(true)) {
                waiting.push(object);
            }
        }
        left = waiting;
        if left.is_empty() || Instant::now() > deadline {
            return left.iter().map(|object| title(object)).collect();
        }
        sleep(POLL).await;
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn runs_pods(object: &Value) -> bool {
    matches!(text(object, "/kind"), "Pod" | "Deployment")
}

fn namespace(object: &Value) -> &str {
    match text(object, "/metadata/namespace") {
        "" => "default",
        name => name,
    }
}

fn title(object: &Value) -> String {
    let kind = text(object, "/kind").to_lowercase();
    format!(
        "{kind} {}/{}",
        namespace(object),
        text(object, "/metadata/name")
    )
}

/// Whether one of them runs; `None` when the API does not say.
async fn runs(client: &Client, object: &Value) -> Option<bool> {
    let (namespace, name) = (namespace(object), text(object, "/metadata/name"));
    if text(object, "/kind") == "Pod" {
        let pod = Api::<Pod>::namespaced(client.clone(), namespace)
            .get(name)
            .await
            .ok()?;
        return Some(pod_is_ready(&pod));
    }
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    Some(is_available(&api.get(name).await.ok()?))
}

fn pod_is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let ended = status.and_then(|status| status.phase.as_deref());
    if matches!(ended, Some("Succeeded" | "Failed")) {
        return true;
    }
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let seen = |status: &k8s_openapi::api::apps::v1::DeploymentStatus| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
    };
    deployment.status.as_ref().is_some_and(seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_available_when_its_newest_spec_has_all_replicas() {
        let deployment = |observed: i64, available: i32| -> Deployment {
            serde_json::from_value(json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "selector": {}, "template": {}},
                "status": {"observedGeneration": observed, "updatedReplicas": 3, "availableReplicas": available},
            }))
            .unwrap()
        };
        assert!(is_available(&deployment(2, 3)));
        assert!(!is_available(&deployment(1, 3)));
        assert!(!is_available(&deployment(2, 2)));
    }

    #[test]
    fn a_pod_that_has_ended_is_not_waited_for() {
        let pod = |status: Value| serde_json::from_value(json!({"status": status})).unwrap();
        assert!(pod_is_ready(&pod(json!({"phase": "Succeeded"}))));
        assert!(!pod_is_ready(&pod(json!({"phase": "Running"}))));
    }
}
