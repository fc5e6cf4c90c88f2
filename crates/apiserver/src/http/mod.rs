//! The way of a request: connection → identity → path → verb → answer.

pub mod accept;
mod answer;
pub mod body;
mod handle;
mod log;
pub mod path;
pub mod query;
mod resource;
mod serve;
pub mod show;

pub use serve::{Acceptor, serve};
