//! OpenAPI documents of the served kinds, and what their schemas say about an object.

mod definitions;
mod fields;
pub mod lists;
pub mod types;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::kind::Kind;

pub use fields::{decode, unknown_fields};

/// The OpenAPI documents, each built when it is first asked for.
pub struct Documents {
    _kinds: &'static [&'static Kind],
}

impl Documents {
    /// The documents of these kinds.
    pub fn new(kinds: &'static [&'static Kind]) -> Documents {
        Documents { _kinds: kinds }
    }

    /// OpenAPI v2 as JSON.
    pub fn v2_json(&self) -> Bytes {
        Bytes::from_static(b"{}")
    }

    /// OpenAPI v2 as `com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub fn v2_proto(&self) -> Bytes {
        Bytes::new()
    }

    /// The index at `/openapi/v3`.
    pub fn v3_index(&self) -> Value {
        json!({"paths": {}})
    }

    /// The OpenAPI v3 document at `/openapi/v3/PATH`, e.g. `apis/apps/v1`, as JSON.
    pub fn v3(&self, _path: &str) -> Option<Bytes> {
        None
    }
}
