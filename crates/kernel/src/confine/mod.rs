//! A process gives up for ever what it does not need: capabilities, writing to files, system calls.
//!
//! Each of the three holds for the calling thread, for those that it starts later and for the programs that it runs, so
//! this comes before the first of them. What a kernel does not offer is left out and told; what it offers and refuses is
//! an error.

mod calls;
mod capabilities;
mod writes;

use std::path::PathBuf;

pub use capabilities::{Capability, has, keep_only};

use crate::error::Result;

/// What a process keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Capabilities that it keeps as far as it has them; programs that it runs get them too.
    pub capabilities: Vec<Capability>,
    /// Files and directories below which it may write; those that do not exist are left out.
    pub writable: Vec<PathBuf>,
    /// Whether it may run other programs.
    pub programs: bool,
    /// Whether it may load programs into the kernel (bpf(2)).
    pub bpf: bool,
    /// Whether it may enter other network namespaces (setns(2)).
    pub namespaces: bool,
}

/// What holds from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// The capabilities that are left.
    pub capabilities: Vec<Capability>,
    /// Whether the kernel keeps it from writing elsewhere (Landlock, Linux 5.13).
    pub writes: bool,
    /// Whether the kernel keeps it to the system calls that it needs (seccomp).
    pub calls: bool,
}

/// Gives up all else.
pub fn confine(needs: &Needs) -> Result<Confined> {
    // First of all, because the others need what it sets: no_new_privs.
    let capabilities = capabilities::keep_only(&needs.capabilities)?;
    let writes = writes::only_below(&needs.writable)?;
    let calls = calls::only_those_for(needs)?;
    Ok(Confined {
        capabilities,
        writes,
        calls,
    })
}

/// Whether this process can do no more than that already, because it has been confined before and runs itself anew: each of
/// the three is tried, as far as this kernel has it.
pub fn stands(needs: &Needs) -> bool {
    capabilities::has_no_more_than(&needs.capabilities) && writes::stand() && calls::stand()
}

#[cfg(test)]
mod tests;
