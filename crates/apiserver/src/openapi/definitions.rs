//! Schemas of the served types under their upstream names, out of k8s-openapi.
//!
//! They come as JSON Schema; here they get the lists of each kind and the `x-kubernetes-` extensions. References look
//! like `#/definitions/NAME`, with the description of the field beside them; the documents bring them in their own form.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::lists::{self, ListType};
use super::operations::PATCH;
use crate::kind::Kind;

/// What a reference starts with.
pub const REFERENCE: &str = "#/definitions/";

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Every schema that these kinds need, by name, sorted.
pub fn definitions(kinds: &[&Kind]) -> Map<String, Value> {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/definitions".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    for kind in kinds {
        (kind.describe)(&mut generator);
    }
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::Status>();
    generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions>();
    generator.subschema_for::<k8s_openapi::api::autoscaling::v1::Scale>();
    generator.subschema_for::<k8s_openapi::api::core::v1::Binding>();
    generator.subschema_for::<k8s_openapi::api::policy::v1::Eviction>();
    // No transforms: those of this draft would wrap references that have a description beside them.
    let mut definitions = generator.take_definitions(false);
    for (name, schema) in &mut definitions {
        extend(name, schema);
    }
    for kind in kinds {
        definitions.insert(list_name(kind), list(kind));
        if let Some(schema) = definitions.get_mut(kind.schema) {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind, kind.kind)]);
        }
    }
    for (schema, group, version, kind) in OTHERS {
        if let Some(schema) = definitions.get_mut(*schema) {
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group, "kind": kind, "version": version}]);
        }
    }
    definitions.insert(
        PATCH.to_owned(),
        json!({"description": "The body of a patch.", "type": "object"}),
    );
    definitions.sort_keys();
    definitions
}

/// Types that are served without being kinds of the table: schema, group, version, kind.
const OTHERS: &[(&str, &str, &str, &str)] = &[
    (
        "io.k8s.api.autoscaling.v1.Scale",
        "autoscaling",
        "v1",
        "Scale",
    ),
    ("io.k8s.api.core.v1.Binding", "", "v1", "Binding"),
    ("io.k8s.api.policy.v1.Eviction", "policy", "v1", "Eviction"),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
        "",
        "v1",
        "Status",
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
        "",
        "v1",
        "DeleteOptions",
    ),
];

/// Name of the schema of a kind's list.
pub fn list_name(kind: &Kind) -> String {
    format!("{}List", kind.schema)
}

/// `x-kubernetes-group-version-kind` of one kind.
pub fn gvk(kind: &Kind, name: &str) -> Value {
    json!({"group": kind.group, "kind": name, "version": kind.version})
}

/// The schema that a reference names.
pub fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REFERENCE)
}

fn list(kind: &Kind) -> Value {
    let name = format!("{}List", kind.kind);
    json!({
        "description": format!("{name} is a list of {} objects.", kind.kind),
        "type": "object",
        "properties": {
            "apiVersion": {"description": "The versioned schema of this representation of an object.", "type": "string"},
            "items": {
                "description": "The objects of the list.",
                "type": "array",
                "items": {"$ref": format!("{REFERENCE}{}", kind.schema)},
            },
            "kind": {"description": "The REST resource that this object represents.", "type": "string"},
            "metadata": {"description": "Standard list metadata.", "$ref": format!("{REFERENCE}{META}.ListMeta")},
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [gvk(kind, &name)],
    })
}

/// Adds what upstream says about merging, and gives IntOrString and Quantity the form that clients know.
fn extend(name: &str, schema: &mut Value) {
    let short = name.strip_prefix("io.k8s.").unwrap_or(name);
    match short {
        "apimachinery.pkg.util.intstr.IntOrString" => {
            schema["type"] = json!("string");
            schema["format"] = json!("int-or-string");
        }
        "apimachinery.pkg.api.resource.Quantity" => schema["type"] = json!("string"),
        _ => {}
    }
    remove(schema, "x-kubernetes-int-or-string");
    if lists::ATOMIC_OBJECTS.contains(&short) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        if lists::ATOMIC_MAPS.contains(&(short, field)) {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
        extend_field(name, field, property);
    }
}

fn extend_field(owner: &str, field: &str, property: &mut Value) {
    let rule = lists::rule(owner, field);
    let of_rule = rule.and_then(|rule| rule.list);
    match of_rule.or_else(|| (property["type"] == "array").then_some(ListType::Atomic)) {
        Some(ListType::Map(keys)) => {
            property["x-kubernetes-list-map-keys"] = json!(keys);
            property["x-kubernetes-list-type"] = json!("map");
        }
        Some(ListType::Set) => property["x-kubernetes-list-type"] = json!("set"),
        Some(ListType::Atomic) => property["x-kubernetes-list-type"] = json!("atomic"),
        None => {}
    }
    if let Some(rule) = rule {
        if !rule.merge_key.is_empty() {
            property["x-kubernetes-patch-merge-key"] = json!(rule.merge_key);
        }
        if let Some(strategy) = rule.strategy.text() {
            property["x-kubernetes-patch-strategy"] = json!(strategy);
        }
    }
}

fn remove(schema: &mut Value, key: &str) {
    if let Some(map) = schema.as_object_mut() {
        map.shift_remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kinds;

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, definitions: &Map<String, Value>) {
            if let Some(name) = reference(value) {
                assert!(definitions.contains_key(name), "{name} is missing");
            }
            match value {
                Value::Array(items) => items.iter().for_each(|item| walk(item, definitions)),
                Value::Object(entries) => {
                    entries.values().for_each(|entry| walk(entry, definitions))
                }
                _ => {}
            }
        }
        let all = definitions(kinds());
        all.values().for_each(|schema| walk(schema, &all));
    }

    #[test]
    fn every_kind_has_its_schema() {
        let all = definitions(kinds());
        for kind in kinds() {
            let expected =
                json!([{"group": kind.group, "kind": kind.kind, "version": kind.version}]);
            assert_eq!(
                all[kind.schema]["x-kubernetes-group-version-kind"], expected,
                "{}",
                kind.kind
            );
            assert!(all.contains_key(&list_name(kind)));
        }
    }

    #[test]
    fn rules_name_fields_that_exist() {
        let all = definitions(kinds());
        for rule in lists::rules() {
            let owner = format!("io.k8s.{}", rule.owner);
            let property = &all[&owner]["properties"][rule.field];
            assert!(
                property.is_object(),
                "{owner}.{} does not exist",
                rule.field
            );
            assert_eq!(
                rule.list.is_some(),
                property["type"] == "array",
                "{owner}.{}",
                rule.field
            );
        }
        for name in lists::ATOMIC_OBJECTS {
            assert!(
                all.contains_key(&format!("io.k8s.{name}")),
                "{name} does not exist"
            );
        }
    }

    #[test]
    fn lists_say_how_they_merge() {
        let all = definitions(kinds());
        let ports = &all["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
        assert_eq!(ports["x-kubernetes-list-type"], "map");
        assert_eq!(
            ports["x-kubernetes-list-map-keys"],
            json!(["port", "protocol"])
        );
        assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
        assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
        let volumes = &all["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
        assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
        let command = &all["io.k8s.api.core.v1.Container"]["properties"]["command"];
        assert_eq!(command["x-kubernetes-list-type"], "atomic");
    }
}
