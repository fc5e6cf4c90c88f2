//! Reading request bodies: JSON, YAML or protobuf, with a limit, remembering duplicate fields.

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::protobuf;
use crate::status::{Failure, bad_request, unsupported_media_type};

/// The largest request body, as in a real API server.
pub const BODY_MAX: usize = 3 * 1024 * 1024;

/// Levels of nesting in a body; serde_json's own limit, which also bounds the stack of everything that walks objects.
const DEPTH_MAX: usize = 128;

/// Duplicate fields that are reported; a body can hold many more.
const DUPLICATES_MAX: usize = 64;

/// Reads the whole body.
pub async fn read(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {BODY_MAX}");
            Err(Failure::new(413, "RequestEntityTooLarge", message))
        }
        Err(error) => Err(bad_request(format!(
            "cannot read the body of the request: {error}"
        ))),
    }
}

/// Media type of a Content-Type header, without parameters.
pub fn media_type(header: &str) -> &str {
    header.split(';').next().unwrap_or_default().trim()
}

/// Decodes an object and lists the paths of fields that are given twice.
pub fn decode(content_type: &str, bytes: &[u8]) -> Result<(Value, Vec<String>), Failure> {
    let (value, duplicates) = match media_type(content_type) {
        "application/yaml" | "text/yaml" | "application/x-yaml" => (yaml(bytes)?, Vec::new()),
        // curl sends the form type when it is told nothing; the real server falls back to JSON or YAML for it too.
        "" | "application/json" | "application/x-www-form-urlencoded" | "*/*" => {
            json_or_yaml(bytes)?
        }
        protobuf::MEDIA_TYPE => {
            let object = protobuf::decode(bytes).map_err(|error| bad_request(error.to_string()))?;
            (object, Vec::new())
        }
        _ => {
            return Err(unsupported_media_type(&[
                "application/json",
                "application/yaml",
                protobuf::MEDIA_TYPE,
            ]));
        }
    };
    if value.is_object() {
        Ok((value, duplicates))
    } else {
        Err(bad_request(
            "couldn't get version/kind; json parse error: the body must be one object",
        ))
    }
}

/// Decodes any JSON value.
pub fn json(bytes: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut source = serde_json::Deserializer::from_slice(bytes);
    let value = Node {
        path: String::new(),
        duplicates: &mut duplicates,
    }
    .deserialize(&mut source)?;
    source.end()?;
    Ok((value, duplicates))
}

fn json_or_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), Failure> {
    match json(bytes) {
        Ok(decoded) => Ok(decoded),
        Err(error) if bytes.trim_ascii_start().starts_with(b"{") => Err(bad_request(format!(
            "couldn't get version/kind; json parse error: {error}"
        ))),
        Err(_) => Ok((yaml(bytes)?, Vec::new())),
    }
}

/// Decodes YAML as the same value its JSON form would give.
pub fn yaml(bytes: &[u8]) -> Result<Value, Failure> {
    let value: Value = serde_norway::from_slice(bytes)
        .map_err(|error| bad_request(format!("error converting YAML to JSON: yaml: {error}")))?;
    if depth(&value) > DEPTH_MAX {
        return Err(bad_request(format!(
            "error converting YAML to JSON: more than {DEPTH_MAX} levels"
        )));
    }
    Ok(value)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// One value of a JSON body at a path.
struct Node<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Node {
            path: format!("{}[{}]", self.path, items.len()),
            duplicates: self.duplicates,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            if fields.contains_key(&key) && self.duplicates.len() < DUPLICATES_MAX {
                self.duplicates.push(path.clone());
            }
            let value = map.next_value_seed(Node {
                path,
                duplicates: self.duplicates,
            })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}
