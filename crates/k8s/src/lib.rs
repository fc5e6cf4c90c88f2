//! How Portolan speaks to a Kubernetes API: client set-up, slim wire types, selectors, watches.
//!
//! The wire types hold only the fields that Portolan reads, all optional: what is wrong with an object is for
//! `reflect` to say, not for the decoder. Nothing here knows what a Service means.

pub mod backoff;
pub mod client;
pub mod selector;
pub mod watch;
pub mod wire;

pub use client::{ClientError, client, client_at, client_in, client_with, uses_plugins};
pub use selector::{FieldSelector, Selector, SelectorError};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
pub use k8s_openapi::jiff::Timestamp;
