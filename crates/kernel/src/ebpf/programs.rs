//! From the object that clang made to programs that stand at a cgroup, pinned with their maps.

use std::fs::File;
use std::path::Path;

use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::links::{CgroupAttachMode, FdLink, LinkError};
use aya::programs::{CgroupSockAddr, ProgramError};
use aya::{EbpfLoader, include_bytes_aligned};
use portolan_model::ApplyError;
use portolan_model::hash::jhash;

use super::maps::LIMITS;
use super::pins::{MAPS, PROGRAMS, Pins, link};
use super::refused;

/// `ebpf/sockets.c`, as the build script has compiled it.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.o"));

/// Other programs have another one.
pub(super) fn digest() -> u64 {
    let half = |seed| u64::from(jhash(OBJECT, seed));
    half(0) << 32 | half(1)
}

/// Loads the programs, attaches them to `cgroup` and pins everything into the empty place of `pins`.
pub(super) fn load(pins: &Pins, cgroup: &Path) -> Result<(), ApplyError> {
    let opened = File::open(cgroup);
    let cgroup =
        opened.map_err(|error| refused(format!("open the cgroup {}", cgroup.display()), &error))?;
    let mut loader = EbpfLoader::new();
    for (name, most) in LIMITS {
        loader.map_max_entries(name, most);
    }
    let object = loader.load(OBJECT);
    let mut object = object.map_err(|error| {
        refused(
            "load the socket programs (eBPF mode needs CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CAP_BPF)",
            &error,
        )
    })?;
    pins.make()?;
    for name in MAPS {
        let map = object.map_mut(name).ok_or_else(|| missing("map", name))?;
        let pinned = map.pin(pins.path(name));
        pinned.map_err(|error| refused(format!("pin the map {name}"), &error))?;
    }
    for name in PROGRAMS {
        let program = object.program_mut(name);
        let program = program.ok_or_else(|| missing("program", name))?;
        let program: &mut CgroupSockAddr = program
            .try_into()
            .map_err(|error: ProgramError| told("find", name, &error))?;
        let stands = attach(program, &cgroup).map_err(|error| told("attach", name, &error))?;
        let stands: Result<FdLink, LinkError> = stands.try_into();
        let stands = stands.map_err(|error| refused(format!("keep the program {name}"), &error))?;
        let pinned = stands.pin(pins.path(&link(name)));
        pinned.map_err(|error| refused(format!("pin the program {name}"), &error))?;
    }
    Ok(())
}

/// The kernel checks a program when it is loaded.
fn attach(program: &mut CgroupSockAddr, cgroup: &File) -> Result<CgroupSockAddrLink, ProgramError> {
    program.load()?;
    // A link always stands beside those of others.
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    program.take_link(id)
}

fn missing(what: &str, name: &str) -> ApplyError {
    ApplyError {
        doing: format!("load the socket programs: no {what} {name}"),
        words: "this build is broken".into(),
    }
}

/// With what the kernel's verifier says, if it has refused the program.
fn told(doing: &str, name: &str, error: &ProgramError) -> ApplyError {
    let mut told = refused(format!("{doing} the program {name}"), error);
    if let ProgramError::LoadError { verifier_log, .. } = error {
        told.words = format!("{}\n{verifier_log}", told.words);
    }
    told
}
