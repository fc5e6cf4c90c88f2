//! The front door: which backend a request goes to, by Ingress objects.
//!
//! ```text
//!   Ingress, IngressClass, Service, Secret ─▶ ingress::build (pure) ─▶ Routing { Table, certificates, problems }
//!   request: host, path, method, headers   ─▶ Table::find           ─▶ Target { backends, filters }
//! ```
//!
//! The route model ([`Route`], [`Target`]) is not Ingress' own: Gateway API can be turned into the same values. A
//! [`Table`] is never changed: another one takes its place as a whole. Nothing here does I/O.

mod host;
pub mod ingress;
mod path;
mod problem;
mod route;
mod table;

pub use host::{HOST_BYTES_MAX, Host, HostError, request_host};
pub use path::{PathError, normalize};
pub use problem::{ObjectName, Problem};
pub use route::{
    Backend, Conditions, Destination, Filter, HostClaim, Origin, PathMatch, Pattern,
    REGEX_BYTES_MAX, Rank, Request, Route, Target,
};
pub use table::{Lost, Row, Table};
