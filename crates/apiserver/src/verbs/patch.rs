//! PATCH: JSON patch, merge patch and strategic merge patch.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::merge;
use crate::status::{Failure, bad_request, unsupported_media_type};
use crate::verbs::create::group_version;

/// Patches that the server takes.
pub const TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Steps of one JSON patch, as in a real API server.
const OPERATIONS_MAX: usize = 10_000;

/// A patch that was read but not yet applied.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Arc<json_patch::Patch>),
    /// RFC 7386.
    Merge(Arc<Value>),
    /// Lists merge by the keys that the kind's schema names.
    Strategic(Arc<Value>),
}

impl Patch {
    /// Reads a patch of a media type.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Patch, Failure> {
        let undecodable =
            |error: serde_json::Error| bad_request(format!("error decoding patch: {error}"));
        match media_type {
            "application/json-patch+json" => {
                let patch: json_patch::Patch =
                    serde_json::from_slice(bytes).map_err(undecodable)?;
                if patch.0.len() > OPERATIONS_MAX {
                    let message = format!(
                        "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
                        patch.0.len()
                    );
                    return Err(Failure::new(413, "RequestEntityTooLarge", message));
                }
                Ok(Patch::Json(Arc::new(patch)))
            }
            "application/merge-patch+json" => serde_json::from_slice(bytes)
                .map(|patch| Patch::Merge(Arc::new(patch)))
                .map_err(undecodable),
            "application/strategic-merge-patch+json" => serde_json::from_slice(bytes)
                .map(|patch| Patch::Strategic(Arc::new(patch)))
                .map_err(undecodable),
            _ => Err(unsupported_media_type(TYPES)),
        }
    }

    /// The patched object; what the patch leaves must still be of its kind.
    pub fn apply(&self, kind: &Kind, original: &Value) -> Result<Value, Failure> {
        let object = match self {
            Patch::Strategic(patch) => {
                merge::strategic(kind, original, patch).map_err(bad_request)?
            }
            _ => self.apply_plain(original)?,
        };
        if !object.is_object() || !matches!(object["metadata"], Value::Null | Value::Object(_)) {
            return Err(bad_request(format!(
                "the patched object is not a {}",
                kind.kind
            )));
        }
        if object["kind"] != kind.kind || object["apiVersion"] != group_version(kind) {
            return Err(bad_request(
                "the kind and apiVersion of an object cannot be patched",
            ));
        }
        Ok(object)
    }

    /// The patched Scale. It has no lists, so a strategic patch of it is a merge patch.
    pub fn apply_to_scale(&self, scale: &Value) -> Result<Value, Failure> {
        self.apply_plain(scale)
    }

    fn apply_plain(&self, original: &Value) -> Result<Value, Failure> {
        let mut object = original.clone();
        match self {
            Patch::Json(patch) => json_patch::patch(&mut object, patch).map_err(|error| {
                let mut failure = Failure::new(
                    422,
                    "Invalid",
                    "the server rejected our request due to an error in our request",
                );
                *failure.details = json!({"causes": [{"message": error.to_string()}]});
                failure
            })?,
            Patch::Merge(patch) | Patch::Strategic(patch) => json_patch::merge(&mut object, patch),
        }
        Ok(object)
    }
}
