//! The table of served kinds: one file for each kind, and what they share.
//!
//! A kind is data and pure functions over JSON objects (see [`crate::kind::Kind`]): columns, defaults, what a write may
//! change, validation. Nothing here knows of HTTP, of the store or of other objects.

pub mod age;
mod check;
mod config_map;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod ingress;
mod ingress_class;
mod lease;
mod namespace;
mod node;
mod pod;
mod read;
mod replica_set;
mod secret;
mod service;
mod spec_status;
mod workload;

use crate::kind::Kind;

/// Every kind that is served, in the order of discovery.
pub fn kinds() -> &'static [&'static Kind] {
    &KINDS
}

static KINDS: [&Kind; 14] = [
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &namespace::KIND,
    &node::KIND,
    &pod::KIND,
    &secret::KIND,
    &service::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &lease::KIND,
    &endpoint_slice::KIND,
    &ingress::KIND,
    &ingress_class::KIND,
];
