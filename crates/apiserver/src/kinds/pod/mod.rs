//! Pod.

mod container;
mod default;
mod qos;
mod row;
#[cfg(test)]
mod tests;
mod validate;

use k8s_openapi::api::core::v1::Pod;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::spec_status;
use crate::kind::{Column, Kind, Scope, Subresource};

pub use default::default_template;
pub use validate::validate_template;

/// The entry of Pod.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.Pod",
    describe: SchemaGenerator::subschema_for::<Pod>,
    scope: Scope::Namespaced,
    subresources: &[
        Subresource::Status,
        Subresource::Log,
        Subresource::Binding,
        Subresource::Eviction,
    ],
    columns: &[
        Column::NAME,
        Column::new("Ready", "string", "How many of the containers are ready."),
        Column::new("Status", "string", "What the pod is doing."),
        Column::new(
            "Restarts",
            "string",
            "How often containers of the pod were restarted.",
        ),
        Column::AGE,
        Column::wide("IP", "string", "Address of the pod."),
        Column::wide("Node", "string", "Where the pod runs."),
        Column::wide(
            "Nominated Node",
            "string",
            "Where the pod would run after preemption.",
        ),
        Column::wide(
            "Readiness Gates",
            "string",
            "How many of the readiness gates are open.",
        ),
    ],
    row: row::row,
    default: default::default,
    prepare,
    prepare_status,
    validate: validate::validate,
    selectable: &[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ],
};

/// A new pod is Pending; its class of service follows from its resources and never changes.
fn prepare(object: &mut Value, old: Option<&Value>) {
    spec_status::prepare(object, old);
    if old.is_none() {
        object["status"] = json!({"phase": "Pending", "qosClass": qos::class(object)});
    }
}

fn prepare_status(object: &mut Value, old: &Value) {
    spec_status::prepare_status(object, old);
    let qos = &old["status"]["qosClass"];
    if !qos.is_null() && object["status"].is_object() {
        object["status"]["qosClass"] = qos.clone();
    }
}
