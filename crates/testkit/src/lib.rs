//! Scenario files and the proofs that are run over them (docs/testing.md), fakes, and small networks to test in.
//!
//! ```text
//!   scenarios/AREA/NAME.yaml ──▶ Scenario ──▶ Snapshot ──▶ proofs: oracle, traces, faulty targets, the real kernel
//! ```
//!
//! Nobody depends on this crate but tests and the benchmark.

pub mod cluster;
pub mod dns;
pub mod fake_ebpf;
pub mod fake_iptables;
pub mod fake_ipvs;
pub mod fake_nft;
pub mod faulty;
pub mod live;
pub mod modes;
pub mod program;
pub mod pure;
pub mod random;
pub mod scenario;
pub mod userspace;
pub mod wait;
pub mod world;

pub use cluster::Cluster;
pub use scenario::{Probe, Scenario, Step};
