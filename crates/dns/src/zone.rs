//! What a cluster's names say: the records of its Services, endpoints and pods.
//!
//! ```text
//!   names::Change ──▶ Index (one owner) ──▶ Zone (a value, swapped as a whole) ──answer──▶ Outcome
//! ```
//!
//! The records are those of the Kubernetes DNS specification 1.1.0 with the extensions of CoreDNS' plugin `kubernetes`;
//! what differs stands in docs/dns.md. Whether a name exists is exact: a name that has a record or a child is no
//! NXDOMAIN (RFC 8020, RFC 2308).

mod answer;
mod asked;
mod config;
mod dashed;
mod external;
mod index;
mod live;
mod records;
mod search;
mod service;
mod store;
mod transfer;
mod write;

pub use config::{Config, PodNames, TTL_DEFAULT};
pub use external::External;
pub use index::Index;
pub use live::Live;
pub use search::{candidates, is_first_of};
pub use store::Zone;
pub use transfer::Transfer;

use crate::wire::Name;

/// What was found; but for [`Outcome::NotOurs`] the buffer holds a whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The name is in none of the zones; the buffer holds nothing of worth.
    NotOurs,
    /// NOERROR, with or without records.
    Answered,
    /// The name does not exist (NXDOMAIN). Somebody else may know it (`fallthrough`).
    Denied,
    /// Not everything has been listed yet, so nobody knows whether the name exists (SERVFAIL).
    NotYet,
    /// The message ends with a CNAME (ExternalName) whose target is in none of the zones: the records of this name
    /// should follow.
    Elsewhere(Name),
    /// The query is refused (REFUSED): another class, or a transfer where there may be none.
    Refused,
}
