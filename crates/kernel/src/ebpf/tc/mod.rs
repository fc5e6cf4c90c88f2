//! The programs at the devices through which traffic from outside comes and goes.
//!
//! ```text
//!   bpffs  PINS/outside-NAMESPACE/flows-LAYOUT/  flows_v4 flows_v6 …     tables of flows: newer programs take them over
//!                                 PROGRAMS/      served slots …          maps, programs
//!                                                outside_in-INDEX …      programs that stand at a device
//!                                                outside_fast-INDEX …    the same in XDP, where the driver can
//! ```
//!
//! Flows that these programs translate depend on them, so they outlive the agent, and what it has told them: a newer
//! agent's programs stand at every device before the old ones go, and both work on the same tables.

mod devices;
mod fast;
mod maps;
mod tables;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use aya::{EbpfLoader, include_bytes_aligned};
use portolan_dataplane::ebpf::outside::{Op, Outside, adopt};
use portolan_model::ApplyError;
use portolan_model::hash::jhash;

use super::pins::{at, directories, netns_cookie, remove};
use super::{programs, refused};
use crate::nft::ports;
use devices::Device;
pub use devices::Devices;
use maps::Maps;
pub use maps::Outcomes;
pub(super) use tables::pairs;
pub use tables::sweep;

/// `ebpf/tc.c`, as the build script has compiled it.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tc.o"));

/// Both, by their names in ebpf/tc.c, and where they stand.
const PROGRAMS: [(&str, TcAttachType); 2] = [
    ("outside_in", TcAttachType::Ingress),
    ("outside_out", TcAttachType::Egress),
];

/// The number of the layout of the tables in ebpf/flows.h. Programs with another one begin with empty tables.
const LAYOUT: u32 = 1;

/// The programs of one network namespace, if they can be there.
pub(super) struct AtDevices {
    pins: PathBuf,
    wanted: Devices,
    standing: Option<Standing>,
    /// What programs would be told if there were any.
    remembered: Outside,
    /// Why they are not everywhere, as it was told last.
    told: Option<String>,
    wants_fast: bool,
    /// Why XDP is not everywhere, as it was told last.
    told_slow: Vec<String>,
}

impl AtDevices {
    /// Never fails: where they cannot stand, the rules do it all, and that is said aloud.
    pub(super) fn open(pins: &Path, wanted: &Devices, wants_fast: bool) -> Self {
        let mut opened = AtDevices {
            pins: pins.into(),
            wanted: wanted.clone(),
            standing: None,
            remembered: Outside::default(),
            told: None,
            wants_fast,
            told_slow: Vec::new(),
        };
        opened.look();
        opened
    }

    /// Brings the programs to the devices that are there now. True if maps are others than before.
    pub(super) fn look(&mut self) -> bool {
        let was = self.standing.as_ref().map(|standing| standing.maps.id());
        let done = match self.wanted {
            Devices::None => retire(&self.pins),
            _ => devices::found(&self.wanted).and_then(|devices| self.bring(devices)),
        };
        let told = done.err().map(|error| error.to_string());
        if let Some(error) = told.as_ref().filter(|_| self.told != told) {
            tracing::warn!(
                error,
                "no programs for traffic from outside: the rules treat it"
            );
        }
        self.told = told;
        was != self.standing.as_ref().map(|standing| standing.maps.id())
    }

    /// Where there is no device yet, or no more, everything stays as it is.
    fn bring(&mut self, devices: Vec<Device>) -> Result<(), ApplyError> {
        if devices.is_empty() {
            return Ok(());
        }
        match &mut self.standing {
            Some(standing) if standing.stands_at(&devices) => match devices::source_ports()? {
                Some(ports) => ports::keep(&ports),
                None => Ok(()),
            },
            Some(standing) if is_whole(&standing.own) => {
                standing.move_to(devices)?;
                self.hasten();
                Ok(())
            }
            _ => {
                self.standing = None;
                let standing = Standing::stand(&self.pins, devices)?;
                self.standing = Some(standing);
                self.hasten();
                others_of(&self.pins)?
                    .iter()
                    .try_for_each(|other| remove(other))
            }
        }
    }

    /// Brings XDP to where it can be, if it is wanted. Where it cannot, tc does it all, and that is said aloud.
    fn hasten(&mut self) {
        let Some(standing) = &mut self.standing else {
            return;
        };
        let done = standing.hasten(&self.pins, self.wants_fast);
        let told = done.unwrap_or_else(|error| vec![error.to_string()]);
        for error in told.iter().filter(|words| !self.told_slow.contains(words)) {
            tracing::warn!(error, "no XDP for traffic from outside: tc carries it");
        }
        self.told_slow = told;
    }

