//! Merging one list with another, by key or by value.

use serde_json::{Map, Value};

use super::{Field, directive, object, order};

/// Merges a patch into a list; the result has the order of the patch, and what only the server has stays about where
/// it was.
pub fn merge(
    original: Vec<Value>,
    patch: Vec<Value>,
    field: &Field<'_>,
) -> Result<Vec<Value>, String> {
    if patch.is_empty() {
        return Ok(original);
    }
    let key = field.merge_key();
    let (merged, patch) =
        if patch.iter().all(Value::is_object) && original.iter().all(Value::is_object) {
            if key.is_empty() {
                return Err("cannot merge lists without merge key".to_owned());
            }
            let Special {
                original,
                patch,
                replaced,
            } = special(original.clone(), patch, key)?;
            if replaced {
                return Ok(patch);
            }
            (by_key(original, &patch, key, field)?, patch)
        } else if patch.iter().chain(&original).any(Value::is_object) {
            return Err("list element types are not identical".to_owned());
        } else {
            (by_value(&original, &patch), patch)
        };
    Ok(order::normalize(merged, &patch, &original, key))
}

/// What is left once the items that are directives have done their work.
struct Special {
    original: Vec<Value>,
    patch: Vec<Value>,
    /// The patch is the whole new list.
    replaced: bool,
}

fn special(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<Special, String> {
    let mut kept = Vec::new();
    let mut replaced = false;
    for item in patch {
        match item.get(directive::PATCH).map(directive::plain).as_deref() {
            None => kept.push(item),
            Some("delete") => {
                let Some(gone) = item.get(key) else {
                    return Err("delete patch type with no merge key defined".to_owned());
                };
                original.retain(|item| item.get(key) != Some(gone));
            }
            Some("replace") => {
                replaced = true;
                // `{"$patch": "replace"}` alone only says so; with fields it is an item as well.
                if item.as_object().is_some_and(|item| item.len() > 1) {
                    kept.push(item);
                }
            }
            Some("merge") => kept.push(item),
            Some(other) => return Err(format!("unknown patch type found: {other}")),
        }
    }
    if replaced {
        kept = kept.into_iter().filter_map(directive::drop_all).collect();
    }
    Ok(Special {
        original,
        patch: kept,
        replaced,
    })
}

fn by_key(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
    field: &Field<'_>,
) -> Result<Vec<Value>, String> {
    for item in patch {
        let Some(id) = item.get(key).filter(|id| !id.is_null()) else {
            return Err(format!(
                "map: {item} does not contain declared merge key: {key}"
            ));
        };
        let (Some(entries), found) = (
            item.as_object(),
            original.iter_mut().find(|old| old.get(key) == Some(id)),
        ) else {
            continue;
        };
        match found {
            Some(old) => {
                let entries_old: Map<String, Value> = old.as_object().cloned().unwrap_or_default();
                *old = Value::Object(object(entries_old, entries.clone(), &field.schema)?);
            }
            None => original.extend(directive::drop_all(item.clone())),
        }
    }
    Ok(original)
}

fn by_value(original: &[Value], patch: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
    for item in original.iter().chain(patch) {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    merged
}
