//! Reading and writing the metadata of an object that is held as JSON.

use jiff::{Timestamp, Unit};
use serde_json::{Map, Value, json};

/// A string field of `metadata`; empty when absent.
pub fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    meta(object, "name")
}

/// `metadata.namespace`; empty for objects of the cluster.
pub fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

/// Whether deletion has begun.
pub fn deleting(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    strings(&object["metadata"]["finalizers"])
}

/// The strings in a JSON list.
pub fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// `metadata`, made when it is not there; the object must be a JSON object (every decoded one is).
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]
        .as_object_mut()
        .expect("invariant: metadata was just made an object")
}

/// Sets a field of `metadata`, or removes it when the value is null.
pub fn set_meta(object: &mut Value, field: &str, value: Value) {
    if value.is_null() {
        meta_mut(object).shift_remove(field);
    } else {
        meta_mut(object).insert(field.to_owned(), value);
    }
}

/// Now, in the form of `creationTimestamp`.
pub fn now() -> String {
    timestamp(Timestamp::now())
}

/// A time to the second, as Kubernetes writes it.
pub fn timestamp(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}

/// A dotted path of an object as a string, e.g. `spec.nodeName`; absent is empty, as field selectors see it.
pub fn field(object: &Value, path: &str) -> String {
    let found = path
        .split('.')
        .try_fold(object, |value, part| value.get(part));
    match found {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The five random characters that `generateName` gets.
pub fn random_suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]))
        .collect()
}
