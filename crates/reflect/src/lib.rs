//! Wire objects become `model`: the one place where loose fields turn into types that cannot be wrong.
//!
//! ```text
//!   watch Services ───────┐
//!   watch EndpointSlices ─┼─▶ Tracker (pure) ──▶ Reflection { Snapshot, problems } ──▶ watch channel
//!   watch own Node ───────┤
//!   interface addresses ──┘
//! ```
//!
//! [`Tracker`] does no I/O; [`run`] feeds it. What cannot be understood becomes a Problem of that Service, never a
//! panic, and never blocks another Service.

mod address;
mod annotation;
pub mod dns;
mod names;
mod node;
mod problems;
mod run;
mod service;
mod slice;
mod tracker;

pub use node::{DetectLocal, NodeOptions, NodePortAddresses};
pub use problems::Problems;
pub use run::{Options, run};
pub use tracker::{Reflection, Tracker};
