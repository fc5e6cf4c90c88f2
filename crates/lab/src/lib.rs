//! Whole clusters on one machine: nodes and pods as network namespaces, containers as plain processes.
//!
//! The supervisor (PID 1 of its own PID namespace) builds the network and keeps the API server and one agent per node
//! running; an agent is a small kubelet; a shim per pod holds the pod's namespaces and outlives the agent.
//! Data flow: API → agent → shim → containers, and back as pod status, events and logs.
//! Nothing of the machine is changed: everything happens in namespaces that end with the supervisor.

pub mod agent;
pub mod apply;
pub mod client;
pub mod dir;
pub mod error;
pub mod exec;
pub mod fabric;
pub mod gateway;
pub mod names;
pub mod plan;
pub mod reaper;
pub mod settle;
pub mod shim;
pub mod supervisor;

pub use error::{Error, Result};
