//! What a write may change: `spec` and `status` have different writers, and `metadata.generation` counts specs.

use serde_json::{Value, json};

/// Before validation of a write to an object that has `spec` and `status`: the status is not this writer's,
/// and `metadata.generation` counts the changes of the spec.
pub fn prepare(object: &mut Value, old: Option<&Value>) {
    keep(object, old, "status");
    count_generation(object, old, &["spec"]);
}

/// A write to `/status`: only `status` comes from the writer, and metadata that may go with it.
pub fn prepare_status(object: &mut Value, old: &Value) {
    let status = object.get("status").cloned();
    let metadata = object["metadata"].clone();
    *object = old.clone();
    for key in [
        "labels",
        "annotations",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "resourceVersion",
    ] {
        match metadata.get(key) {
            Some(value) => object["metadata"][key] = value.clone(),
            None => remove(&mut object["metadata"], key),
        }
    }
    match status {
        Some(status) => object["status"] = status,
        None => remove(object, "status"),
    }
}

/// A kind without `spec` and `status`: the writer may change all of it.
pub fn nothing(_object: &mut Value, _old: Option<&Value>) {}

/// A kind without a status that could be written.
pub fn no_status(object: &mut Value, old: &Value) {
    *object = old.clone();
}

/// Takes a key from the old object, or removes it where there is no old one.
pub fn keep(object: &mut Value, old: Option<&Value>, key: &str) {
    match old.and_then(|old| old.get(key)) {
        Some(value) => object[key] = value.clone(),
        None => remove(object, key),
    }
}

/// Sets `metadata.generation`: 1 at first, and one more whenever one of these keys changes.
pub fn count_generation(object: &mut Value, old: Option<&Value>, keys: &[&str]) {
    let generation = old.map_or(1, |old| {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(1);
        let changed = keys.iter().any(|key| object.get(*key) != old.get(*key));
        generation + i64::from(changed)
    });
    object["metadata"]["generation"] = json!(generation);
}

fn remove(object: &mut Value, key: &str) {
    if let Some(map) = object.as_object_mut() {
        map.shift_remove(key);
    }
}
