//! Request bodies in Kubernetes' protobuf encoding, which kubectl's typed commands (`kubectl create deployment`) send.
//!
//! Bytes become the JSON that the same object has; nothing else of the server knows of this encoding. Answers are JSON,
//! which every client takes too. Which fields there are stands in `messages.txt`.

mod schema;
mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value, json};

use crate::object;
use schema::{Field, Many, Type, schema};
use wire::{Item, Reader};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Four bytes in front of every object.
const MAGIC: &[u8] = b"k8s\0";

/// Levels of messages in messages; the deepest field of a Pod is at about 12.
const DEPTH_MAX: usize = 64;

/// Why bytes are not an object.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The prefix is missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    Prefix,
    /// The bytes end too early, or a number is too long.
    #[error("proto: illegal wireType or unexpected EOF")]
    Wire,
    /// Text is not UTF-8, JSON is not JSON, a time is out of range.
    #[error("proto: field {0} has a value that cannot be read")]
    Value(String),
    /// Nobody can send this kind in this form.
    #[error("no kind \"{kind}\" is registered for version \"{version}\" in protobuf form")]
    Kind {
        /// apiVersion.
        version: String,
        /// Kind.
        kind: String,
    },
    /// Nested deeper than any object is.
    #[error("proto: more than {DEPTH_MAX} levels")]
    Depth,
}

/// Decodes an object (runtime.Unknown around a message).
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let mut reader = Reader(bytes.strip_prefix(MAGIC).ok_or(Error::Prefix)?);
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, item)) = reader.next()? {
        match (number, item) {
            (1, Item::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, item)) = meta.next()? {
                    match (number, item) {
                        (1, Item::Bytes(bytes)) => version = text(bytes, "apiVersion")?,
                        (2, Item::Bytes(bytes)) => kind = text(bytes, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let name = message_name(&version, &kind);
    let Some(name) = name.filter(|name| schema().contains_key(name.as_str())) else {
        return Err(Error::Kind { version, kind });
    };
    let mut object = Map::new();
    object.insert("kind".into(), json!(kind));
    object.insert("apiVersion".into(), json!(version));
    message(&name, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

fn message_name(version: &str, kind: &str) -> Option<String> {
    let package = match version {
        _ if kind == "DeleteOptions" => "meta",
        "v1" => "core",
        "apps/v1" => "apps",
        "autoscaling/v1" => "autoscaling",
        "coordination.k8s.io/v1" => "coordination",
        "discovery.k8s.io/v1" => "discovery",
        "networking.k8s.io/v1" => "networking",
        "policy/v1" => "policy",
        _ => return None,
    };
    Some(format!("{package}.{kind}"))
}

fn message(
    name: &str,
    bytes: &[u8],
    into: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::Depth);
    }
    let Some(fields) = schema().get(name) else {
        return Ok(());
    };
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next()? {
        // A field of a newer version is dropped, as the real server drops what it does not know.
        let Some(field) = fields.iter().find(|field| field.number == number) else {
            continue;
        };
        match (&field.many, item) {
            (Many::List, item) => {
                if let Some(value) = value(field, item, depth)? {
                    push(into, &field.name, value);
                }
            }
            (Many::Map, Item::Bytes(entry)) => {
                let (key, value) = entry_of(field, entry, depth)?;
                insert(into, &field.name, key, value);
            }
            (Many::Map, _) => return Err(Error::Wire),
            (Many::One, Item::Bytes(bytes)) if field.inline() => {
                if let Type::Message(name) = &field.kind {
                    message(name, bytes, into, depth + 1)?;
                }
            }
            (Many::One, item) => {
                if let Some(value) =
                    value(field, item, depth)?.filter(|value| field.optional || !is_zero(value))
                {
                    into.insert(field.name.clone(), value);
                }
            }
        }
    }
    Ok(())
}

/// What Go's `omitempty` leaves out; an empty struct it does not.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn push(into: &mut Map<String, Value>, name: &str, value: Value) {
    if let Value::Array(list) = into.entry(name).or_insert_with(|| json!([])) {
        list.push(value);
    }
}

fn insert(into: &mut Map<String, Value>, name: &str, key: String, value: Value) {
    if let Value::Object(map) = into.entry(name).or_insert_with(|| json!({})) {
        map.insert(key, value);
    }
}

fn entry_of(field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), Error> {
    let (mut key, mut found) = (String::new(), None);
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next()? {
        match (number, item) {
            (1, Item::Bytes(bytes)) => key = text(bytes, &field.name)?,
            (2, item) => found = value(field, item, depth)?,
            _ => {}
        }
    }
    let empty = if matches!(field.kind, Type::Message(_)) {
        json!({})
    } else {
        json!("")
    };
    Ok((key, found.unwrap_or(empty)))
}

/// One value; `None` where JSON has nothing.
fn value(field: &Field, item: Item<'_>, depth: usize) -> Result<Option<Value>, Error> {
    let wrong = || Error::Value(field.name.clone());
    Ok(Some(match (&field.kind, item) {
        (Type::Int, Item::Number(number)) => json!(number as i64),
        (Type::Bool, Item::Number(number)) => json!(number != 0),
        (Type::Double, Item::Fixed(bits)) => {
            Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number)
        }
        (Type::Text, Item::Bytes(bytes)) => json!(text(bytes, &field.name)?),
        (Type::Bytes, Item::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        (Type::Message(name), Item::Bytes(bytes)) => {
            let mut map = Map::new();
            message(name, bytes, &mut map, depth + 1)?;
            Value::Object(map)
        }
        (Type::Quantity, Item::Bytes(bytes)) => json!(text(first(bytes)?, &field.name)?),
        (Type::Raw, Item::Bytes(bytes)) => match first(bytes)? {
            [] => return Ok(None),
            json => serde_json::from_slice(json).map_err(|_| wrong())?,
        },
        (Type::IntOrString, Item::Bytes(bytes)) => int_or_string(bytes, &field.name)?,
        (Type::Time | Type::MicroTime, Item::Bytes([])) => return Ok(None),
        (Type::Time | Type::MicroTime, Item::Bytes(bytes)) => {
            json!(time(bytes, field.kind == Type::MicroTime).ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    }))
}

fn text(bytes: &[u8], field: &str) -> Result<String, Error> {
    str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| Error::Value(field.to_owned()))
}

/// Field 1 of a message that is a wrapper around one value.
fn first(bytes: &[u8]) -> Result<&[u8], Error> {
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next()? {
        if let (1, Item::Bytes(bytes)) = (number, item) {
            return Ok(bytes);
        }
    }
    Ok(&[])
}

fn int_or_string(bytes: &[u8], field: &str) -> Result<Value, Error> {
    let (mut is_text, mut number, mut string) = (false, 0, String::new());
    let mut reader = Reader(bytes);
    while let Some((tag, item)) = reader.next()? {
        match (tag, item) {
            (1, Item::Number(kind)) => is_text = kind == 1,
            (2, Item::Number(value)) => number = value as i64,
            (3, Item::Bytes(bytes)) => string = text(bytes, field)?,
            _ => {}
        }
    }
    Ok(if is_text {
        json!(string)
    } else {
        json!(number)
    })
}

fn time(bytes: &[u8], micro: bool) -> Option<String> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next().ok()? {
        match (number, item) {
            (1, Item::Number(value)) => seconds = value as i64,
            (2, Item::Number(value)) => nanos = value as i64,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()?;
    Some(if micro {
        format!("{at:.6}")
    } else {
        object::timestamp(at)
    })
}

#[cfg(test)]
mod tests;
