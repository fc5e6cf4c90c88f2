//! OpenAPI v3: one document for each group and version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions;
use super::operations::{self, Operation};
use super::parameters::Parameter;
use super::{PATCH_TYPES, TITLE, VERSION};
use crate::kind::Kind;

/// What a reference starts with in v3.
const COMPONENT: &str = "#/components/schemas/";

/// The document of these kinds, which are of one group and version.
pub fn document(kinds: &[&Kind]) -> Value {
    let definitions = definitions::definitions(kinds);
    let items: Vec<operations::PathItem> =
        kinds.iter().flat_map(|kind| operations::of(kind)).collect();
    let mut needed = BTreeSet::new();
    for operation in items.iter().flat_map(|item| &item.operations) {
        for schema in operation.body.iter().chain([&operation.answer]) {
            need(schema, &definitions, &mut needed);
        }
    }
    let schemas: Map<String, Value> = definitions
        .into_iter()
        .filter(|(name, _)| needed.contains(name))
        .map(|(name, schema)| (name.clone(), component(&name, schema)))
        .collect();
    let mut paths: Vec<(String, Value)> = items.into_iter().map(path_item).collect();
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": Map::from_iter(paths),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
            }},
        },
    })
}

/// Collects a schema and all that it refers to.
fn need(name: &str, definitions: &Map<String, Value>, needed: &mut BTreeSet<String>) {
    let Some(schema) = definitions.get(name) else {
        return;
    };
    if needed.insert(name.to_owned()) {
        references(schema, &mut |name| need(name, definitions, needed));
    }
}

fn references(value: &Value, found: &mut dyn FnMut(&str)) {
    if let Some(name) = definitions::reference(value) {
        found(name);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(entries) => entries.values().for_each(|entry| references(entry, found)),
        _ => {}
    }
}

/// A schema in the form of v3.
fn component(name: &str, mut schema: Value) -> Value {
    let either = match name.rsplit('.').next() {
        Some("IntOrString") => Some("integer"),
        Some("Quantity") => Some("number"),
        _ => None,
    };
    if let (Some(kind), Some(entries)) = (either, schema.as_object_mut()) {
        entries.shift_remove("type");
        entries.insert(
            "oneOf".to_owned(),
            json!([{"type": "string"}, {"type": kind}]),
        );
    }
    refer(&mut schema);
    schema
}

/// References point to components; beside a description they stand in `allOf`, since they stand alone in v3.
fn refer(value: &mut Value) {
    if let Some(name) = definitions::reference(value).map(str::to_owned)
        && let Some(entries) = value.as_object_mut()
    {
        let reference = json!(format!("{COMPONENT}{name}"));
        if entries.len() == 1 {
            entries.insert("$ref".to_owned(), reference);
        } else {
            entries.shift_remove("$ref");
            entries.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            entries.insert("default".to_owned(), json!({}));
        }
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(refer),
        Value::Object(entries) => entries.values_mut().for_each(refer),
        _ => {}
    }
}

fn path_item(item: operations::PathItem) -> (String, Value) {
    let mut entries = Map::new();
    for operation in &item.operations {
        entries.insert(
            operation.method.to_owned(),
            operation_object(operation, &item.tag),
        );
    }
    if !item.parameters.is_empty() {
        entries.insert(
            "parameters".to_owned(),
            item.parameters.iter().map(parameter).collect(),
        );
    }
    (item.path, Value::Object(entries))
}

fn operation_object(operation: &Operation, tag: &str) -> Value {
    let content = match operation.answer.as_str() {
        "" => json!({"text/plain": {"schema": {"type": "string"}}}),
        schema => json!({"application/json": {"schema": {"$ref": format!("{COMPONENT}{schema}")}}}),
    };
    let mut object = json!({
        "tags": [tag],
        "description": operation.description,
        "operationId": operation.id,
        "responses": {
            "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.gvk,
    });
    if matches!(operation.method, "post" | "put" | "patch") {
        object["responses"]["201"] = json!({"description": "Created", "content": content});
    }
    if !operation.parameters.is_empty() {
        object["parameters"] = operation
            .parameters
            .iter()
            .map(|given| parameter(given))
            .collect();
    }
    if let Some(schema) = &operation.body {
        let types: &[&str] = if operation.method == "patch" {
            PATCH_TYPES
        } else {
            &["application/json"]
        };
        let schema = json!({"schema": {"$ref": format!("{COMPONENT}{schema}")}});
        let content: Map<String, Value> = types
            .iter()
            .map(|name| ((*name).to_owned(), schema.clone()))
            .collect();
        object["requestBody"] = json!({"content": content});
        if operation.method != "delete" {
            object["requestBody"]["required"] = json!(true);
        }
    }
    object
}

fn parameter(parameter: &Parameter) -> Value {
    let mut object = json!({
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": {"type": parameter.kind, "uniqueItems": true},
    });
    if parameter.place == "path" {
        object["required"] = json!(true);
    }
    object
}
