//! Metadata: names, labels, annotations, finalizers, owners.

use serde_json::Value;

use super::{all, label, name};
use crate::kind::{FieldError, Kind, Scope};
use crate::kinds::read::{entries, items, text};

/// Bytes of all annotations of an object.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Finalizers without a prefix that are understood.
const FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];

/// Checks the metadata of an object whose names have the form that `form` checks.
pub fn validate(kind: &Kind, object: &Value, form: fn(&str) -> Vec<String>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = &object["metadata"];
    names(kind, metadata, form, &mut errors);
    label::labels("metadata.labels", &metadata["labels"], &mut errors);
    annotations(&metadata["annotations"], &mut errors);
    for (index, owner) in items(&metadata["ownerReferences"]).iter().enumerate() {
        owner_reference(index, owner, &mut errors);
    }
    one_controller(&metadata["ownerReferences"], &mut errors);
    for finalizer in items(&metadata["finalizers"]) {
        finalizer_name("metadata.finalizers", text(finalizer), &mut errors);
    }
    errors
}

fn names(
    kind: &Kind,
    metadata: &Value,
    form: fn(&str) -> Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let generate = text(&metadata["generateName"]);
    if !generate.is_empty() {
        // A trailing dash is fine: more follows.
        let prefix = generate
            .strip_suffix('-')
            .map_or_else(|| generate.to_owned(), |rest| format!("{rest}a"));
        all("metadata.generateName", generate, form(&prefix), errors);
    }
    match text(&metadata["name"]) {
        "" => errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        )),
        given => all("metadata.name", given, form(given), errors),
    }
    match (kind.scope, text(&metadata["namespace"])) {
        (Scope::Namespaced, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (Scope::Namespaced, given) => all("metadata.namespace", given, name::label(given), errors),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => errors.push(FieldError::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        )),
    }
}

/// Checks annotations; only their keys have a form.
pub fn annotations(annotations: &Value, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in entries(annotations) {
        all(
            "metadata.annotations",
            key,
            name::qualified(&key.to_lowercase()),
            errors,
        );
        bytes += key.len() + text(value).len();
    }
    if bytes > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(
            "metadata.annotations",
            ANNOTATIONS_MAX,
        ));
    }
}

fn owner_reference(index: usize, owner: &Value, errors: &mut Vec<FieldError>) {
    let field = format!("metadata.ownerReferences[{index}]");
    for (key, detail) in [
        ("apiVersion", "version must not be empty"),
        ("kind", "must not be empty"),
        ("name", "must not be empty"),
        ("uid", "must not be empty"),
    ] {
        if text(&owner[key]).is_empty() {
            errors.push(FieldError::invalid(
                format!("{field}.{key}"),
                text(&owner[key]),
                detail,
            ));
        }
    }
}

fn one_controller(owners: &Value, errors: &mut Vec<FieldError>) {
    let controllers: Vec<&Value> = items(owners)
        .iter()
        .filter(|owner| owner["controller"] == true)
        .collect();
    if let [first, second, ..] = controllers[..] {
        let detail = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
            text(&first["kind"]),
            text(&first["name"]),
            text(&second["kind"]),
            text(&second["name"])
        );
        errors.push(FieldError::invalid(
            "metadata.ownerReferences",
            owners.clone(),
            detail,
        ));
    }
}

/// Checks a finalizer: `example.com/name`, or one of those that need no prefix.
pub fn finalizer_name(field: &str, finalizer: &str, errors: &mut Vec<FieldError>) {
    all(field, finalizer, name::qualified(finalizer), errors);
    if !finalizer.contains('/') && !FINALIZERS.contains(&finalizer) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(field, finalizer, detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::kinds::check::tests::created;

    fn errors(metadata: Value) -> Vec<String> {
        let kind = crate::kinds::kinds()
            .iter()
            .find(|kind| kind.kind == "ConfigMap")
            .unwrap();
        created(kind, json!({"metadata": metadata}))
    }

    #[test]
    fn good_metadata_passes() {
        let metadata = json!({"name": "a.b", "labels": {"app.kubernetes.io/name": "x", "empty": ""},
            "annotations": {"Example.com/Any": "any text"}, "finalizers": ["example.com/f", "foregroundDeletion"],
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]});
        assert_eq!(errors(metadata), [""; 0]);
    }

    #[test]
    fn bad_metadata_is_told_in_known_words() {
        let long = "x".repeat(256 * 1024);
        let cases = [
            (
                json!({"name": "A"}),
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must",
            ),
            (
                json!({"labels": {"a b": "c"}}),
                "metadata.labels: Invalid value: \"a b\": name part must consist of",
            ),
            (
                json!({"labels": {"a": "b c"}}),
                "metadata.labels: Invalid value: \"b c\": a valid label must be an",
            ),
            (
                json!({"annotations": {"a/": "c"}}),
                "metadata.annotations: Invalid value: \"a/\": name part must be",
            ),
            (
                json!({"annotations": {"a": long}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            (
                json!({"finalizers": ["mine"]}),
                "metadata.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it",
            ),
            (
                json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                "metadata.ownerReferences[0].uid: Invalid value: \"\": must not be empty",
            ),
        ];
        for (metadata, expected) in cases {
            let all = errors(metadata);
            assert!(
                all.iter().any(|error| error.starts_with(expected)),
                "{expected}: {all:?}"
            );
        }
    }
}
