//! Waiting until what was applied runs: the Pods are Ready, the Deployments have all their replicas, and the Ingresses
//! that the lab's gateway is for are served.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::gateway;

/// How long pods may take before `lab up` goes on without them: slow ones are no error.
const SETTLE_MAX: Duration = Duration::from_secs(30);
/// How often it is looked again.
const POLL: Duration = Duration::from_millis(50);
/// How long one request may take; after it, it is asked again.
const REQUEST_MAX: Duration = Duration::from_secs(5);

/// Waits until the Pods, Deployments and Ingresses among `objects` run, or until it has taken long enough.
/// Gives the names of those that do not run yet.
pub async fn settle(client: &Client, objects: &[Value]) -> Vec<String> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut left: Vec<&Value> = objects
        .iter()
        .filter(|object| is_waited_for(object))
        .collect();
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

fn is_waited_for(object: &Value) -> bool {
    match text(object, "/kind") {
        "Pod" | "Deployment" => true,
        // One of another class is somebody else's, whom we do not know.
        "Ingress" => ["", gateway::CLASS].contains(&text(object, "/spec/ingressClassName")),
        _ => false,
    }
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
    if text(object, "/kind") == "Ingress" {
        let api = Api::<Ingress>::namespaced(client.clone(), namespace);
        return Some(is_served(&api.get(name).await.ok()?));
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

fn is_served(ingress: &Ingress) -> bool {
    let status = ingress.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    balancer.is_some_and(|balancer| balancer.ingress.iter().flatten().next().is_some())
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
    fn ingresses_of_the_labs_class_are_waited_for() {
        let of = |class: Value| json!({"kind": "Ingress", "spec": {"ingressClassName": class}});
        assert!(is_waited_for(&of(Value::Null)) && is_waited_for(&of("portolan".into())));
        assert!(!is_waited_for(&of("nginx".into())));
        let ingress = |status: Value| serde_json::from_value(json!({"status": status})).unwrap();
        assert!(!is_served(&ingress(json!({"loadBalancer": {}}))));
        let served = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
        assert!(is_served(&ingress(served)));
    }

    #[test]
    fn a_pod_that_has_ended_is_not_waited_for() {
        let pod = |status: Value| serde_json::from_value(json!({"status": status})).unwrap();
        assert!(pod_is_ready(&pod(json!({"phase": "Succeeded"}))));
        assert!(!pod_is_ready(&pod(json!({"phase": "Running"}))));
    }
}
