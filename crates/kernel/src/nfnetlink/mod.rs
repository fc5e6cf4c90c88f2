//! Netlink towards netfilter, for the subsystems that we speak to: nf_tables (module `nft`) and conntrack.
//!
//! Messages and attributes as bytes, and a socket that sends them and collects the answers. What they mean is known
//! by those modules alone.

pub(crate) mod socket;
pub(crate) mod wire;
