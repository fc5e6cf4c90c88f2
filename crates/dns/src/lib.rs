//! Names: answers about the Services of a cluster, and the servers that give them.
//!
//! ```text
//!   names::Change ──▶ zone::Index ──swap──▶ zone::Zone (a value) ──answer(query)──┐
//!                                                                                 ▼
//!   socket ──▶ server ──▶ wire::Query ──▶ Answer (server blocks, plugins) ──▶ wire::Builder ──▶ socket
//! ```
//!
//! [`wire`] is the format of messages, without allocation on the way of a query. [`zone`] is what we know ourselves.
//! [`server`] moves messages between sockets and whoever implements [`server::Answer`]; it knows nothing of names.
//! [`corefile`] reads what people have configured, [`chain`] does it, with [`upstream`] for the names of others and
//! [`cache`] for their answers, and [`site`] is the answer to every query at one address.

pub mod cache;
pub mod chain;
pub mod corefile;
mod log;
pub mod message;
pub mod metrics;
pub mod notify;
pub mod server;
pub mod site;
pub mod upstream;
pub mod wire;
pub mod zone;
