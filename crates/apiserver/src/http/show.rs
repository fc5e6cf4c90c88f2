//! How objects are shown: as they are, as rows of a table, or as their metadata only.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::accept::Shape;
use super::query::Query;
use crate::kind::Kind;
use crate::status::{Failure, bad_request};
use crate::verbs::create::group_version;

/// What a row of a table carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// A PartialObjectMetadata.
    Metadata,
    /// All of it.
    Object,
}

/// How one request wants its objects.
#[derive(Clone, Copy, Debug)]
pub struct Show {
    /// The form.
    pub shape: Shape,
    /// For tables.
    pub include: Include,
}

impl Show {
    /// Reads `includeObject`.
    pub fn parse(shape: Shape, query: &Query) -> Result<Show, Failure> {
        let include = match query.text("includeObject") {
            "" | "Metadata" => Include::Metadata,
            "None" => Include::None,
            "Object" => Include::Object,
            other => {
                return Err(bad_request(format!(
                    "unrecognized includeObject value: {other:?}: must be one of None, Metadata, Object"
                )));
            }
        };
        Ok(Show { shape, include })
    }

    /// One object; a table has its columns when `columns` is set.
    pub fn one(&self, kind: &Kind, object: &Value, columns: bool) -> Value {
        match self.shape {
            Shape::Object => object.clone(),
            Shape::Metadata => partial(object),
            Shape::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                self.table(kind, [object].into_iter(), metadata, columns)
            }
        }
    }

    /// A list with its metadata.
    pub fn list(&self, kind: &Kind, items: &[Arc<Value>], metadata: Value) -> Value {
        match self.shape {
            Shape::Object => json!({
                "kind": format!("{}List", kind.kind),
                "apiVersion": group_version(kind),
                "metadata": metadata,
                "items": items.iter().map(|item| Value::clone(item)).collect::<Vec<_>>(),
            }),
            Shape::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": items.iter().map(|item| partial(item)).collect::<Vec<_>>(),
            }),
            Shape::Table => self.table(kind, items.iter().map(|item| &**item), metadata, true),
        }
    }

    fn table<'a>(
        &self,
        kind: &Kind,
        items: impl Iterator<Item = &'a Value>,
        metadata: Value,
        columns: bool,
    ) -> Value {
        let definitions: Vec<Value> = kind
            .columns
            .iter()
            .filter(|_| columns)
            .map(|column| {
                json!({
                    "name": column.name,
                    "type": column.kind,
                    "format": column.format,
                    "description": column.description,
                    "priority": column.priority,
                })
            })
            .collect();
        let now = Timestamp::now().as_second();
        let rows: Vec<Value> = items
            .map(|object| {
                let mut row = json!({"cells": (kind.row)(object, now)});
                match self.include {
                    Include::None => {}
                    Include::Metadata => row["object"] = partial(object),
                    Include::Object => row["object"] = object.clone(),
                }
                row
            })
            .collect();
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": definitions,
            "rows": rows,
        })
    }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
