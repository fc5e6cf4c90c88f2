//! Parts of tests that run the real binary.

pub mod agent;
pub mod observer;
pub mod server;
