//! Reading JSON objects leniently: what is absent, or of another type, reads as empty.

use serde_json::{Map, Value};

use super::age;

/// A string, or empty.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The items of a list, or none.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The entries of an object, or none.
pub fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A whole number, or 0.
pub fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// Whether a value says nothing: absent, null, empty or zero, as Go's `omitempty` sees it.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// A string, or something to show in its place.
pub fn text_or<'a>(value: &'a Value, otherwise: &'a str) -> &'a str {
    match text(value) {
        "" => otherwise,
        text => text,
    }
}

/// `metadata.name` as a cell.
pub fn name(object: &Value) -> Value {
    text(&object["metadata"]["name"]).into()
}

/// The age of an object as a cell.
pub fn age(object: &Value, now: i64) -> Value {
    age::since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The object at a key, made if it is absent or null; `None` if something else is there.
pub fn child<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Map<String, Value>> {
    let child = object.as_object_mut()?.entry(key).or_insert(Value::Null);
    if child.is_null() {
        *child = Value::Object(Map::new());
    }
    child.as_object_mut()
}

/// Gives a key its default if it is absent, null or an empty string.
pub fn set_default(object: &mut Value, key: &str, value: impl Into<Value>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    let entry = map.entry(key).or_insert(Value::Null);
    if entry.is_null() || entry.as_str() == Some("") {
        *entry = value.into();
    }
}

/// The items of a list at a key, to be changed; none if there is no list.
pub fn items_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut [Value] {
    object
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .map_or(&mut [], Vec::as_mut_slice)
}

/// Labels as `a=b,c=d`, sorted, or `<none>`.
pub fn labels(value: &Value) -> String {
    let mut pairs: Vec<String> = entries(value)
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if pairs.is_empty() {
        return "<none>".to_owned();
    }
    pairs.sort();
    pairs.join(",")
}

/// At most three items with commas and how many more there are, as in the columns of addresses and ports.
pub fn first_three(items: &[String], none: &str) -> String {
    /// As many as kubectl's tables show, so that a row stays a line; the rest is counted.
    const SHOWN_MAX: usize = 3;
    match items.len() {
        0 => none.to_owned(),
        count if count > SHOWN_MAX => {
            format!(
                "{} + {} more...",
                items[..SHOWN_MAX].join(","),
                count - SHOWN_MAX
            )
        }
        _ => items.join(","),
    }
}
