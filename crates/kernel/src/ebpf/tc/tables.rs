//! The tables of flows that programs at devices translate: a walk that forgets stale ones, and whether any is left.

use std::path::Path;

use aya::maps::{HashMap, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use portolan_dataplane::ebpf::outside::{
    PAIR_LEN, TRANSLATION_LEN, TUPLE_LEN, Translation, Tuple, read_pair, read_translation,
    read_tuple, tuple_of,
};
use portolan_model::{ApplyError, Family, Flow, Protocol};

use super::maps::{PAIRS_MAX, TABLES};
use super::{of_namespace, programs_of, tables_of};
use crate::ebpf::maps::{hash, open, removed};
use crate::ebpf::refused;

/// A walk takes at most so many steps for each entry that a table has room for: it begins anew when the entry on which
/// it stands is forgotten.
const STEPS_PER_ENTRY: usize = 2;

/// A connection that nobody has heard of for so long is no reason to keep programs that are not wanted: it is
/// kube-proxy's timeout of established connections, 24 hours.
const QUIET_MAX_S: u32 = 24 * 60 * 60;

/// The flows of one family.
pub(super) struct Table {
    family: Family,
    map: HashMap<MapData, [u8; TUPLE_LEN], [u8; TRANSLATION_LEN]>,
    steps_max: usize,
}

/// Asks about every flow of `protocol` and `family` that programs at devices of this network namespace translate, and forgets those
/// of which `is_stale` says so; counts them in `deleted`. Where there are no such programs, there is nothing to do.
pub fn sweep(
    pins: &Path,
    family: Family,
    protocol: Protocol,
    is_stale: impl Fn(&Flow) -> bool,
    deleted: &mut u64,
) -> Result<(), ApplyError> {
    for mut table in tables(pins)?.into_iter().filter(|t| t.family == family) {
        let mut stale = Vec::new();
        table.each(protocol, |key, flow| {
            let told = Flow {
                protocol,
                destination: key.to,
                replier: flow.becomes.to,
            };
            if !flow.is_back && is_stale(&told) {
                stale.push((key, flow.becomes.turned()));
            }
        })?;
        for (there, back) in stale {
            table.forget(there)?;
            table.forget(back)?;
            *deleted += 1;
        }
    }
    Ok(())
}

/// How many flows each pair of frontend and endpoint has had; those of which `is_old` says so are forgotten.
pub(in crate::ebpf) fn pairs(
    pins: &Path,
    is_old: impl Fn(&Flow) -> bool,
) -> Result<Vec<(Flow, u64)>, ApplyError> {
    let told = |error: MapError| refused("read how many flows came from outside", &error);
    let mut all = Vec::new();
    for directory in programs_of(pins)? {
        let map = hash::<[u8; PAIR_LEN], u64>(open(&directory.join("pairs"))?);
        let mut map = map?;
        for key in map
            .keys()
            .take(PAIRS_MAX as usize * STEPS_PER_ENTRY)
            .collect::<Vec<_>>()
        {
            let key = key.map_err(told)?;
            let (Some(flow), Ok(count)) = (read_pair(&key), map.get(&key, 0)) else {
                continue;
            };
            if is_old(&flow) {
                removed(map.remove(&key)).map_err(told)?;
            }
            all.push((flow, count));
        }
    }
    Ok(all)
}

/// Whether somebody may still need the programs.
pub(super) fn are_in_use(pins: &Path) -> Result<bool, ApplyError> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    let now = now.map_err(|error| refused("ask for the time", &error))?;
    let now_s = u32::try_from(now.tv_sec()).unwrap_or(u32::MAX);
    let mut living = false;
    for table in tables(pins)? {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            table.each(protocol, |_, flow| {
                let quiet_s = now_s.saturating_sub(flow.seen_s);
                living |= !flow.has_ended && quiet_s < QUIET_MAX_S;
            })?;
        }
    }
    Ok(living)
}

/// Those that are pinned.
fn tables(pins: &Path) -> Result<Vec<Table>, ApplyError> {
    let directory = tables_of(&of_namespace(pins)?);
    let named = [(Family::V4, "flows_v4"), (Family::V6, "flows_v6")].into_iter();
    let rooms = named.filter_map(|(family, name)| {
        let (_, most) = TABLES.iter().find(|(table, _)| *table == name)?;
        Some((family, directory.join(name), *most))
    });
    let there = rooms.filter(|(_, path, _)| path.exists());
    let table = |(family, path, most): (Family, std::path::PathBuf, u32)| {
        Ok(Table {
            family,
            map: hash(open(&path)?)?,
            steps_max: most as usize * STEPS_PER_ENTRY,
        })
    };
    there.map(table).collect()
}

impl Table {
    /// Shows every entry of a protocol that stays there meanwhile.
    fn each(
        &self,
        protocol: Protocol,
        mut show: impl FnMut(Tuple, Translation),
    ) -> Result<(), ApplyError> {
        let told = |error: MapError| refused("walk through the flows from outside", &error);
        for key in self.map.keys().take(self.steps_max) {
            let key = key.map_err(told)?;
            let Some(tuple) = read_tuple(&key).filter(|tuple| tuple.protocol == protocol) else {
                continue;
            };
            match self.map.get(&key, 0) {
                Ok(value) => {
                    if let Some(flow) = read_translation(&value) {
                        show(tuple, flow);
                    }
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(told(error)),
            }
        }
        Ok(())
    }

    fn forget(&mut self, tuple: Tuple) -> Result<(), ApplyError> {
        let done = removed(self.map.remove(&tuple_of(&tuple)));
        done.map_err(|error| refused("forget a flow from outside", &error))
    }
}
