//! The directives that a patch may carry, apart from the order of lists.

use serde_json::{Map, Value};

/// Says what becomes of an object or of a list item: `replace`, `delete` or `merge`.
pub const PATCH: &str = "$patch";
/// Names the keys that stay.
pub const RETAIN_KEYS: &str = "$retainKeys";
/// Starts a key whose list holds values to take out of a list of primitives.
pub const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";
/// Starts a key whose list gives the order of a list.
pub const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// Removes the keys of the original that `$retainKeys` does not name.
pub fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
) -> Result<(), String> {
    let Some(retained) = patch.shift_remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(retained) = retained else {
        return Err("invalid patch format of retainKeys".to_owned());
    };
    let names = |key: &str| retained.iter().any(|name| name == key);
    if !patch
        .keys()
        .all(|key| patch[key].is_null() || key.starts_with('$') || names(key))
    {
        return Err("retainKeys list doesn't contain all fields present in the patch".to_owned());
    }
    original.retain(|key, _| names(key));
    Ok(())
}

/// Takes values out of a list of primitives.
pub fn delete_from_primitive_list(
    original: &mut Map<String, Value>,
    field: &str,
    gone: &Value,
) -> Result<(), String> {
    let Value::Array(gone) = gone else {
        return Err("invalid patch format of primitive list".to_owned());
    };
    if let Some(Value::Array(items)) = original.get_mut(field) {
        items.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// A value of a patch as it is when there is nothing to merge with: directives and nulls are gone, and so is what
/// they say is to be deleted.
pub fn drop_all(patch: Value) -> Option<Value> {
    match patch {
        Value::Null => None,
        Value::Object(mut entries) => {
            if entries
                .shift_remove(PATCH)
                .is_some_and(|kind| kind == "delete")
            {
                return None;
            }
            let kept = entries.into_iter().filter(|(key, _)| !is_directive(key));
            Some(Value::Object(
                kept.filter_map(|(key, value)| Some((key, drop_all(value)?)))
                    .collect(),
            ))
        }
        Value::Array(items) => {
            let only_replaces = |item: &Value| {
                item.as_object()
                    .is_some_and(|item| item.len() == 1 && item.get(PATCH).is_some())
            };
            let kept = items.into_iter().filter(|item| !only_replaces(item));
            Some(Value::Array(kept.filter_map(drop_all).collect()))
        }
        other => Some(other),
    }
}

fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || key.starts_with(SET_ELEMENT_ORDER)
}

/// A value as Go prints it: strings without quotes.
pub fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
