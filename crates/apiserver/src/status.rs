//! What the API answers when it refuses: `Status` objects with the reasons, texts and details of the real API server.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::kind::{FieldError, Kind};

/// A refusal: becomes the HTTP code and the `Status` object that kubectl prints.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, e.g. `NotFound`.
    pub reason: &'static str,
    /// What kubectl prints.
    pub message: String,
    /// `details` of the Status; null when there are none.
    pub details: Box<Value>,
    /// `metadata.continue` of the Status: how an expired paged list may go on.
    pub continue_token: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Failure {
            code,
            reason,
            message: message.into(),
            details: Box::new(Value::Null),
            continue_token: None,
        }
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".into(), json!(token));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if !self.details.is_null() {
            status["details"] = Value::clone(&self.details);
        }
        status["code"] = json!(self.code);
        status
    }

    fn about(mut self, group: &str, kind: &str, name: &str, causes: Vec<Value>) -> Self {
        let mut details = Map::new();
        for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(field.into(), json!(value));
            }
        }
        if !causes.is_empty() {
            details.insert("causes".into(), Value::Array(causes));
        }
        *self.details = Value::Object(details);
        self
    }
}

/// `deployments.apps`, or `pods` in the core group.
pub fn resource(kind: &Kind) -> String {
    qualified(kind.plural, kind.group)
}

fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{group}")
    }
}

/// 404: `pods "x" not found`.
pub fn not_found(kind: &Kind, name: &str) -> Failure {
    Failure::new(
        404,
        "NotFound",
        format!("{} \"{name}\" not found", resource(kind)),
    )
    .about(kind.group, kind.plural, name, vec![])
}

/// 409: `services "x" already exists`.
pub fn already_exists(kind: &Kind, name: &str) -> Failure {
    Failure::new(
        409,
        "AlreadyExists",
        format!("{} \"{name}\" already exists", resource(kind)),
    )
    .about(kind.group, kind.plural, name, vec![])
}

/// 409: `Operation cannot be fulfilled on services "x": …`.
pub fn conflict(kind: &Kind, name: &str, why: &str) -> Failure {
    conflict_on(&resource(kind), kind, name, why)
}

/// 409 on a resource named otherwise than its kind, e.g. `pods/binding`.
pub fn conflict_on(resource: &str, kind: &Kind, name: &str, why: &str) -> Failure {
    Failure::new(
        409,
        "Conflict",
        format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"),
    )
    .about(kind.group, kind.plural, name, vec![])
}

/// What a write says that was based on an older version.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// 403: `pods "x" is forbidden: …`.
pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Failure {
    Failure::new(
        403,
        "Forbidden",
        format!("{} \"{name}\" is forbidden: {why}", resource(kind)),
    )
    .about(kind.group, kind.plural, name, vec![])
}

/// 403 for a new object in a namespace that is going away.
pub fn namespace_terminating(kind: &Kind, name: &str, namespace: &str) -> Failure {
    let why = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut failure = forbidden(kind, name, &why);
    failure.details["causes"] = json!([{
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    }]);
    failure
}

/// 422: `Service "x" is invalid: spec.ports: Required value`.
pub fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Failure {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let list = if texts.len() == 1 {
        texts.concat()
    } else {
        format!("[{}]", texts.join(", "))
    };
    let causes = errors
        .iter()
        .map(|error| json!({"reason": error.reason.code(), "message": error.message(), "field": error.field}))
        .collect();
    let message = format!(
        "{} \"{name}\" is invalid: {list}",
        qualified(kind.kind, kind.group)
    );
    Failure::new(422, "Invalid", message).about(kind.group, kind.kind, name, causes)
}

/// 400.
pub fn bad_request(message: impl Into<String>) -> Failure {
    Failure::new(400, "BadRequest", message)
}

/// 500.
pub fn internal(message: impl fmt::Display) -> Failure {
    let mut failure = Failure::new(
        500,
        "InternalError",
        format!("Internal error occurred: {message}"),
    );
    *failure.details = json!({"causes": [{"message": message.to_string()}]});
    failure
}

/// 405.
pub fn method_not_allowed() -> Failure {
    Failure::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

/// 415 with the list of what would be accepted.
pub fn unsupported_media_type(accepted: &[&str]) -> Failure {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    );
    Failure::new(415, "UnsupportedMediaType", message)
}

/// 406.
pub fn not_acceptable() -> Failure {
    let message = "only the following media types are accepted: application/json, application/yaml";
    Failure::new(406, "NotAcceptable", message)
}

/// 401.
pub fn unauthorized() -> Failure {
    Failure::new(401, "Unauthorized", "Unauthorized")
}

/// 410: what a watch or list from before the event log hears.
pub fn expired(message: impl Into<String>) -> Failure {
    Failure::new(410, "Expired", message)
}

/// 504: a resourceVersion that this server has not reached.
pub fn too_large_version(asked: u64, current: u64) -> Failure {
    let message = format!("Too large resource version: {asked}, current: {current}");
    let mut failure = Failure::new(504, "Timeout", format!("Timeout: {message}"));
    *failure.details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    failure
}

/// 400 for a body with fields that its kind does not have, or has twice.
pub fn strict(kind: &Kind, problems: &[String]) -> Failure {
    bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
        kind.kind,
        kind.version,
        kind.kind,
        problems.join(", ")
    ))
}

/// 422 for a patch that makes such a body.
pub fn strict_patch(object: &Value, problems: &[String]) -> Failure {
    let detail = format!("strict decoding error: {}", problems.join(", "));
    let message = format!(
        " \"\" is invalid: patch: Invalid value: {:?}: {detail}",
        object.to_string()
    );
    Failure::new(422, "Invalid", message)
}
