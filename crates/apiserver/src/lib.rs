//! The embedded Kubernetes API.

pub mod kind;
