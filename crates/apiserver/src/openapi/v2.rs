//! OpenAPI v2 ("swagger"): one document for everything.

use serde_json::{Map, Value, json};

use super::definitions::{self, REFERENCE};
use super::operations::{self, Operation};
use super::parameters::Parameter;
use super::{PATCH_TYPES, TITLE, VERSION};
use crate::kind::Kind;

/// The document of these kinds.
pub fn document(kinds: &[&Kind]) -> Value {
    let mut paths: Vec<(String, Value)> = kinds
        .iter()
        .flat_map(|kind| operations::of(kind))
        .map(path_item)
        .collect();
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": Map::from_iter(paths),
        "definitions": definitions::definitions(kinds),
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
        }},
        "security": [{"BearerToken": []}],
    })
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
    let body = operation.body.as_ref().map(|schema| {
        json!({"name": "body", "in": "body", "required": operation.method != "delete",
            "schema": {"$ref": format!("{REFERENCE}{schema}")}})
    });
    let parameters: Vec<Value> = body
        .into_iter()
        .chain(operation.parameters.iter().map(|given| parameter(given)))
        .collect();
    let schema = match operation.answer.as_str() {
        "" => json!({"type": "string"}),
        schema => json!({"$ref": format!("{REFERENCE}{schema}")}),
    };
    let consumes = if operation.method == "patch" {
        PATCH_TYPES
    } else {
        &["application/json", "application/yaml"]
    };
    let mut object = json!({
        "description": operation.description,
        "consumes": consumes,
        "produces": ["application/json", "application/yaml"],
        "schemes": ["https"],
        "tags": [tag],
        "operationId": operation.id,
        "responses": {
            "200": {"description": "OK", "schema": schema},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.gvk,
    });
    if matches!(operation.method, "post" | "put" | "patch") {
        object["responses"]["201"] = json!({"description": "Created", "schema": schema});
    }
    if !parameters.is_empty() {
        object["parameters"] = Value::Array(parameters);
    }
    object
}

fn parameter(parameter: &Parameter) -> Value {
    let mut object = json!({
        "description": parameter.description,
        "in": parameter.place,
        "name": parameter.name,
        "type": parameter.kind,
        "uniqueItems": true,
    });
    if parameter.place == "path" {
        object["required"] = json!(true);
    }
    object
}
