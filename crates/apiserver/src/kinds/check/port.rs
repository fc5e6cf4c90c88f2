//! Port numbers and names.

use serde_json::Value;

use super::{all, name};
use crate::kind::FieldError;

/// Protocols of ports.
pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

const RANGE: &str = "must be between 1 and 65535, inclusive";

/// A port number; absent reads as 0, which is none.
pub fn number(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    let number = value.as_i64().unwrap_or_default();
    if !(1..=65_535).contains(&number) {
        errors.push(FieldError::invalid(field, number, RANGE));
    }
}

/// A port number, or the name of a container port.
pub fn number_or_name(field: &str, value: &Value, errors: &mut Vec<FieldError>) {
    match value.as_str() {
        Some(text) => all(field, text, name::port_name(text), errors),
        None => number(field, value, errors),
    }
}
