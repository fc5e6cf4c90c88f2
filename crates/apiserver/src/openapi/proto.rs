//! OpenAPI v2 as the protobuf messages of gnostic (`openapi.v2.Document`), which kubectl asks for.
//!
//! Only the fields that our documents have are written.

use prost::Message as _;
use serde_json::{Map, Value};

use super::messages::{
    AdditionalProperties, Any, AnyParameter, BodyParameter, Document, Info, Items, NamedAny,
    NamedPathItem, NamedResponse, NamedSchema, NonBodyParameter, Operation, Parameter,
    ParametersItem, PathItem, PathParameter, Paths, Place, QueryParameter, Response, ResponseValue,
    Responses, Schema, SchemaItem, Schemas, Texts,
};

/// Encodes an OpenAPI v2 document.
pub fn encode(document: &Value) -> Vec<u8> {
    Document {
        swagger: text(&document["swagger"]),
        info: Some(Info {
            title: text(&document["info"]["title"]),
            version: text(&document["info"]["version"]),
        }),
        paths: Some(Paths {
            path: named(&document["paths"], |name, value| NamedPathItem {
                name,
                value: Some(path_item(value)),
            }),
        }),
        definitions: Some(Schemas {
            entries: named(&document["definitions"], |name, value| NamedSchema {
                name,
                value: Some(schema(value)),
            }),
        }),
    }
    .encode_to_vec()
}

fn path_item(item: &Value) -> PathItem {
    let method = |name: &str| item.get(name).map(operation);
    PathItem {
        get: method("get"),
        put: method("put"),
        post: method("post"),
        delete: method("delete"),
        patch: method("patch"),
        parameters: all(&item["parameters"], parameter),
    }
}

fn operation(operation: &Value) -> Operation {
    let response = |name: String, response: &Value| NamedResponse {
        name,
        value: Some(ResponseValue {
            response: Some(Response {
                description: text(&response["description"]),
                schema: response.get("schema").map(|value| SchemaItem {
                    schema: Some(schema(value)),
                }),
            }),
        }),
    };
    Operation {
        tags: all(&operation["tags"], text),
        description: text(&operation["description"]),
        operation_id: text(&operation["operationId"]),
        produces: all(&operation["produces"], text),
        consumes: all(&operation["consumes"], text),
        parameters: all(&operation["parameters"], parameter),
        responses: Some(Responses {
            response_code: named(&operation["responses"], response),
        }),
        schemes: all(&operation["schemes"], text),
        vendor_extension: extensions(operation),
    }
}

fn parameter(given: &Value) -> ParametersItem {
    let (place, name, kind) = (
        text(&given["in"]),
        text(&given["name"]),
        text(&given["type"]),
    );
    let description = text(&given["description"]);
    let any = match place.as_str() {
        "body" => {
            let required = given["required"] == true;
            AnyParameter::Body(BodyParameter {
                name,
                place,
                required,
                schema: Some(schema(&given["schema"])),
            })
        }
        "path" => AnyParameter::NonBody(NonBodyParameter {
            place: Some(Place::Path(PathParameter {
                required: true,
                place,
                description,
                name,
                kind,
                unique_items: true,
            })),
        }),
        _ => AnyParameter::NonBody(NonBodyParameter {
            place: Some(Place::Query(QueryParameter {
                place,
                description,
                name,
                kind,
                unique_items: true,
            })),
        }),
    };
    ParametersItem {
        parameter: Some(Parameter { any: Some(any) }),
    }
}

fn schema(value: &Value) -> Schema {
    let properties = value.get("properties").map(|properties| Schemas {
        entries: named(properties, |name, value| NamedSchema {
            name,
            value: Some(schema(value)),
        }),
    });
    Schema {
        reference: text(&value["$ref"]),
        format: text(&value["format"]),
        description: text(&value["description"]),
        required: all(&value["required"], text),
        additional_properties: value.get("additionalProperties").map(|additional| {
            Box::new(AdditionalProperties {
                schema: Some(Box::new(schema(additional))),
            })
        }),
        kind: value.get("type").map(|kind| Texts {
            value: vec![text(kind)],
        }),
        items: value.get("items").map(|items| Items {
            schema: vec![schema(items)],
        }),
        properties,
        vendor_extension: extensions(value),
    }
}

fn extensions(value: &Value) -> Vec<NamedAny> {
    let all = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("x-"));
    all.map(|(name, value)| NamedAny {
        name: name.clone(),
        value: Some(Any {
            yaml: value.to_string(),
        }),
    })
    .collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn all<T>(list: &Value, of: impl Fn(&Value) -> T) -> Vec<T> {
    list.as_array()
        .map_or_else(Vec::new, |items| items.iter().map(of).collect())
}

fn named<T>(entries: &Value, of: impl Fn(String, &Value) -> T) -> Vec<T> {
    let empty = Map::new();
    entries
        .as_object()
        .unwrap_or(&empty)
        .iter()
        .map(|(name, value)| of(name.clone(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kinds;
    use crate::openapi::v2;

    #[test]
    fn what_is_encoded_can_be_read() {
        let document = Document::decode(&*encode(&v2::document(kinds()))).unwrap();
        let definitions = document.definitions.unwrap().entries;
        let pod = definitions
            .iter()
            .find(|entry| entry.name == "io.k8s.api.core.v1.PodSpec")
            .unwrap();
        let properties = &pod
            .value
            .as_ref()
            .unwrap()
            .properties
            .as_ref()
            .unwrap()
            .entries;
        let containers = properties
            .iter()
            .find(|entry| entry.name == "containers")
            .unwrap()
            .value
            .as_ref()
            .unwrap();
        assert_eq!(containers.kind.as_ref().unwrap().value, ["array"]);
        assert_eq!(
            containers.items.as_ref().unwrap().schema[0].reference,
            "#/definitions/io.k8s.api.core.v1.Container"
        );
        let key = containers
            .vendor_extension
            .iter()
            .find(|any| any.name == "x-kubernetes-patch-merge-key")
            .unwrap();
        assert_eq!(key.value.as_ref().unwrap().yaml, "\"name\"");
        let paths = document.paths.unwrap().path;
        let path = paths
            .iter()
            .find(|path| path.name == "/api/v1/namespaces/{namespace}/services/{name}")
            .unwrap();
        let patch = path.value.as_ref().unwrap().patch.as_ref().unwrap();
        assert_eq!(patch.operation_id, "patchCoreV1NamespacedService");
        assert_eq!(patch.parameters.len(), 5);
    }
}
