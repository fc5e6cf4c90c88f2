//! The schemas as a small tree that stays in memory: what strategic merge, field validation and decoding walk along.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::definitions::{self, REFERENCE};
use super::lists::{self, Rule};
use crate::kind::Kind;
use crate::kinds::kinds;

/// All types, by schema name.
pub struct Types(BTreeMap<String, Type>);

/// The fields of an object.
pub type Type = BTreeMap<String, Field>;

/// One field of an object.
pub struct Field {
    /// What it holds.
    pub shape: Shape,
    /// How it merges; `None` is the usual way: lists are replaced, objects merged.
    pub rule: Option<&'static Rule>,
}

/// What a value looks like.
#[derive(Debug, PartialEq, Eq)]
pub enum Shape {
    /// A string.
    Text,
    /// A string with an RFC 3339 time.
    Time,
    /// A string in base64.
    Bytes,
    /// A whole number of 32 bits.
    Int32,
    /// A whole number of 64 bits.
    Int64,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A number or a string.
    IntOrString,
    /// A number or a string that is a resource quantity.
    Quantity,
    /// Anything.
    Any,
    /// An object with the fields of this schema.
    Object(String),
    /// A list of this.
    List(Box<Shape>),
    /// An object with any keys and these values.
    Map(Box<Shape>),
}

/// The types of every served kind, made when first asked for.
pub fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| Types::new(&definitions::definitions(kinds())))
}

impl Types {
    fn new(definitions: &Map<String, Value>) -> Types {
        let objects = definitions.iter().filter_map(|(name, schema)| {
            let properties = schema.get("properties")?.as_object()?;
            let fields = properties.iter().map(|(field, property)| {
                let field_of_type = Field {
                    shape: shape(property, definitions),
                    rule: lists::rule(name, field),
                };
                (field.clone(), field_of_type)
            });
            Some((name.clone(), fields.collect()))
        });
        Types(objects.collect())
    }

    /// The type of a kind's objects.
    pub fn of(&self, kind: &Kind) -> Option<&Type> {
        self.object(kind.schema)
    }

    /// The type behind a schema name.
    pub fn object(&self, name: &str) -> Option<&Type> {
        self.0.get(name)
    }
}

impl Shape {
    /// The Go type, as error messages of the real API server name it.
    pub fn go(&self) -> String {
        match self {
            Shape::Text | Shape::Bytes => "string".to_owned(),
            Shape::Time => "time.Time".to_owned(),
            Shape::Int32 => "int32".to_owned(),
            Shape::Int64 => "int64".to_owned(),
            Shape::Number => "float64".to_owned(),
            Shape::Boolean => "bool".to_owned(),
            Shape::IntOrString => "intstr.IntOrString".to_owned(),
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::Any => "interface {}".to_owned(),
            Shape::Object(name) => {
                let mut parts = name.rsplit('.');
                let (kind, version) = (
                    parts.next().unwrap_or_default(),
                    parts.next().unwrap_or_default(),
                );
                format!("{version}.{kind}")
            }
            Shape::List(item) => format!("[]{}", item.go()),
            Shape::Map(value) => format!("map[string]{}", value.go()),
        }
    }
}

fn shape(schema: &Value, definitions: &Map<String, Value>) -> Shape {
    if let Some(name) = definitions::reference(schema) {
        return named(name, definitions);
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("string"), Some("date-time")) => Shape::Time,
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), _) => Shape::Text,
        (Some("integer"), Some("int64")) => Shape::Int64,
        (Some("integer"), _) => Shape::Int32,
        (Some("number"), _) => Shape::Number,
        (Some("boolean"), _) => Shape::Boolean,
        (Some("array"), _) => Shape::List(Box::new(shape(&schema["items"], definitions))),
        (Some("object"), _) if schema["additionalProperties"].is_object() => Shape::Map(Box::new(
            shape(&schema["additionalProperties"], definitions),
        )),
        _ => Shape::Any,
    }
}

/// A reference to something that is no object with fields becomes what it stands for.
fn named(name: &str, definitions: &Map<String, Value>) -> Shape {
    debug_assert!(!name.starts_with(REFERENCE));
    match name.rsplit('.').next() {
        Some("IntOrString") => Shape::IntOrString,
        Some("Quantity") => Shape::Quantity,
        Some("Time" | "MicroTime") => Shape::Time,
        _ => match definitions.get(name) {
            Some(schema) if schema["properties"].is_object() => Shape::Object(name.to_owned()),
            Some(schema) if schema["type"] != "object" => shape(schema, definitions),
            _ => Shape::Any,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(schema: &str, field: &str) -> &'static Field {
        &types().object(schema).unwrap()[field]
    }

    #[test]
    fn fields_have_their_shapes() {
        assert_eq!(
            at("io.k8s.api.core.v1.ServicePort", "port").shape,
            Shape::Int32
        );
        assert_eq!(
            at("io.k8s.api.core.v1.ServicePort", "targetPort").shape,
            Shape::IntOrString
        );
        assert_eq!(
            at("io.k8s.api.core.v1.ServiceSpec", "selector").shape,
            Shape::Map(Box::new(Shape::Text))
        );
        assert_eq!(
            at("io.k8s.api.core.v1.Secret", "data").shape,
            Shape::Map(Box::new(Shape::Bytes))
        );
        assert_eq!(
            at(
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                "creationTimestamp"
            )
            .shape,
            Shape::Time
        );
        assert_eq!(
            at("io.k8s.api.core.v1.PodSpec", "containers").shape,
            Shape::List(Box::new(Shape::Object(
                "io.k8s.api.core.v1.Container".to_owned()
            )))
        );
        assert_eq!(
            at("io.k8s.api.core.v1.ResourceRequirements", "limits").shape,
            Shape::Map(Box::new(Shape::Quantity))
        );
    }

    #[test]
    fn every_kind_has_a_type() {
        for kind in kinds() {
            assert!(types().of(kind).is_some(), "{}", kind.kind);
        }
    }
}
