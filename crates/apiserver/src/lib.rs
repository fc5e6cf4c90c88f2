//! The embedded Kubernetes API.
//!
//! ```text
//!  kubectl ──TLS──▶ http ──▶ verbs ──▶ store (one writer, group commit) ──▶ disk
//!                     │        │          └──▶ event log ──▶ watches, gc, namespaces
//!                     │        └─ kinds (defaults, validation, columns), admission, merge
//!                     └─ auth, discovery, openapi
//! ```

mod api;
pub mod auth;
mod bootstrap;
mod default_class;
mod discovery;
mod gc;
mod http;
pub mod kind;
pub mod kinds;
pub mod merge;
mod namespaces;
mod object;
pub mod openapi;
mod protobuf;
mod selector;
mod server;
mod status;
mod store;
mod verbs;

pub use bootstrap::KubernetesService;
pub use default_class::DefaultIngressClass;
pub use server::{Config, Error, Server, start};
