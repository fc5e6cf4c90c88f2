//! HTTP from outside: which backend a request goes to, by Ingress objects, and the server that takes it there.
//!
//! ```text
//!   watches ─▶ World ─▶ ingress::build (pure) ─▶ Table, certificates, Problems ─┐
//!                       reflect ─▶ Snapshot ─▶ Rosters (pure) ──────────────────┴─▶ Live ─▶ server
//!   request: host, path, method, headers ─▶ Table::find ─▶ Target { backends, filters } ─▶ an endpoint
//! ```
//!
//! The route model ([`Route`], [`Target`]) is not Ingress' own: Gateway API can be turned into the same values. A
//! [`Table`] is never changed: another one takes its place as a whole.

mod balance;
pub mod check;
pub mod endpoint_tls;
mod follow;
mod guard;
mod host;
pub mod ingress;
mod path;
pub mod policy;
mod problem;
mod proxy_protocol;
mod quick;
mod roster;
mod route;
pub mod server;
mod status;
mod sticky;
mod table;
pub mod tally;
pub mod traffic;

pub use follow::{Followed, News, World, follow};
pub use host::{HOST_BYTES_MAX, Host, HostError, request_host};
pub use path::{PathError, normalize};
pub use problem::{ObjectName, Problem};
pub use roster::{Roster, Rosters};
pub use route::{
    Backend, Conditions, Destination, HostClaim, Origin, PathMatch, Pattern, REGEX_BYTES_MAX, Rank,
    Request, Route, Target,
};
pub use status::{StatusChange, apply_status, status_changes};
pub use table::{Lost, Row, Table};
