//! The userspace data plane: moves the bytes of TCP and the datagrams of UDP between clients and endpoints itself.
//!
//! ```text
//!   client ──▶ portal (kernel rules) ──▶ door ──▶ relay: which frontend? ──▶ Book: treatment ──▶ dial ──▶ endpoint
//!                                         one for each origin                           next one when it fails
//! ```
//!
//! The kernel's half is the portal: who is let in, rejected or dropped is settled there, and a flow that goes on comes
//! to one of three doors ([`portolan_model::Doors`]). The relay asks where the flow was going, looks up what
//! [`portolan_model::decide`] says about that frontend, and dials the next endpoint in turn.
//! [`Userspace`] is the backend of both halves together, [`RelayTarget`] their target. [`Loopback`] is the backend of a
//! relay without a portal, for those who have no privileges.
//! What this crate is not: it knows no rules of Services of its own, and nothing of the kernel's rule sets.

mod backend;
mod book;
mod limits;
mod loopback;
mod order;
mod original;
mod pipe;
mod recent;
mod relay;
mod tally;
mod target;
mod tcp;
mod udp;
pub mod wire;
mod workers;

pub use backend::{Ops, State, Userspace};
pub use limits::{DIAL_TIMEOUTS, DatagramLimits, Limits, SESSION_IDLE, SESSION_IDLE_UNANSWERED};
pub use loopback::{Loopback, LoopbackTarget, Open};
pub use original::{FindOriginal, Unknown};
pub use relay::{CountsOf, Door, Relay, RelayError, listen};
pub use tally::{Count, Counted, Counts};
pub use target::{Carrier, RelayTarget};
pub use tcp::Dial;
