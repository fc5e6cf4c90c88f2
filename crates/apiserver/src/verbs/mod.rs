//! What is done with a resource path: one module for each verb.
//!
//! The functions that end in `_in` run inside a write (see [`crate::store::Txn`]), so what they check still holds when
//! they store.

pub mod create;
pub mod delete;
pub mod list;
pub mod patch;
pub mod subresource;
pub mod update;
pub mod watch;
