//! From the object that clang made to programs that stand at a cgroup, pinned with their maps.

use std::fs::File;
use std::path::Path;

use aya::programs::cgroup_sock::CgroupSockLink;
use aya::programs::cgroup_sock_addr::CgroupSockAddrLink;
use aya::programs::links::{CgroupAttachMode, FdLink, LinkError};
use aya::programs::{CgroupSock, CgroupSockAddr, Program, ProgramError};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use portolan_model::ApplyError;
use portolan_model::hash::jhash;

use super::maps::LIMITS;
use super::pins::{MAPS, Pins, link};
use super::refused;

/// `ebpf/sockets.c`, as the build script has compiled it.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.o"));

/// Programs that are of no use without each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// getpeername(2) tells the Service (Linux 5.8).
    Peername,
    /// Datagrams of sockets that are not connected (Linux 5.2).
    Datagrams,
    /// Sockets of UDP are known until they are closed (Linux 5.9).
    Release,
    /// connect(2).
    Connect,
}

impl Part {
    /// In this order they come to stand: answers before questions.
    pub(super) const ALL: [Part; 4] = [
        Part::Peername,
        Part::Datagrams,
        Part::Release,
        Part::Connect,
    ];

    /// Their names in ebpf/sockets.c, in the same order.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Part::Peername => &["getpeername4", "getpeername6"],
            Part::Datagrams => &["recvmsg4", "recvmsg6", "sendmsg4", "sendmsg6"],
            Part::Release => &["released"],
            Part::Connect => &["connect4", "connect6"],
        }
    }

    /// Whether a kernel may lack it.
    pub(super) fn is_spare(self) -> bool {
        self != Part::Connect
    }

    /// What is not done then, for people.
    pub(super) fn without(self) -> &'static str {
        match self {
            Part::Peername => "getpeername(2) tells the endpoint and not the Service",
            Part::Datagrams => "datagrams go through the rules",
            Part::Release => "connected sockets of UDP go through the rules",
            Part::Connect => "nothing is done at sockets",
        }
    }
}

/// Other programs have another one.
pub(super) fn digest() -> u64 {
    let half = |seed| u64::from(jhash(OBJECT, seed));
    half(0) << 32 | half(1)
}

/// Loads the programs, attaches them to `cgroup` and pins everything into the empty place of `pins`. What the kernel
/// lacks that can be spared is left out.
pub(super) fn load(pins: &Pins, cgroup: &Path) -> Result<(), ApplyError> {
    let opened = File::open(cgroup);
    let cgroup =
        opened.map_err(|error| refused(format!("open the cgroup {}", cgroup.display()), &error))?;
    match attempt(pins, &cgroup, true) {
        Ok(()) => Ok(()),
        // A kernel before 5.18 cannot refuse with an error of ours; then the rules do.
        Err(_) => {
            pins.remove()?;
            attempt(pins, &cgroup, false)
        }
    }
}

fn attempt(pins: &Pins, cgroup: &File, can_refuse: bool) -> Result<(), ApplyError> {
    let can_refuse = u8::from(can_refuse);
    let mut loader = EbpfLoader::new();
    for (name, most) in LIMITS {
        loader.map_max_entries(name, most);
    }
    loader.override_global("can_refuse", &can_refuse, true);
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
    for part in Part::ALL {
        match stand(&mut object, pins, part, cgroup) {
            Err(_) if part.is_spare() => pins.remove_part(part)?,
            done => done?,
        }
    }
    Ok(())
}

fn stand(object: &mut Ebpf, pins: &Pins, part: Part, cgroup: &File) -> Result<(), ApplyError> {
    for name in part.programs() {
        let program = object.program_mut(name);
        let program = program.ok_or_else(|| missing("program", name))?;
        let stands = attach(program, cgroup).map_err(|error| told("attach", name, &error))?;
        let stands = stands.map_err(|error| refused(format!("keep the program {name}"), &error))?;
        let pinned = stands.pin(pins.path(&link(name)));
        pinned.map_err(|error| refused(format!("pin the program {name}"), &error))?;
    }
    Ok(())
}

/// The kernel checks a program when it is loaded. A link always stands beside those of others.
fn attach(program: &mut Program, cgroup: &File) -> Result<Result<FdLink, LinkError>, ProgramError> {
    if let Ok(program) = <&mut CgroupSock>::try_from(&mut *program) {
        program.load()?;
        let id = program.attach(cgroup, CgroupAttachMode::Single)?;
        let link: CgroupSockLink = program.take_link(id)?;
        return Ok(link.try_into());
    }
    let program: &mut CgroupSockAddr = program.try_into()?;
    program.load()?;
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    let link: CgroupSockAddrLink = program.take_link(id)?;
    Ok(link.try_into())
}

pub(super) fn missing(what: &str, name: &str) -> ApplyError {
    ApplyError {
        doing: format!("load the socket programs: no {what} {name}"),
        words: "this build is broken".into(),
    }
}

/// With what the kernel's verifier says, if it has refused the program.
pub(super) fn told(doing: &str, name: &str, error: &ProgramError) -> ApplyError {
    let mut told = refused(format!("{doing} the program {name}"), error);
    if let ProgramError::LoadError { verifier_log, .. } = error {
        told.words = format!("{}\n{verifier_log}", told.words);
    }
    told
}
