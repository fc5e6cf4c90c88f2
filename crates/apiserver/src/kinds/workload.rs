//! What Deployments and ReplicaSets share: the columns of their pod template and their selector.

use serde_json::{Value, json};

use super::check::{self, label};
use super::pod;
use super::read::{entries, items, text};
use crate::kind::{Column, FieldError};

/// The wide columns that every workload ends with.
pub const CONTAINERS: Column = Column::wide(
    "Containers",
    "string",
    "Names of each container in the template.",
);
/// See [`CONTAINERS`].
pub const IMAGES: Column = Column::wide(
    "Images",
    "string",
    "Images of each container in the template.",
);
/// See [`CONTAINERS`].
pub const SELECTOR: Column = Column::wide("Selector", "string", "Which pods belong to it.");

/// The cells of those columns.
pub fn wide_cells(object: &Value) -> [Value; 3] {
    let containers = items(&object["spec"]["template"]["spec"]["containers"]);
    let join = |key: &str| {
        containers
            .iter()
            .map(|container| text(&container[key]))
            .collect::<Vec<_>>()
            .join(",")
    };
    [
        json!(join("name")),
        json!(join("image")),
        json!(selector(&object["spec"]["selector"])),
    ]
}

/// A label selector in the words of `kubectl get -l`, sorted, or `<none>`.
pub fn selector(selector: &Value) -> String {
    let mut terms: Vec<String> = entries(&selector["matchLabels"])
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    for expression in items(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let mut values: Vec<&str> = items(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push(match text(&expression["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        });
    }
    terms.sort();
    if terms.is_empty() {
        "<none>".to_owned()
    } else {
        terms.join(",")
    }
}

/// Checks what Deployments and ReplicaSets have in common: replicas, selector and template.
pub fn validate(object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    let spec = &object["spec"];
    for field in ["replicas", "minReadySeconds"] {
        check::not_negative(&format!("spec.{field}"), &spec[field], errors);
    }
    let (selector, labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        label::selector("spec.selector", selector, errors);
        if label::selects_everything(selector) {
            let detail = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid(
                "spec.selector",
                selector.clone(),
                detail,
            ));
        } else if !label::matches(selector, labels) {
            let detail = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(
                "spec.template.metadata.labels",
                labels.clone(),
                detail,
            ));
        }
    }
    pod::validate_template("spec.template", &spec["template"], errors);
    if let Some(old) = old {
        check::immutable("spec.selector", selector, &old["spec"]["selector"], errors);
    }
}
