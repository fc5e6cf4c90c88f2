//! The eBPF target: programs at the sockets of a node, above the rules of nftables mode.
//!
//! ```text
//!   bpffs  PINS/NAMESPACE/PROGRAMS-CGROUP/  services endpoints node_port_ips …   maps
//!                                           connect4_link connect6_link …       programs that stand at the cgroup
//!   Ops ──rules──▶ NftTarget, then ──sockets──▶ maps, one element after the other, then ──outside──▶ maps of [`tc`]
//! ```
//!
//! What is pinned lives on without us, so an agent that dies changes nothing. The directory is named by a hash of the
//! programs and by the cgroup: a newer agent with other programs makes a directory of its own, and takes the old one
//! away when its programs stand, after it has taken over what those remember of sockets. Between the two, sockets that
//! connect meet the rules, which stand all the time.

mod maps;
mod namespaces;
mod notes;
mod pins;
mod programs;
mod tc;

use std::path::PathBuf;

use portolan_dataplane::ebpf::{Ebpf, Ops, State, adopt};
use portolan_model::{ApplyError, Target};

use crate::nft::NftTarget;
use maps::Maps;
pub use notes::{Notes, Outcomes};
use pins::Pins;
pub use pins::place;
use programs::Part;
use tc::AtDevices;
pub use tc::{Devices, Outcomes as OutsideOutcomes, sweep};

/// Where the programs of one node are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// A directory of the cgroup2 hierarchy: sockets that are made by processes in it, or below it, are ours.
    pub cgroup: PathBuf,
    /// A directory of a bpffs that is ours alone, with one for each network namespace that is a node.
    pub pins: PathBuf,
    /// A directory in which the network namespaces of pods are shown as files.
    pub namespaces: PathBuf,
    /// Where traffic from outside comes and goes.
    pub devices: Devices,
    /// Whether XDP carries what it can of that, where drivers can.
    pub xdp: bool,
}

impl Default for Location {
    /// All processes of the machine.
    fn default() -> Self {
        Location {
            cgroup: pins::cgroup_root(),
            pins: "/sys/fs/bpf/portolan".into(),
            namespaces: "/run/netns".into(),
            devices: Devices::default(),
            xdp: false,
        }
    }
}

/// The programs and the rules of one network namespace.
pub struct EbpfTarget {
    location: Location,
    rules: NftTarget,
    pins: Pins,
    maps: Maps,
    notes: Notes,
    outside: AtDevices,
}

impl EbpfTarget {
    /// For the network namespace that the calling thread is in, which counts as the node's. Finds the programs of a
    /// former process, or loads them. Needs CAP_NET_ADMIN and CAP_BPF.
    pub fn open(location: &Location) -> Result<Self, ApplyError> {
        let rules = NftTarget::open()?;
        let (pins, maps) = stand(location)?;
        let notes = Notes::open(
            &pins,
            pins::netns_cookie()?,
            &location.namespaces,
            &location.pins,
        )?;
        for other in pins.others()? {
            Part::ALL
                .into_iter()
                .try_for_each(|part| other.remove_part(part))?;
            maps::inherit(&other, &pins);
            other.remove()?;
        }
        Ok(EbpfTarget {
            outside: AtDevices::open(&location.pins, &location.devices, location.xdp),
            location: location.clone(),
            rules,
            pins,
            maps,
            notes,
        })
    }

    /// What the programs note about sockets, also when others have taken their place.
    pub fn notes(&self) -> Notes {
        self.notes.clone()
    }

    /// What the programs have done so far.
    pub fn outcomes(&self) -> Result<Outcomes, ApplyError> {
        self.notes.outcomes()
    }

    /// What this kernel lacks, and what the rules do therefore.
    pub fn lacks(&self) -> Vec<&'static str> {
        let parts = Part::ALL.into_iter().filter(|part| !self.pins.has(*part));
        let mut words: Vec<&str> = parts.map(Part::without).collect();
        if words.is_empty() && !self.notes.has_datagrams() {
            words.push("no INET_DIAG_DESTROY, so connected sockets of UDP go through the rules");
        }
        words
    }

    /// What the programs at devices have done so far.
    pub fn outside_outcomes(&self) -> Result<OutsideOutcomes, ApplyError> {
        self.outside.outcomes()
    }

    /// For another mode that takes over: as [`EbpfTarget::remove`], but programs stay that translate flows which go on.
    /// No other flow begins there.
    pub fn retire(location: &Location) -> Result<(), ApplyError> {
        tc::retire(&location.pins)?;
        pins::remove_all(&location.pins)
    }

    /// Takes away all programs and maps of the network namespace that the calling thread is in; nothing happens if
    /// there are none. The rules of nftables mode stay, and so do connections.
    pub fn remove(location: &Location) -> Result<(), ApplyError> {
        tc::remove_all(&location.pins)?;
        pins::remove_all(&location.pins)
    }
}

fn stand(location: &Location) -> Result<(Pins, Maps), ApplyError> {
    let pins = Pins::at(location, programs::digest())?;
    if !pins.are_whole() {
        pins.remove()?;
        programs::load(&pins, &location.cgroup)?;
    }
    let maps = Maps::open(&pins)?;
    Ok((pins, maps))
}

impl Target<Ebpf> for EbpfTarget {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        self.rules.apply(&ops.rules)?;
        for op in &ops.sockets {
            self.maps.apply(op)?;
        }
        self.outside.apply(&ops.outside, &ops.outside_after)
    }

    /// Programs that somebody has taken away are loaded anew, and their maps are empty.
    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        if !self.pins.are_whole() {
            (self.pins, self.maps) = stand(&self.location)?;
            self.notes.open_anew(&self.pins)?;
        }
        let Some(rules) = self.rules.read()? else {
            return Ok(None);
        };
        self.outside.look();
        let (sockets, outside) = (adopt(&self.maps.read()?), self.outside.read()?);
        let read = || {
            Some(State {
                rules,
                sockets: sockets?,
                outside: outside?,
            })
        };
        Ok(read())
    }

    /// Nobody writes to our maps but us.
    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        Ok(!self.outside.look() && self.pins.are_whole() && self.rules.unchanged()?)
    }
}

/// An error of aya or of the C library, in the kernel's words where it has some.
fn refused(doing: impl Into<String>, error: &dyn std::error::Error) -> ApplyError {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = error.source();
    }
    ApplyError {
        doing: doing.into(),
        words,
    }
}
