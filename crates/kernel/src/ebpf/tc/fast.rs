//! The program of XDP: packets of flows that the programs at tc send on are carried where the driver hands them over.
//!
//! It is native or not at all: in generic mode the kernel would make an sk_buff of each packet first, and tc does the
//! same for less. It decides nothing and needs tc beneath, so that it may be missing at any device at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use portolan_model::ApplyError;

use super::devices::Device;
use super::maps;
use crate::ebpf::pins::at;
use crate::ebpf::{programs, refused};
use crate::nfnetlink::socket::{Answer, Nfnetlink};
use crate::nfnetlink::wire::{DUMP, Writer, read_u16, read_u32, read_u64};

/// `ebpf/xdp.c`, as the build script has compiled it.
pub(super) static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp.o"));

/// Its name there.
pub(super) const PROGRAM: &str = "outside_fast";

/// Generic netlink's own family, and what we ask it.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// The family `netdev` of linux/netdev.h (Linux 6.3).
const GET_DEVICE: u8 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;

/// `enum netdev_xdp_act`: sends frames that another device has received.
const SENDS: u64 = 4;

/// How often a dump is tried anew when something changes meanwhile.
const RETRIES_MAX: usize = 5;

/// What has come of it.
#[derive(Debug, Default)]
pub(super) struct Fast {
    /// Devices that take frames from the program.
    pub(super) takes_frames: BTreeSet<u32>,
    /// Why some do not.
    pub(super) told: Vec<String>,
}

/// Brings the program to those of `devices` whose drivers can, and takes it away elsewhere. Where an older one stands,
/// whose pins are in one of the directories `others`, it takes its place.
pub(super) fn stand(
    own: &Path,
    tables: &Path,
    others: &[PathBuf],
    devices: &[Device],
) -> Result<Fast, ApplyError> {
    let mut fast = Fast::default();
    let mut program = None;
    for device in devices {
        let link = super::link(own, PROGRAM, device.index);
        if link.exists() {
            continue;
        }
        let object = match &mut program {
            Some(object) => object,
            none => none.insert(load(own, tables)?),
        };
        let mut older = others
            .iter()
            .map(|other| super::link(other, PROGRAM, device.index));
        let older = older.find(|link| link.exists());
        if let Err(error) = attach(object, device, older.as_deref(), &link) {
            fast.told.push(error.to_string());
        }
    }
    let features = features()?;
    for device in devices {
        let link = super::link(own, PROGRAM, device.index);
        let sends = features
            .get(&device.index)
            .is_some_and(|has| has & SENDS != 0);
        match (link.exists(), sends) {
            (false, _) => {}
            (true, true) => drop(fast.takes_frames.insert(device.index)),
            // What other devices send there would be lost. A pair of virtual links is so without GRO at its other end.
            (true, false) => {
                fs::remove_file(&link).map_err(|error| at("remove", &link, &error))?;
                let words = "takes no frames to send (of a veth: switch GRO on at its other end)";
                fast.told.push(format!("{} {words}", device.name));
            }
        }
    }
    Ok(fast)
}

/// Takes the program away from all devices.
pub(super) fn remove(own: &Path) -> Result<(), ApplyError> {
    let name = format!("{PROGRAM}-");
    let is_its = |path: &PathBuf| {
        let file = path.file_name().unwrap_or_default();
        file.to_string_lossy().starts_with(&name)
    };
    let links = super::links(own)?.into_iter().map(|(_, path)| path);
    for path in links.filter(is_its) {
        fs::remove_file(&path).map_err(|error| at("remove", &path, &error))?;
    }
    Ok(())
}

/// Its maps are those of the programs at tc.
fn load(own: &Path, tables: &Path) -> Result<Ebpf, ApplyError> {
    let mut loader = EbpfLoader::new();
    for (place, maps) in [(own, &maps::OWN[..]), (tables, &maps::TABLES[..])] {
        for (name, most) in maps {
            loader.map_pin_path(name, place.join(name));
            loader.map_max_entries(name, *most);
        }
    }
    let object = loader.load(OBJECT);
    let mut object = object.map_err(|error| refused("load the program of XDP", &error))?;
    let loaded = program_of(&mut object)?.load();
    loaded.map_err(|error| programs::told("load", PROGRAM, &error))?;
    Ok(object)
}

fn program_of(object: &mut Ebpf) -> Result<&mut Xdp, ApplyError> {
    let program = object.program_mut(PROGRAM);
    let program = program.ok_or_else(|| programs::missing("program", PROGRAM))?;
    let found = program.try_into();
    found.map_err(|error: ProgramError| programs::told("find", PROGRAM, &error))
}

/// The link keeps the program in the kernel. A device has room for one, so that of an `older` one is led to this one.
fn attach(
    object: &mut Ebpf,
    device: &Device,
    older: Option<&Path>,
    link: &Path,
) -> Result<(), ApplyError> {
    let told = |error: &dyn std::error::Error| {
        refused(format!("attach a program of XDP to {}", device.name), error)
    };
    let program = program_of(object)?;
    let stands = match older {
        None => program.attach_to_if_index(device.index, XdpMode::Driver),
        Some(path) => {
            let older = PinnedLink::from_pin(path).map_err(|error| told(&error))?;
            let older: XdpLink = FdLink::from(older)
                .try_into()
                .map_err(|error: LinkError| told(&error))?;
            program.attach_to_link(older)
        }
    };
    let stands = stands.and_then(|id| program.take_link(id));
    let stands: Result<FdLink, LinkError> = stands.map_err(|error| told(&error))?.try_into();
    let stands = stands.map_err(|error| told(&error))?;
    stands.pin(link).map_err(|error| told(&error))?;
    Ok(())
}

/// What the drivers of this network namespace can do in XDP, by the indices of their devices.
fn features() -> Result<BTreeMap<u32, u64>, ApplyError> {
    let mut socket = Nfnetlink::open_generic()?;
    let doing = "cannot ask the kernel what devices can do in XDP (this needs Linux 6.3)";
    let mut family = None;
    let question = |out: &mut Writer| {
        out.begin_generic(CONTROL, 0, GET_FAMILY);
        out.text(FAMILY_NAME, "netdev");
    };
    socket.ask(doing, question, |answer| {
        family = answer.find(FAMILY_ID).and_then(|id| read_u16(id, 0));
    })?;
    let family = family.ok_or_else(|| ApplyError {
        doing: doing.into(),
        words: "no such family of generic netlink".into(),
    })?;
    for _ in 0..RETRIES_MAX {
        let mut all = BTreeMap::new();
        let question = |out: &mut Writer| out.begin_generic(family, DUMP, GET_DEVICE);
        let answer = socket.ask(doing, question, |device| {
            let index = device
                .find(DEVICE_INDEX)
                .and_then(|bytes| read_u32(bytes, 0));
            let can = device
                .find(DEVICE_FEATURES)
                .and_then(|bytes| read_u64(bytes, 0));
            all.extend(index.zip(can));
        })?;
        if answer != Answer::Interrupted {
            return Ok(all);
        }
    }
    Err(ApplyError {
        doing: doing.into(),
        words: "devices change all the time".into(),
    })
}
