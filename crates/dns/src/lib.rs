//! Names: answers about the Services of a cluster, and the servers that give them.
//!
//! ```text
//!   names::Change ──▶ zone::Index ──swap──▶ zone::Zone (a value) ──answer(query)──┐
//!                                                                                 ▼
//!   socket ──▶ server ──▶ wire::Query ──▶ Answer (server blocks, plugins) ──▶ wire::Builder ──▶ socket
//! ```
//!
//! [`wire`] is the format of messages, without allocation on the way of a query. [`zone`] is what we know ourselves.
//! [`corefile`] reads what people have configured. [`server`] moves messages between sockets and whoever implements [`server::Answer`]; it knows nothing of names.

pub mod cache;
pub mod corefile;
pub mod message;
pub mod server;
pub mod upstream;
pub mod wire;
pub mod zone;
