//! The kernel data planes: compile, diff and trace. Pure; the I/O half is `portolan-kernel`.
//!
//! [`nftables`] is the default one; [`iptables`] makes the chains that kube-proxy makes.

pub mod ebpf;
pub mod iptables;
pub mod nftables;
