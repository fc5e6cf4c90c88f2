//! Validation that several kinds share. Texts are those of the real API server, since people search for them.

pub mod address;
pub mod label;
pub mod meta;
pub mod name;
pub mod port;
pub mod quantity;

use serde_json::Value;

use super::read::text;
use crate::kind::FieldError;

/// A whole number must not be negative; absent is fine.
pub fn not_negative(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if value.as_i64().is_some_and(|number| number < 0) {
        errors.push(FieldError::invalid(
            field,
            value.clone(),
            "must be greater than or equal to 0",
        ));
    }
}

/// A string must be one of these; empty is an error too.
pub fn one_of(field: &str, value: &Value, supported: &[&str], errors: &mut Vec<FieldError>) {
    match text(value) {
        "" => errors.push(FieldError::required(field, "")),
        given if supported.contains(&given) => {}
        given => errors.push(FieldError::not_supported(field, given, supported)),
    }
}

/// A field keeps the value that it has.
pub fn immutable(field: &str, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if new != old {
        errors.push(FieldError::invalid(
            field,
            new.clone(),
            "field is immutable",
        ));
    }
}

/// One error for each message about a value.
pub fn all(field: &str, value: &str, messages: Vec<String>, errors: &mut Vec<FieldError>) {
    errors.extend(
        messages
            .into_iter()
            .map(|message| FieldError::invalid(field, value, message)),
    );
}

#[cfg(test)]
pub mod tests {
    //! What tests of validation share.

    use serde_json::Value;

    use crate::kind::Kind;

    /// The errors of a new object, after defaults, as text.
    pub fn created(kind: &Kind, mut object: Value) -> Vec<String> {
        object["metadata"]["namespace"] = "default".into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = "x".into();
        }
        if kind.scope == crate::kind::Scope::Cluster {
            object["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("namespace");
        }
        (kind.default)(&mut object);
        (kind.prepare)(&mut object, None);
        (kind.validate)(&object, None)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    /// The errors of a change, after defaults, as text.
    pub fn changed(kind: &Kind, mut old: Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
        old["metadata"] = match kind.scope {
            crate::kind::Scope::Cluster => serde_json::json!({"name": "x"}),
            crate::kind::Scope::Namespaced => {
                serde_json::json!({"name": "x", "namespace": "default"})
            }
        };
        (kind.default)(&mut old);
        (kind.prepare)(&mut old, None);
        let mut new = old.clone();
        change(&mut new);
        (kind.default)(&mut new);
        (kind.prepare)(&mut new, Some(&old));
        (kind.validate)(&new, Some(&old))
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}
