//! The real binary, with the API and with nodes around it.
// Helpers of tests are tests, which clippy sees only in functions with #[test].
#![allow(clippy::unwrap_used)]

mod agent;
mod charts;
mod clients;
mod cluster;
mod dns;
mod gateway;
mod ipvs;
mod modes;
mod nearby;
mod node;
mod observer;
mod place;
mod privilege;
mod rollout;
mod server;
mod switch;
mod userspace;
