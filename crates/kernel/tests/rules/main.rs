//! What the rules and conntrack do to real connections, on the kernel.
#![allow(clippy::unwrap_used)] // A test that can't set up its network has failed.

mod bed;
mod conntrack;
mod counts;
mod draining;
mod packets;
mod resets;
mod signs;
