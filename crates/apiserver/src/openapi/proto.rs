//! OpenAPI v2 as the protobuf messages of gnostic (`openapi.v2.Document`), which kubectl asks for.
//!
//! Only the fields that our documents have are here; the numbers are those of gnostic's OpenAPIv2.proto.

use prost::{Message, Oneof};
use serde_json::{Map, Value};

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

#[derive(Clone, PartialEq, Message)]
struct Document {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
    #[prost(message, optional, tag = "9")]
    definitions: Option<Schemas>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "2")]
    get: Option<Operation>,
    #[prost(message, optional, tag = "3")]
    put: Option<Operation>,
    #[prost(message, optional, tag = "4")]
    post: Option<Operation>,
    #[prost(message, optional, tag = "5")]
    delete: Option<Operation>,
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
    #[prost(message, repeated, tag = "9")]
    parameters: Vec<ParametersItem>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, repeated, tag = "1")]
    tags: Vec<String>,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "5")]
    operation_id: String,
    #[prost(string, repeated, tag = "6")]
    produces: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    consumes: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, optional, tag = "9")]
    responses: Option<Responses>,
    #[prost(string, repeated, tag = "10")]
    schemes: Vec<String>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(oneof = "AnyParameter", tags = "1, 2")]
    any: Option<AnyParameter>,
}

#[derive(Clone, PartialEq, Oneof)]
enum AnyParameter {
    #[prost(message, tag = "1")]
    Body(BodyParameter),
    #[prost(message, tag = "2")]
    NonBody(NonBodyParameter),
}

#[derive(Clone, PartialEq, Message)]
struct BodyParameter {
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    place: String,
    #[prost(bool, tag = "4")]
    required: bool,
    #[prost(message, optional, tag = "5")]
    schema: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(oneof = "Place", tags = "3, 4")]
    place: Option<Place>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Place {
    #[prost(message, tag = "3")]
    Query(QueryParameter),
    #[prost(message, tag = "4")]
    Path(PathParameter),
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
    #[prost(bool, tag = "20")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PathParameter {
    #[prost(bool, tag = "1")]
    required: bool,
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "3")]
    description: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "5")]
    kind: String,
    #[prost(bool, tag = "19")]
    unique_items: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Responses {
    #[prost(message, repeated, tag = "1")]
    response_code: Vec<NamedResponse>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedResponse {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<ResponseValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ResponseValue {
    #[prost(message, optional, tag = "1")]
    response: Option<Response>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    description: String,
    #[prost(message, optional, tag = "2")]
    schema: Option<SchemaItem>,
}

#[derive(Clone, PartialEq, Message)]
struct SchemaItem {
    #[prost(message, optional, tag = "1")]
    schema: Option<Schema>,
}

/// A map from names to schemas: definitions, or properties.
#[derive(Clone, PartialEq, Message)]
struct Schemas {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<NamedSchema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedSchema {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct Schema {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    format: String,
    #[prost(string, tag = "4")]
    description: String,
    #[prost(string, repeated, tag = "19")]
    required: Vec<String>,
    #[prost(message, optional, boxed, tag = "21")]
    additional_properties: Option<Box<AdditionalProperties>>,
    #[prost(message, optional, tag = "22")]
    kind: Option<Texts>,
    #[prost(message, optional, tag = "23")]
    items: Option<Items>,
    #[prost(message, optional, tag = "25")]
    properties: Option<Schemas>,
    #[prost(message, repeated, tag = "31")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct AdditionalProperties {
    #[prost(message, optional, boxed, tag = "1")]
    schema: Option<Box<Schema>>,
}

#[derive(Clone, PartialEq, Message)]
struct Texts {
    #[prost(string, repeated, tag = "1")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Items {
    #[prost(message, repeated, tag = "1")]
    schema: Vec<Schema>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

/// A value as YAML, which JSON is.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
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
