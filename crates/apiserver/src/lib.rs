//! The embedded Kubernetes API.

pub mod kind;
pub mod kinds;
pub mod merge;
pub mod openapi;