    /// Without programs it is only remembered what stands `after` the change.
    pub(super) fn apply(&mut self, ops: &[Op], after: &Outside) -> Result<(), ApplyError> {
        let Some(standing) = &mut self.standing else {
            self.remembered = after.clone();
            return Ok(());
        };
        ops.iter().try_for_each(|op| standing.maps.apply(op))
    }

    /// `None` if what stands there is not ours.
    pub(super) fn read(&self) -> Result<Option<Outside>, ApplyError> {
        match &self.standing {
            Some(standing) => Ok(adopt(&standing.maps.read()?)),
            None => Ok(Some(self.remembered.clone())),
        }
    }

    pub(super) fn outcomes(&self) -> Result<Outcomes, ApplyError> {
        let standing = self.standing.as_ref();
        standing.map_or(Ok(Outcomes::default()), |standing| standing.maps.outcomes())
    }
}

/// Programs and maps as they stand.
struct Standing {
    own: PathBuf,
    maps: Maps,
    standing: Vec<Device>,
    /// Indices of those at which XDP carries packets.
    fast: BTreeSet<u32>,
}

impl Standing {
    /// Those of a former process, or new ones; they stand at `devices`, perhaps beside older ones.
    fn stand(pins: &Path, devices: Vec<Device>) -> Result<Self, ApplyError> {
        let all = of_namespace(pins)?;
        let tables = tables_of(&all);
        let own = own_of(&all);
        if !is_whole(&own) {
            remove(&own)?;
            for directory in [&tables, &own] {
                fs::create_dir_all(directory).map_err(|error| at("make", directory, &error))?;
            }
            load(&own, &tables)?;
        }
        let maps = Maps::open(&own)?;
        let mut stands = Standing {
            own,
            maps,
            standing: Vec::new(),
            fast: BTreeSet::new(),
        };
        stands.move_to(devices)?;
        Ok(stands)
    }

    /// Whether everything stands at exactly these devices, as they are now.
    fn stands_at(&self, devices: &[Device]) -> bool {
        let stands = |device: &Device| {
            let path = |(program, _)| link(&self.own, program, device.index);
            PROGRAMS.map(path).iter().all(|path| path.exists())
        };
        let fast = |index: &u32| link(&self.own, fast::PROGRAM, *index).exists();
        self.fast.iter().all(fast)
            && self.standing == devices
            && is_whole(&self.own)
            && devices.iter().all(stands)
    }

    /// Attaches the programs where they are missing, and takes them away elsewhere.
    fn move_to(&mut self, devices: Vec<Device>) -> Result<(), ApplyError> {
        let ports = devices::source_ports()?;
        // Before a program takes one, the rules must have left them.
        if let Some(ports) = &ports {
            ports::keep(ports)?;
        }
        self.maps.set_source_ports(ports)?;
        // A program must know its device before it sees a packet there.
        self.maps.set_devices(&devices, &self.fast)?;
        for device in &devices {
            for (name, kind) in PROGRAMS {
                let link = link(&self.own, name, device.index);
                if !link.exists() {
                    attach(&self.own.join(name), device, kind, &link)?;
                }
            }
        }
        let left: Vec<PathBuf> = links(&self.own)?
            .into_iter()
            .filter(|(index, _)| !devices.iter().any(|device| device.index == *index))
            .map(|(_, path)| path)
            .collect();
        for path in left {
            fs::remove_file(&path).map_err(|error| at("remove", &path, &error))?;
        }
        self.standing = devices;
        Ok(())
    }

    /// Attaches the program of XDP where it can be, or takes it away. Says where it cannot be.
    fn hasten(&mut self, pins: &Path, wanted: bool) -> Result<Vec<String>, ApplyError> {
        let tables = tables_of(&of_namespace(pins)?);
        let fast = match wanted {
            true => fast::stand(&self.own, &tables, &others_of(pins)?, &self.standing)?,
            false => fast::Fast::default(),
        };
        // A program sends only through devices that it knows to take frames.
        self.maps.set_devices(&self.standing, &fast.takes_frames)?;
        self.fast = fast.takes_frames;
        if !wanted {
            fast::remove(&self.own)?;
        }
        Ok(fast.told)
    }
}

/// No flow begins here any more; what stands in the network namespace of the calling thread goes, unless flows go on
/// that depend on it.
pub(super) fn retire(pins: &Path) -> Result<(), ApplyError> {
    if !tables::are_in_use(pins)? {
        return remove_all(pins);
    }
    for directory in programs_of(pins)? {
        Maps::open(&directory)?.apply(&Op::Reset)?;
    }
    Ok(())
}

