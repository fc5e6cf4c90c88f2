//! Capabilities of this thread, and of the threads and programs that come after it.

#![allow(unsafe_code)]

use crate::error::{Error, Result};

/// A capability, as capabilities(7) numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService = 10,
    /// Rules, routes, links, conntrack, settings of the network.
    NetAdmin = 12,
    /// Raw sockets.
    NetRaw = 13,
    /// Among much else: to enter namespaces.
    SysAdmin = 21,
    /// Programs in the kernel that calculate with pointers.
    Perfmon = 38,
    /// Programs and maps in the kernel.
    Bpf = 39,
}

impl Capability {
    /// As capabilities(7) writes it.
    pub fn name(self) -> &'static str {
        match self {
            Capability::NetBindService => "CAP_NET_BIND_SERVICE",
            Capability::NetAdmin => "CAP_NET_ADMIN",
            Capability::NetRaw => "CAP_NET_RAW",
            Capability::SysAdmin => "CAP_SYS_ADMIN",
            Capability::Perfmon => "CAP_PERFMON",
            Capability::Bpf => "CAP_BPF",
        }
    }
}

/// Kernels number capabilities from 0 to this at most: there are two words of 32 bits for them.
const LAST_MAX: libc::c_ulong = 63;

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two words of 32 bits.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all capabilities but these, and the way back to them: programs that this one runs have no more either, also
/// if they are another user's (no_new_privs). Those of `wanted` that it has not are no mistake: what needs one will say so.
/// Returns those that it has.
pub fn keep_only(wanted: &[Capability]) -> Result<Vec<Capability>> {
    let mask = mask(wanted);
    for number in 0..=LAST_MAX {
        let kept = mask[number as usize / 32] & (1 << (number % 32)) != 0;
        // Whoever may not give up those of others has none to give.
        let _ = if kept {
            Ok(())
        } else {
            prctl(libc::PR_CAPBSET_DROP, number, 0)
        };
    }
    let all = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    prctl(libc::PR_CAP_AMBIENT, all, 0)
        .map_err(|e| Error::call("clear ambient capabilities", e))?;
    let mut words = read()?;
    for (words, mask) in words.iter_mut().zip(mask) {
        words.permitted &= mask;
        words.effective = words.permitted;
        words.inheritable = words.permitted;
    }
    write(&words)?;
    let has = |capability: &Capability| {
        let number = *capability as usize;
        words[number / 32].permitted & (1 << (number % 32)) != 0
    };
    let kept: Vec<Capability> = wanted.iter().copied().filter(has).collect();
    for capability in &kept {
        let raise = libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong;
        let raised = prctl(libc::PR_CAP_AMBIENT, raise, *capability as libc::c_ulong);
        raised.map_err(|e| Error::call("hand on a capability", e))?;
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map_err(|e| Error::call("refuse new privileges", e))?;
    Ok(kept)
}

/// Whether the calling thread has these at most, and cannot get others.
pub(super) fn has_no_more_than(wanted: &[Capability]) -> bool {
    let mask = mask(wanted);
    let within = |words: [Words; 2]| {
        let all = words.iter().zip(mask);
        all.clone()
            .all(|(words, mask)| words.permitted & !mask == 0)
    };
    let zero: libc::c_ulong = 0;
    // SAFETY: this option takes numbers and no pointers.
    let refuses = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, zero, zero, zero, zero) } == 1;
    refuses && read().is_ok_and(within)
}

fn mask(wanted: &[Capability]) -> [u32; 2] {
    let mut mask = [0; 2];
    for capability in wanted {
        mask[*capability as usize / 32] |= 1 << (*capability as usize % 32);
    }
    mask
}

/// Whether the calling thread has it.
pub fn has(capability: Capability) -> bool {
    let number = capability as usize;
    read().is_ok_and(|words| words[number / 32].effective & (1 << (number % 32)) != 0)
}

fn prctl(
    option: libc::c_int,
    second: libc::c_ulong,
    third: libc::c_ulong,
) -> std::result::Result<(), nix::errno::Errno> {
    let zero: libc::c_ulong = 0;
    // SAFETY: these options take numbers and no pointers.
    let result = unsafe { libc::prctl(option, second, third, zero, zero) };
    nix::errno::Errno::result(result).map(drop)
}

/// Those of the calling thread.
fn read() -> Result<[Words; 2]> {
    let header = header();
    let mut words = [Words::default(); 2];
    // SAFETY: version 3 fills two structs of three words, which is what `words` is.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, words.as_mut_ptr()) };
    nix::errno::Errno::result(result).map_err(|e| Error::call("read our capabilities", e))?;
    Ok(words)
}

fn write(words: &[Words; 2]) -> Result<()> {
    let header = header();
    // SAFETY: version 3 reads two structs of three words, which is what `words` is.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, words.as_ptr()) };
    let done = nix::errno::Errno::result(result).map(drop);
    done.map_err(|e| Error::call("give up capabilities", e))
}

fn header() -> Header {
    Header {
        version: VERSION_3,
        pid: 0,
    }
}
