//! Strategic merge patch: a patch that merges lists by key instead of replacing them.
//!
//! Directives in a patch: `$patch: replace|delete|merge` on an object or a list item, `$retainKeys`,
//! `$deleteFromPrimitiveList/FIELD` and `$setElementOrder/FIELD`. Which lists merge, and by which key, comes from
//! [`crate::openapi::lists`]. Described in the Kubernetes community's "Strategic Merge Patch" document.

mod directive;
mod list;
mod order;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::kind::Kind;
use crate::openapi::lists::{Rule, Strategy};
use crate::openapi::types::{Shape, Type, types};

/// Applies a strategic merge patch to an object.
///
/// # Errors
/// What is wrong with the patch, in the words of the real API server.
pub fn strategic(kind: &Kind, original: &Value, patch: &Value) -> Result<Value, String> {
    let Value::Object(patch) = patch else {
        return Err("invalid patch: expected an object".to_owned());
    };
    let original = original.as_object().cloned().unwrap_or_default();
    object(original, patch.clone(), &Schema::of(kind)).map(Value::Object)
}

/// What is known of the fields of one object: those of a type, or that all values are alike, or nothing.
#[derive(Clone, Copy)]
struct Schema<'a> {
    fields: Option<&'a Type>,
    values: Option<&'a Shape>,
}

impl<'a> Schema<'a> {
    fn of(kind: &Kind) -> Schema<'static> {
        Schema {
            fields: types().of(kind),
            values: None,
        }
    }

    /// The schema of objects of this shape, or of the items of such a list.
    fn under(shape: Option<&'a Shape>) -> Schema<'a> {
        match shape {
            Some(Shape::Object(name)) => Schema {
                fields: types().object(name),
                values: None,
            },
            Some(Shape::Map(values)) => Schema {
                fields: None,
                values: Some(values),
            },
            Some(Shape::List(item)) => Schema::under(Some(item)),
            _ => Schema {
                fields: None,
                values: None,
            },
        }
    }

    fn field(&self, name: &str) -> Field<'a> {
        match self.fields.and_then(|fields| fields.get(name)) {
            Some(field) => Field {
                schema: Schema::under(Some(&field.shape)),
                rule: field.rule,
            },
            None => Field {
                schema: Schema::under(self.values),
                rule: None,
            },
        }
    }
}

/// What is known of one field.
struct Field<'a> {
    schema: Schema<'a>,
    rule: Option<&'static Rule>,
}

impl Field<'_> {
    fn merges(&self) -> bool {
        self.rule.is_some_and(|rule| rule.strategy.merges())
    }

    /// The key by which items of the list are told apart; empty for lists of primitives.
    fn merge_key(&self) -> &'static str {
        self.rule.map_or("", |rule| rule.merge_key)
    }

    fn replaces_object(&self) -> bool {
        self.rule
            .is_some_and(|rule| rule.strategy == Strategy::Replace)
    }
}

/// Merges a patch into an object.
fn object(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: &Schema<'_>,
) -> Result<Map<String, Value>, String> {
    match patch.shift_remove(directive::PATCH).as_ref() {
        None => {}
        Some(kind) if kind == "replace" => return Ok(patch),
        Some(kind) if kind == "delete" => return Ok(Map::new()),
        Some(kind) if kind == "merge" => {}
        Some(other) => {
            return Err(format!(
                "unknown patch type: {} in map: {}",
                directive::plain(other),
                Value::Object(patch)
            ));
        }
    }
    directive::retain_keys(&mut original, &mut patch)?;
    order::apply(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(directive::DELETE_FROM_PRIMITIVE_LIST) {
            directive::delete_from_primitive_list(&mut original, field, &value)?;
        } else if value.is_null() {
            original.shift_remove(&key);
        } else {
            let merged = one_field(original.get(&key), value, &schema.field(&key))?;
            match merged {
                Some(value) => original.insert(key, value),
                None => original.shift_remove(&key),
            };
        }
    }
    Ok(original)
}

/// The new value of one field; `None` if it goes.
fn one_field(
    original: Option<&Value>,
    patch: Value,
    field: &Field<'_>,
) -> Result<Option<Value>, String> {
    match (original, patch) {
        (Some(Value::Object(original)), Value::Object(patch)) if !field.replaces_object() => {
            object(original.clone(), patch, &field.schema).map(|merged| Some(Value::Object(merged)))
        }
        (Some(Value::Array(original)), Value::Array(patch)) if field.merges() => {
            list::merge(original.clone(), patch, field).map(|merged| Some(Value::Array(merged)))
        }
        (_, patch) => Ok(directive::drop_all(patch)),
    }
}
