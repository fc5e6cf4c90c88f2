//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta, name};
use super::read::{self, age, entries, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// Bytes of all values of a ConfigMap or a Secret.
pub const BYTES_MAX: usize = 1024 * 1024;

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
    vec![read::name(object), json!(keys), age(object, now)]
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, name::subdomain);
    let mut bytes = 0;
    for part in ["data", "binaryData"] {
        for (key, value) in entries(&object[part]) {
            let field = format!("{part}[{key}]");
            check::all(&field, key, name::key(key), &mut errors);
            if part == "binaryData" && object["data"].get(key).is_some() {
                errors.push(FieldError::invalid(
                    &field,
                    key.as_str(),
                    "duplicate of key present in data",
                ));
            }
            bytes += if part == "data" {
                text(value).len()
            } else {
                decoded_len(text(value))
            };
        }
    }
    if bytes > BYTES_MAX {
        errors.push(FieldError::too_long("[]", BYTES_MAX));
    }
    if let Some(old) = old {
        keep_immutable(object, old, &["data", "binaryData"], &mut errors);
    }
    errors
}

/// What says that it is immutable stays so, with all that it holds.
pub fn keep_immutable(object: &Value, old: &Value, parts: &[&str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != true {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if object["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for part in parts {
        if object[*part] != old[*part] {
            errors.push(FieldError::forbidden(*part, detail));
        }
    }
}

/// Bytes that a base64 text stands for.
pub fn decoded_len(text: &str) -> usize {
    text.len() / 4 * 3
        - text
            .bytes()
            .rev()
            .take_while(|byte| *byte == b'=')
            .count()
            .min(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    #[test]
    fn keys_and_size() {
        assert!(
            created(
                &KIND,
                json!({"data": {"a.b": "x"}, "binaryData": {"c": "AAAA"}})
            )
            .is_empty()
        );
        let both = json!({"data": {"a": "x"}, "binaryData": {"a": "AAAA"}});
        assert_eq!(
            created(&KIND, both),
            ["binaryData[a]: Invalid value: \"a\": duplicate of key present in data"]
        );
        assert!(
            created(&KIND, json!({"data": {"a b": "x"}}))[0]
                .starts_with("data[a b]: Invalid value: \"a b\"")
        );
        let big = json!({"data": {"a": "x".repeat(BYTES_MAX + 1)}});
        assert_eq!(
            created(&KIND, big),
            ["[]: Too long: may not be more than 1048576 bytes"]
        );
    }

    #[test]
    fn immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "x"}});
        let errors = changed(&KIND, old, |new| {
            new["data"]["a"] = json!("y");
            new["immutable"] = json!(false);
        });
        assert_eq!(
            errors,
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
    }
}
