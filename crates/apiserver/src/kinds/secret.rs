//! Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, child, entries, name, set_default, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of Secret.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    schema: "io.k8s.api.core.v1.Secret",
    describe: SchemaGenerator::subschema_for::<Secret>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("Type", "string", "What the secret is for."),
        Column::new("Data", "string", "Number of keys."),
        Column::AGE,
    ],
    row,
    default,
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &["type"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["type"])),
        json!(entries(&object["data"]).count()),
        age(object, now),
    ]
}

/// The type is Opaque, and what `stringData` says in clear becomes `data`; it is never stored itself.
fn default(object: &mut Value) {
    set_default(object, "type", "Opaque");
    let Some(Value::Object(clear)) = object
        .as_object_mut()
        .and_then(|map| map.shift_remove("stringData"))
    else {
        return;
    };
    let Some(data) = child(object, "data") else {
        return;
    };
    for (key, value) in clear {
        data.insert(key, STANDARD.encode(text(&value)).into());
    }
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
