//! Namespace.

use k8s_openapi::api::core::v1::Namespace;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, child, name, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of Namespace.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Namespace",
    describe: SchemaGenerator::subschema_for::<Namespace>,
    scope: Scope::Cluster,
    subresources: &[Subresource::Status, Subresource::Finalize],
    columns: &[
        Column::NAME,
        Column::new("Status", "string", "Active or Terminating."),
        Column::AGE,
    ],
    row,
    default,
    prepare,
    prepare_status: spec_status::prepare_status,
    validate,
    selectable: &["status.phase"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["status"]["phase"])),
        age(object, now),
    ]
}

/// A namespace carries its own name as a label, so that selectors can name it.
fn default(object: &mut Value) {
    let own = text(&object["metadata"]["name"]).to_owned();
    if own.is_empty() {
        return;
    }
    if let Some(labels) = object
        .get_mut("metadata")
        .and_then(|metadata| child(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), own.into());
    }
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            object["status"] = json!({"phase": "Active"});
            object["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        Some(_) => {
            spec_status::keep(object, old, "status");
            spec_status::keep(object, old, "spec");
        }
    }
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
