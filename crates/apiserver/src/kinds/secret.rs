//! Secret.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta, name};
use super::config_map::{BYTES_MAX, decoded_len, keep_immutable};
use super::read::{self, age, child, entries, set_default, text};
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
        read::name(object),
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

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, name::subdomain);
    let mut bytes = 0;
    for (key, value) in entries(&object["data"]) {
        check::all(&format!("data[{key}]"), key, name::key(key), &mut errors);
        bytes += decoded_len(text(value));
    }
    if bytes > BYTES_MAX {
        errors.push(FieldError::too_long("data", BYTES_MAX));
    }
    for key in required_keys(text(&object["type"])) {
        if object["data"].get(*key).is_none() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    if let Some(old) = old {
        check::immutable("type", &object["type"], &old["type"], &mut errors);
        keep_immutable(object, old, &["data"], &mut errors);
    }
    errors
}

/// What a secret of a type must hold.
fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    #[test]
    fn clear_text_becomes_data() {
        let mut secret = json!({"data": {"a": "eA=="}, "stringData": {"b": "y", "a": "z"}});
        default(&mut secret);
        assert_eq!(
            secret,
            json!({"data": {"a": "eg==", "b": "eQ=="}, "type": "Opaque"})
        );
    }

    #[test]
    fn types_ask_for_keys_and_stay() {
        let errors = created(
            &KIND,
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}}),
        );
        assert_eq!(errors, ["data[tls.key]: Required value"]);
        let errors = changed(&KIND, json!({}), |new| new["type"] = json!("other"));
        assert_eq!(
            errors,
            ["type: Invalid value: \"other\": field is immutable"]
        );
    }
}
