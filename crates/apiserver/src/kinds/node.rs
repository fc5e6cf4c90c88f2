//! Node.

use k8s_openapi::api::core::v1::Node;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, entries, items, name, text, text_or};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of Node.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Node",
    describe: SchemaGenerator::subschema_for::<Node>,
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::new("Status", "string", "Whether the node is ready."),
        Column::new("Roles", "string", "What the node is for."),
        Column::AGE,
        Column::new("Version", "string", "Version of the node's agent."),
        Column::wide("Internal-IP", "string", "Address inside the cluster."),
        Column::wide("External-IP", "string", "Address outside the cluster."),
        Column::wide("OS-Image", "string", "Operating system."),
        Column::wide("Kernel-Version", "string", "Kernel."),
        Column::wide("Container-Runtime", "string", "What runs the containers."),
    ],
    row,
    default: |_| {},
    prepare,
    prepare_status: spec_status::prepare_status,
    validate,
    selectable: &["spec.unschedulable"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let info = &object["status"]["nodeInfo"];
    let known = |key: &str| json!(text_or(&info[key], "<unknown>"));
    vec![
        name(object),
        json!(status(object)),
        json!(roles(object)),
        age(object, now),
        json!(text(&info["kubeletVersion"])),
        json!(address(object, "InternalIP")),
        json!(address(object, "ExternalIP")),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}

/// A node may be made with its status; later only `/status` changes it.
fn prepare(object: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        spec_status::keep(object, old, "status");
    }
}

fn status(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let ready = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if object["spec"]["unschedulable"] == true {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = entries(&object["metadata"]["labels"])
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None => (key == "kubernetes.io/role").then(|| text(value)),
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    items(&object["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == kind)
        .map_or("<none>", |address| text(&address["address"]))
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
