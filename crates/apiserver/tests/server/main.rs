//! A whole server on the loopback, driven by the real kubectl.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test by panicking"
)]

mod cluster;
mod ingress;
mod kubectl;
mod watch;
