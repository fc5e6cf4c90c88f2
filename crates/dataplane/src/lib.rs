//! The kernel data planes: compile, diff and trace. Pure; the I/O half is `portolan-kernel`.
//!
//! [`nftables`] is the default one, [`iptables`] the one with the chains of kube-proxy; [`ipvs`] and [`ebpf`] stand on the
//! tables of nftables mode: they hand flows to the kernel's virtual servers, or decide at sockets.

pub mod ebpf;
pub mod iptables;
pub mod ipvs;
pub mod nftables;