/// The directories of programs that are whole; mostly there is one, or none.
fn programs_of(pins: &Path) -> Result<Vec<PathBuf>, ApplyError> {
    let all = of_namespace(pins)?;
    let mut found = match all.exists() {
        true => directories(&all)?,
        false => Vec::new(),
    };
    found.retain(|directory| is_whole(directory));
    Ok(found)
}

/// Takes away what stands in the network namespace of the calling thread; flows end that were translated.
pub(super) fn remove_all(pins: &Path) -> Result<(), ApplyError> {
    let all = of_namespace(pins)?;
    if !all.exists() {
        return Ok(());
    }
    directories(&all)?
        .iter()
        .try_for_each(|path| remove(path))?;
    remove(&all)?;
    ports::remove()
}

fn of_namespace(pins: &Path) -> Result<PathBuf, ApplyError> {
    Ok(pins.join(format!("outside-{}", netns_cookie()?)))
}

/// The directories of programs of other versions.
fn others_of(pins: &Path) -> Result<Vec<PathBuf>, ApplyError> {
    let all = of_namespace(pins)?;
    let (own, tables) = (own_of(&all), tables_of(&all));
    let mut found = directories(&all)?;
    found.retain(|directory| *directory != own && *directory != tables);
    Ok(found)
}

fn own_of(all: &Path) -> PathBuf {
    all.join(format!("{:016x}", digest()))
}

fn tables_of(all: &Path) -> PathBuf {
    all.join(format!("flows-{LAYOUT}"))
}

fn digest() -> u64 {
    let half = |seed| u64::from(jhash(fast::OBJECT, jhash(OBJECT, seed)));
    half(0) << 32 | half(1)
}

fn is_whole(own: &Path) -> bool {
    let maps = maps::OWN.iter().map(|(name, _)| *name);
    let mut all = maps.chain(PROGRAMS.map(|(name, _)| name));
    all.all(|name| own.join(name).exists())
}

/// Loads programs and maps, and pins them.
fn load(own: &Path, tables: &Path) -> Result<(), ApplyError> {
    let mut loader = EbpfLoader::new();
    for (place, maps) in [(own, &maps::OWN[..]), (tables, &maps::TABLES[..])] {
        for (name, most) in maps {
            loader.map_pin_path(name, place.join(name));
            loader.map_max_entries(name, *most);
        }
    }
    let object = loader.load(OBJECT);
    let mut object =
        object.map_err(|error| refused("load the programs for traffic from outside", &error))?;
    for (name, _) in PROGRAMS {
        let program = object
            .program_mut(name)
            .ok_or_else(|| programs::missing("program", name))?;
        let program: &mut SchedClassifier = program
            .try_into()
            .map_err(|error: ProgramError| programs::told("find", name, &error))?;
        let loaded = program.load();
        loaded.map_err(|error| programs::told("load", name, &error))?;
        let pinned = program.pin(own.join(name));
        pinned.map_err(|error| refused(format!("pin the program {name}"), &error))?;
    }
    Ok(())
}

fn attach(
    program: &Path,
    device: &Device,
    kind: TcAttachType,
    link: &Path,
) -> Result<(), ApplyError> {
    let told = |error: &dyn std::error::Error| {
        let doing = format!(
            "attach the program {} to {} (this needs Linux 6.6)",
            program.display(),
            device.name
        );
        refused(doing, error)
    };
    let mut program = SchedClassifier::from_pin(program).map_err(|error| told(&error))?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let stands = program.attach_with_options(&device.name, kind, order);
    let stands = stands.and_then(|id| program.take_link(id));
    let stands: Result<FdLink, LinkError> = stands.map_err(|error| told(&error))?.try_into();
    let stands = stands.map_err(|error| told(&error))?;
    stands.pin(link).map_err(|error| told(&error))?;
    Ok(())
}

fn link(own: &Path, program: &str, index: u32) -> PathBuf {
    own.join(format!("{program}-{index}_link"))
}

/// The links that are pinned, with the indices of their devices.
fn links(own: &Path) -> Result<Vec<(u32, PathBuf)>, ApplyError> {
    let list = || -> io::Result<Vec<(u32, PathBuf)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(own)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let index = name.strip_suffix("_link");
            let index = index.and_then(|name| name.rsplit_once('-')?.1.parse().ok());
            all.extend(index.map(|index| (index, path.clone())));
        }
        Ok(all)
    };
    list().map_err(|error| at("list", own, &error))
}
