//! The kernel data planes: compile, diff and trace. Pure; the I/O half is `portolan-kernel`.
//!
//! [`nftables`] is the default one.

pub mod ebpf;
pub mod nftables;
