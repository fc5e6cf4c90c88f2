//! The order of merged lists, and the directive `$setElementOrder/FIELD` that gives it.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{Schema, directive, list};

/// Merges and orders every list that has a `$setElementOrder` in the patch; takes both out of the patch.
pub fn apply(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    schema: &Schema<'_>,
) -> Result<(), String> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|key| key.starts_with(directive::SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for name in directives {
        let Some(Value::Array(order)) = patch.shift_remove(&name) else {
            return Err("invalid patch format of setElementOrder list".to_owned());
        };
        let key = name
            .strip_prefix(directive::SET_ELEMENT_ORDER)
            .unwrap_or_default();
        if patch.get(key).is_some_and(|value| !value.is_array()) {
            // A null deletes the list, and a value of another type is an error elsewhere.
            continue;
        }
        let field = schema.field(key);
        let before = original.get(key).and_then(Value::as_array).cloned();
        let changes = match patch.shift_remove(key) {
            Some(Value::Array(changes)) => Some(changes),
            _ => None,
        };
        if let Some(changes) = &changes {
            check(changes, &order, field.merge_key())?;
        }
        let merged = match (before.clone(), changes) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(changes)) => match directive::drop_all(Value::Array(changes)) {
                Some(Value::Array(items)) => items,
                _ => continue,
            },
            (Some(before), Some(changes)) if field.merges() => {
                list::merge(before, changes, &field)?
            }
            (Some(_), Some(changes)) => changes,
        };
        let ordered = normalize(
            merged,
            &order,
            &before.unwrap_or_default(),
            field.merge_key(),
        );
        original.insert(key.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

/// The items of the patch stand in its order; those that only the server has keep theirs, and stay before an item of
/// the patch that followed them on the server.
pub fn normalize(merged: Vec<Value>, order: &[Value], before: &[Value], key: &str) -> Vec<Value> {
    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| index(order, item, key).is_some());
    ours.sort_by(|a, b| by_index(order, a, b, key));
    theirs.sort_by(|a, b| by_index(before, a, b, key));
    let mut result = Vec::with_capacity(ours.len() + theirs.len());
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
        let their_first = match (index(before, their, key), index(before, our, key)) {
            (Some(their), Some(our)) => their < our,
            _ => false,
        };
        result.extend(if their_first {
            theirs.next()
        } else {
            ours.next()
        });
    }
    result.extend(ours);
    result.extend(theirs);
    result
}

/// Where an item stands in a list: by key, or by value where there is no key.
fn index(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|other| same(other, item, key))
}

fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() {
        a == b
    } else {
        a.get(key).is_some() && a.get(key) == b.get(key)
    }
}

fn by_index(list: &[Value], a: &Value, b: &Value, key: &str) -> Ordering {
    match (index(list, a, key), index(list, b, key)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Ordering::Equal,
    }
}

/// The items of the patch must all be in the order, in that order.
fn check(changes: &[Value], order: &[Value], key: &str) -> Result<(), String> {
    let mut rest = order.iter();
    let kept = changes
        .iter()
        .filter(|item| item.get(directive::PATCH).is_none());
    for item in kept {
        if !rest.any(|other| same(other, item, key)) {
            return Err(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                Value::from(changes.to_vec()),
                Value::from(order.to_vec())
            ));
        }
    }
    Ok(())
}
