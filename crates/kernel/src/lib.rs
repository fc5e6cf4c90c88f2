//! Everything that talks to the Linux kernel: namespaces, links, addresses, routes, sysctls, mounts and processes
//! for the lab and the tests, and (modules `nft`, `iptables`, `ipvs` and `conntrack`) the targets and the flows.
//!
//! This is the only crate with `unsafe`; each use says why it is sound.
//! Nothing here decides anything about Services.

pub mod cgroup;
pub mod command;
pub mod confine;
pub mod conntrack;
pub mod ebpf;
pub mod error;
pub mod fdpass;
pub mod inherit;
pub mod iptables;
pub mod ipvs;
pub mod isolate;
pub mod link;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod netns;
mod nfnetlink;
pub mod nft;
pub mod offload;

pub mod process;
pub mod resets;
pub mod sockets;
pub mod sysctl;
pub mod topology;
pub mod tun;

pub use conntrack::Conntrack;
pub use ebpf::EbpfTarget;
pub use error::{Error, Result};
pub use iptables::IptablesTarget;
pub use ipvs::IpvsTarget;
pub use link::Links;
pub use netns::Netns;
pub use nft::NftTarget;
pub use resets::Resets;
