//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, entries, name};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of ConfigMap.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    schema: "io.k8s.api.core.v1.ConfigMap",
    describe: SchemaGenerator::subschema_for::<ConfigMap>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("Data", "string", "Number of keys."),
        Column::AGE,
    ],
    row,
    default: |_| {},
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let keys = entries(&object["data"]).count() + entries(&object["binaryData"]).count();
    vec![name(object), json!(keys), age(object, now)]
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
