//! Labels and label selectors.

use serde_json::Value;

use super::{all, name};
use crate::kind::FieldError;
use crate::kinds::read::{entries, items, text};

/// Checks keys and values of labels.
pub fn labels(field: &str, labels: &Value, errors: &mut Vec<FieldError>) {
    for (key, value) in entries(labels) {
        all(field, key, name::qualified(key), errors);
        all(field, text(value), name::label_value(text(value)), errors);
    }
}

/// Checks a label selector with `matchLabels` and `matchExpressions`.
pub fn selector(field: &str, selector: &Value, errors: &mut Vec<FieldError>) {
    labels(
        &format!("{field}.matchLabels"),
        &selector["matchLabels"],
        errors,
    );
    for (index, expression) in items(&selector["matchExpressions"]).iter().enumerate() {
        requirement(
            &format!("{field}.matchExpressions[{index}]"),
            expression,
            errors,
        );
    }
}

fn requirement(field: &str, expression: &Value, errors: &mut Vec<FieldError>) {
    let values = items(&expression["values"]);
    match text(&expression["operator"]) {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            format!("{field}.values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            format!("{field}.values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    let key = text(&expression["key"]);
    all(&format!("{field}.key"), key, name::qualified(key), errors);
    for (index, value) in items(&expression["values"]).iter().enumerate() {
        all(
            &format!("{field}.values[{index}]"),
            text(value),
            name::label_value(text(value)),
            errors,
        );
    }
}

/// Whether a selector says nothing, and so selects everything.
pub fn selects_everything(selector: &Value) -> bool {
    entries(&selector["matchLabels"]).next().is_none()
        && items(&selector["matchExpressions"]).is_empty()
}

/// Whether labels have what a selector asks for.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    entries(&selector["matchLabels"]).all(|(key, value)| &labels[key] == value)
        && items(&selector["matchExpressions"])
            .iter()
            .all(|expression| {
                let value = &labels[text(&expression["key"])];
                let named = items(&expression["values"]).contains(value);
                match text(&expression["operator"]) {
                    "In" => named,
                    "NotIn" => !named,
                    "Exists" => !value.is_null(),
                    _ => value.is_null(),
                }
            })
}
