//! seccomp: the system calls that this process and the programs that it runs may make; the list is `allowed`.
//!
//! ```text
//!   another architecture ─▶ the process ends      newer than the list ─▶ ENOSYS: libraries fall back
//!   in the list ─▶ allowed, if its arguments are  anything else ─▶ EPERM
//! ```
//!
//! A call that is refused is an error of one operation, which is told. A process that is killed would follow no Service
//! any more, on every node at once when a new library makes a call that nobody has thought of.
#![allow(unsafe_code)]

use libc::{BPF_ABS, BPF_JEQ, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};
use nix::errno::Errno;

use super::Needs;
use crate::error::{Error, Result};

mod allowed;

/// What the arguments of a call must be.
enum Check {
    Anything,
    /// None of these bits in an argument.
    Without {
        argument: u32,
        bits: u32,
    },
    /// An argument is one of these, or else the error is that.
    OneOf {
        argument: u32,
        values: &'static [u32],
        or_else: i32,
    },
    /// An argument is none of these.
    NoneOf {
        argument: u32,
        values: &'static [u32],
    },
    /// The kernel says that it does not know it.
    Unknown,
}

/// EM_… of linux/elf-em.h with the bits of linux/audit.h: 64 bits wide, little-endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// The newest call that was thought of when the list was made: mseal(2) of Linux 6.10.
const NEWEST: u32 = 462;

/// Where things stand in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

/// From now on only what `needs` and everybody needs is allowed; false when this kernel, or this program for an
/// architecture without a list, has no filter.
pub(super) fn only_those_for(needs: &Needs) -> Result<bool> {
    let Some(architecture) = ARCHITECTURE else {
        return Ok(false);
    };
    let mut filter = filter(architecture, &allowed::all(needs));
    let length = filter.len();
    let program = libc::sock_fprog {
        len: u16::try_from(length).map_err(|_| Error::Protocol("too long a filter".into()))?,
        filter: filter.as_mut_ptr(),
    };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0_u32);
    // SAFETY: `program` holds the length and the place of a list that lives until the call is over; the kernel copies it.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &program) };
    match Errno::result(done) {
        Ok(_) => Ok(true),
        // This kernel was built without it.
        Err(Errno::ENOSYS | Errno::EINVAL) => Ok(false),
        Err(error) => Err(Error::call("restrict system calls (seccomp)", error)),
    }
}

/// Asks personality(2) what it is, and changes nothing: everybody may, and it is not in the list.
const ASK_PERSONALITY: libc::c_ulong = 0xffff_ffff;

/// Whether a filter of ours is there already.
pub(super) fn stand() -> bool {
    let zero: libc::c_ulong = 0;
    // SAFETY: this option takes no pointer; without a filter of any kind it tells 0.
    let mode = unsafe { libc::prctl(libc::PR_GET_SECCOMP, zero, zero, zero, zero) };
    match Errno::result(mode) {
        // This kernel was built without it.
        Err(_) => true,
        Ok(0) => ARCHITECTURE.is_none(),
        // SAFETY: the call takes a number.
        Ok(_) => unsafe { libc::personality(ASK_PERSONALITY) == -1 },
    }
}

fn filter(architecture: u32, allowed: &[(libc::c_long, Check)]) -> Vec<libc::sock_filter> {
    let mut list = vec![
        load(ARCHITECTURE_AT),
        jump(BPF_JEQ, architecture, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
        // Calls of x32 are among them.
        jump(BPF_JGT, NEWEST, 0, 1),
        refuse(libc::ENOSYS),
    ];
    for (call, check) in allowed {
        let then = conditions(check);
        // Numbers of calls are small, and so are the lists of conditions; who is not meant goes on behind them.
        let skip = then.len() as u8;
        list.push(jump(BPF_JEQ, *call as u32, 0, skip));
        list.extend(then);
    }
    list.push(refuse(libc::EPERM));
    list
}

/// What is done when the number is right; every way through it ends.
fn conditions(check: &Check) -> Vec<libc::sock_filter> {
    let allow = give(libc::SECCOMP_RET_ALLOW);
    let any = |argument: u32, values: &[u32], found, otherwise| {
        let mut list = vec![load(ARGUMENTS_AT + 8 * argument)];
        for value in values {
            list.extend([jump(BPF_JEQ, *value, 0, 1), found]);
        }
        list.push(otherwise);
        list
    };
    match check {
        Check::Anything => vec![allow],
        Check::Unknown => vec![refuse(libc::ENOSYS)],
        Check::Without { argument, bits } => vec![
            load(ARGUMENTS_AT + 8 * argument),
            jump(BPF_JSET, *bits, 0, 1),
            refuse(libc::EPERM),
            allow,
        ],
        Check::OneOf {
            argument,
            values,
            or_else,
        } => any(*argument, values, allow, refuse(*or_else)),
        Check::NoneOf { argument, values } => any(*argument, values, refuse(libc::EPERM), allow),
    }
}

fn load(offset: u32) -> libc::sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn give(action: u32) -> libc::sock_filter {
    statement(BPF_RET | BPF_K, action)
}

fn refuse(error: i32) -> libc::sock_filter {
    give(libc::SECCOMP_RET_ERRNO | error.cast_unsigned())
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump_by(code, k, 0, 0)
}

fn jump(comparison: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    jump_by(BPF_JMP | comparison | BPF_K, k, jt, jf)
}

/// Codes of classic BPF have 16 bits.
fn jump_by(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}
