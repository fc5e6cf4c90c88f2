//! Subresources that are more than a part of their object: scale, binding, eviction, finalize.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::Api;
use crate::kind::{Kind, Subresource};
use crate::object;
use crate::status::{self, Failure, bad_request};
use crate::store::Key;
use crate::verbs::update::{Place, update};

/// The subresource of a name, if the kind has it.
pub fn find(kind: &Kind, name: &str) -> Option<Subresource> {
    kind.subresources
        .iter()
        .copied()
        .find(|subresource| path(*subresource) == name)
}

/// How a subresource is called in paths.
pub fn path(subresource: Subresource) -> &'static str {
    match subresource {
        Subresource::Status => "status",
        Subresource::Scale => "scale",
        Subresource::Log => "log",
        Subresource::Binding => "binding",
        Subresource::Eviction => "eviction",
        Subresource::Finalize => "finalize",
    }
}

/// autoscaling/v1 Scale of an object.
pub fn scale_of(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    let selector = selector_text(&object["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = json!(selector);
    }
    scale
}

/// The object with the replicas of a Scale; a Scale with an old version conflicts.
pub fn apply_scale(kind: &Kind, old: &Value, scale: &Value) -> Result<Value, Failure> {
    let name = object::name(old);
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        value => value.as_i64().ok_or_else(|| {
            bad_request("Scale in version \"v1\" cannot be handled as a Scale: spec.replicas must be an integer")
        })?,
    };
    if replicas < 0 {
        let message = format!(
            "Scale.autoscaling \"{name}\" is invalid: spec.replicas: Invalid value: {replicas}: must be greater than \
             or equal to 0"
        );
        return Err(Failure::new(422, "Invalid", message));
    }
    let given = object::meta(scale, "resourceVersion");
    if !given.is_empty() && given != object::meta(old, "resourceVersion") {
        return Err(status::conflict(kind, name, status::MODIFIED));
    }
    let mut object = old.clone();
    object["spec"]["replicas"] = json!(replicas);
    Ok(object)
}

/// A label selector object in the form of a query string.
fn selector_text(selector: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    parts.sort();
    for expression in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values = object::strings(&expression["values"]);
        values.sort_unstable();
        let values = values.join(",");
        parts.push(match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// Binds a Pod to a node, once.
pub async fn bind(api: &Arc<Api>, key: Key, binding: &Value, dry_run: bool) -> Result<(), Failure> {
    let kind = api.kinds[key.kind];
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) || node.is_empty() {
        let message = format!(
            "Binding \"{}\" is invalid: target.name: Required value: a binding names one target of kind Node",
            key.name
        );
        return Err(Failure::new(422, "Invalid", message));
    }
    let place = Place {
        key,
        subresource: Some(Subresource::Binding),
        dry_run,
    };
    let change = move |old: &Value| {
        let name = object::name(old);
        let refuse = |why: String| Err(status::conflict_on("pods/binding", kind, name, &why));
        if object::deleting(old) {
            return refuse(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            ));
        }
        match old["spec"]["nodeName"].as_str().unwrap_or_default() {
            "" => {}
            bound => return refuse(format!("pod {name} is already assigned to node {bound:?}")),
        }
        let mut object = old.clone();
        object["spec"]["nodeName"] = json!(node);
        set_scheduled(&mut object);
        Ok(object)
    };
    update(api, place, change).await.map(drop)
}

fn set_scheduled(object: &mut Value) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": object::now(),
    });
    let status = &mut object["status"];
    if let Some(conditions) = status["conditions"].as_array_mut() {
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(condition);
    } else {
        status["conditions"] = json!([condition]);
    }
}

/// The finalizers of a Namespace's spec, from the body.
pub fn finalize(old: &Value, body: &Value) -> Value {
    let mut object = old.clone();
    object["spec"]["finalizers"] = match &body["spec"]["finalizers"] {
        Value::Array(list) => Value::Array(list.clone()),
        _ => json!([]),
    };
    for field in ["resourceVersion", "uid"] {
        object::set_meta(&mut object, field, body["metadata"][field].clone());
    }
    object
}
