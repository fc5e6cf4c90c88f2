//! The vocabulary of Portolan and the oracle of Service semantics.
//!
//! ```text
//!   Snapshot (a value) ──route(packet)──▶ Verdict        the oracle
//!      │
//!      └─ ServicePort ──decide(node)──▶ Treatment…       what a data plane renders
//! ```
//!
//! A [`Snapshot`] says what stands behind every Service port as seen from one node.
//! [`decide`] turns one port into [`Treatment`]s, one for each address it answers on; data planes render them.
//! [`Snapshot::route`] says what must happen to the first packet of a flow; every data plane must agree with it.
//! This crate does no I/O, spawns nothing, reads no clock and draws no random number.

mod backend;
pub mod balance;
pub mod counts;
mod decide;
mod door;
pub mod hash;
pub mod health;
mod name;
pub mod names;
mod node;
pub mod node_checks;
mod overlay;
mod packet;
mod packing;
mod problem;
pub mod reset;
mod route;
mod scheduler;
mod service;
pub mod slow_start;
mod snapshot;
mod stale;
pub mod sweep;
pub mod sync;

pub use backend::{ApplyError, Backend, Target};
pub use balance::{Balance, Choices};
pub use decide::{Action, Treatment, decide, upstreams};
pub use door::Doors;
pub use name::{Families, Family, PortKey, Protocol, ServiceName};
pub use node::{LocalPods, NodeFacts};
pub use overlay::{Overlay, newly_ejected};
pub use packet::{Origin, Packet, Verdict};
pub use packing::packed;
pub use problem::Problem;
pub use scheduler::Scheduler;
pub use service::{
    Affinity, Endpoint, Frontend, FrontendKind, Hints, Listener, Place, ServicePort, TrafficPolicy,
};
pub use slow_start::SlowStart;
pub use snapshot::Snapshot;
pub use stale::{Flow, Sweep};
pub use sweep::Sweeper;
pub use sync::Sync;
