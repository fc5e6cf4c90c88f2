//! Holds an object against its schema: fields that it should not have, values of the wrong type.

use serde_json::Value;

use super::types::{Shape, types};
use crate::kind::Kind;

/// A message for each field of an object that its kind does not have: `unknown field "spec.foo"`.
pub fn unknown_fields(kind: &Kind, object: &Value) -> Vec<String> {
    let mut walk = Walk {
        drop: false,
        unknown: Vec::new(),
        owner: String::new(),
    };
    // A value of the wrong type is another function's error; what lies below it has no fields to know.
    let _ = walk.value(
        &Shape::Object(kind.schema.to_owned()),
        &mut object.clone(),
        &mut Vec::new(),
    );
    walk.unknown
}

/// Makes an object what a decoder with the kind's types would have read: unknown fields and nulls are gone.
/// The messages of unknown fields come back, in the form of [`unknown_fields`].
///
/// # Errors
/// A value of the wrong type, in the words of the real API server: `Service in version "v1" cannot be handled as a
/// Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32`.
pub fn decode(kind: &Kind, object: &mut Value) -> Result<Vec<String>, String> {
    let mut walk = Walk {
        drop: true,
        unknown: Vec::new(),
        owner: String::new(),
    };
    let shape = Shape::Object(kind.schema.to_owned());
    walk.value(&shape, object, &mut Vec::new())
        .map_err(|error| {
            format!(
                "{0} in version \"{1}\" cannot be handled as a {0}: {error}",
                kind.kind, kind.version
            )
        })?;
    Ok(walk.unknown)
}

/// One step of a path: a field, or an index.
enum Step {
    Field(String),
    Index(usize),
}

struct Walk {
    /// Unknown fields and nulls are removed.
    drop: bool,
    unknown: Vec<String>,
    /// Go name of the innermost object on the way, e.g. `ServicePort`.
    owner: String,
}

impl Walk {
    fn value(
        &mut self,
        shape: &Shape,
        value: &mut Value,
        path: &mut Vec<Step>,
    ) -> Result<(), String> {
        match (shape, &mut *value) {
            (_, Value::Null) | (Shape::Any, _) => Ok(()),
            (Shape::Object(name), Value::Object(_)) => self.object(name, value, path),
            (Shape::Map(shape), Value::Object(entries)) => {
                for (key, value) in entries {
                    within(path, Step::Field(key.clone()), |path| {
                        self.value(shape, value, path)
                    })?;
                }
                Ok(())
            }
            (Shape::List(shape), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    within(path, Step::Index(index), |path| {
                        self.value(shape, item, path)
                    })?;
                }
                Ok(())
            }
            (shape, value) if holds(shape, value) => Ok(()),
            (shape, value) => Err(mismatch(shape, value, &self.owner, path)),
        }
    }

    fn object(
        &mut self,
        name: &str,
        value: &mut Value,
        path: &mut Vec<Step>,
    ) -> Result<(), String> {
        let (Some(fields), Some(entries)) = (types().object(name), value.as_object_mut()) else {
            return Ok(());
        };
        let mut gone = Vec::new();
        let outer = std::mem::replace(
            &mut self.owner,
            name.rsplit('.').next().unwrap_or_default().to_owned(),
        );
        for (key, value) in entries.iter_mut() {
            match fields.get(key) {
                Some(field) => {
                    within(path, Step::Field(key.clone()), |path| {
                        self.value(&field.shape, value, path)
                    })?;
                    if value.is_null() {
                        gone.push(key.clone());
                    }
                }
                None => {
                    within(path, Step::Field(key.clone()), |path| {
                        self.unknown
                            .push(format!("unknown field \"{}\"", join(path)));
                    });
                    gone.push(key.clone());
                }
            }
        }
        self.owner = outer;
        if self.drop {
            for key in gone {
                entries.shift_remove(&key);
            }
        }
        Ok(())
    }
}

fn within<T>(path: &mut Vec<Step>, step: Step, then: impl FnOnce(&mut Vec<Step>) -> T) -> T {
    path.push(step);
    let result = then(path);
    path.pop();
    result
}

/// `spec.ports[0].port`.
fn join(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(name) if text.is_empty() => text.push_str(name),
            Step::Field(name) => text.push_str(&format!(".{name}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn holds(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Text | Shape::Bytes => value.is_string(),
        Shape::Time => value
            .as_str()
            .is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()),
        Shape::Int32 => whole(value).is_some_and(|number| i32::try_from(number).is_ok()),
        Shape::Int64 => whole(value).is_some(),
        Shape::Number => value.is_number(),
        Shape::Boolean => value.is_boolean(),
        Shape::IntOrString => value.is_string() || whole(value).is_some(),
        Shape::Quantity => value.is_string() || value.is_number(),
        Shape::Any => true,
        Shape::Object(_) | Shape::List(_) | Shape::Map(_) => false,
    }
}

/// A whole number, also written as `3.0`.
fn whole(value: &Value) -> Option<i64> {
    let float = || {
        value
            .as_f64()
            .filter(|number| number.fract() == 0.0 && number.abs() < 9e15)
    };
    value
        .as_i64()
        .or_else(|| float().map(|number| number as i64))
}

/// What Go's decoder says.
fn mismatch(shape: &Shape, value: &Value, owner: &str, path: &[Step]) -> String {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if matches!(shape, Shape::Int32 | Shape::Int64) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    if let (Shape::Time, Value::String(time)) = (shape, value) {
        return format!(
            "parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {time:?} as \"2006\""
        );
    }
    let fields: Vec<&str> = path
        .iter()
        .filter_map(|step| match step {
            Step::Field(name) => Some(name.as_str()),
            Step::Index(_) => None,
        })
        .collect();
    format!(
        "json: cannot unmarshal {found} into Go struct field {owner}.{} of type {}",
        fields.join("."),
        shape.go()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(name: &str) -> &'static Kind {
        crate::kinds::kinds()
            .iter()
            .find(|kind| kind.kind == name)
            .unwrap()
    }

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "labels": {"any": "x"}},
            "spec": {"foo": 1, "ports": [{"port": 80, "prot": "TCP"}]}});
        let expected = [
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.ports[0].prot""#,
        ];
        assert_eq!(unknown_fields(kind("Service"), &service), expected);
    }

    #[test]
    fn decoding_drops_what_is_unknown_or_null() {
        let mut service = json!({"metadata": {"name": "s", "creationTimestamp": null}, "bar": 1,
            "spec": {"selector": null, "ports": [{"port": 80, "targetPort": "http", "x": 1}]}});
        assert_eq!(decode(kind("Service"), &mut service).unwrap().len(), 2);
        let expected = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}});
        assert_eq!(service, expected);
    }

    #[test]
    fn wrong_types_are_refused() {
        let mut service = json!({"spec": {"ports": [{"port": "80"}]}});
        let error = decode(kind("Service"), &mut service).unwrap_err();
        assert_eq!(
            error,
            "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct \
             field ServicePort.spec.ports.port of type int32"
        );
        let mut deployment = json!({"spec": {"replicas": 4_000_000_000_u64}});
        assert!(
            decode(kind("Deployment"), &mut deployment)
                .unwrap_err()
                .contains("number 4000000000")
        );
        let mut pod = json!({"spec": {"containers": {"name": "a"}}});
        assert!(
            decode(kind("Pod"), &mut pod)
                .unwrap_err()
                .ends_with("of type []v1.Container")
        );
    }
}
