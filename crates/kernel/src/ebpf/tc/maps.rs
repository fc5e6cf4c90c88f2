//! The maps of the programs at devices. Keys and values are bytes, as `portolan_dataplane::ebpf` writes them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray};
use portolan_dataplane::ebpf::outside::{Op, RANGE_LEN, Readback, SERVED_LEN, range_of, served_of};
use portolan_dataplane::ebpf::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, NODE_PORT_IP_LEN, SERVICE_KEY_LEN, endpoint_key_of,
    endpoint_of, ip_of, service_key_of,
};
use portolan_model::ApplyError;

use super::devices::{DEVICES_MAX, Device};
use crate::ebpf::maps::{clear, hash, open, removed};
use crate::ebpf::refused;

/// Frontends and endpoints whose flows are counted.
pub(super) const PAIRS_MAX: u32 = 32_768;

/// Every map that belongs to the programs, and how many entries it has room for.
pub(super) const OWN: [(&str, u32); 9] = [
    // Frontends: NodePorts, external IPs and LoadBalancer addresses of both families. 16 bytes each, from the start.
    ("served", 131_072),
    // Slots of all lists together, the tables of hashes among them. 16 bytes each, from the start.
    ("slots", 524_288),
    // Addresses of one node at which NodePorts answer: a node with more has another problem.
    ("node_ips", 1024),
    // Ranges of pods: a cluster has a few.
    ("pod_ranges", 1024),
    ("devices", DEVICES_MAX),
    ("source_ports", 1),
    ("outcomes", OUTCOMES),
    // 16 bytes each, from the start; when there are more, new ones are not counted.
    ("pairs", PAIRS_MAX),
    ("work", 1),
];

/// The tables of flows, two entries for each. conntrack has room for 131 072 flows by default, too. They take about 160
/// bytes for each entry, from the start; whoever has not been heard of for longest is forgotten.
pub(super) const TABLES: [(&str, u32); 3] = [
    ("flows_v4", 262_144),
    ("flows_v6", 131_072),
    // Datagrams that come in pieces: pieces come one after the other, so that this is many.
    ("pieces", 4096),
];

/// `enum outcome_outside` of ebpf/tc_maps.h.
const OUTCOMES: u32 = 10;

/// Bytes of a value of @devices.
const DEVICE_LEN: usize = 44;

/// What became of flows that began, as far as programs at devices have seen them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Translated, and routed by the kernel.
    pub to_stack: u64,
    /// The same, with an address of the node that the rules give.
    pub to_masquerade: u64,
    /// Translated and sent on by the program.
    pub to_send: u64,
    /// Left to the rules: nothing is there, or only they can do it.
    pub of_nobody: u64,
    /// Left to the rules: pods are treated otherwise.
    pub of_a_pod: u64,
    /// Left to the rules, because a list was just being replaced.
    pub without_slot: u64,
    /// Left to the rules: answers would not leave by a device where programs stand.
    pub without_way: u64,
    /// Left to the rules: another flow has the same endpoint, client and port.
    pub for_another: u64,
    /// Packets that were dropped for want of a route.
    pub without_route: u64,
    /// Packets that XDP has carried.
    pub carried_fast: u64,
}

impl Outcomes {
    /// All flows that the programs have taken.
    pub fn taken(&self) -> u64 {
        self.to_stack + self.to_masquerade + self.to_send
    }
}

/// The maps, open.
pub(super) struct Maps {
    served: HashMap<MapData, [u8; SERVICE_KEY_LEN], [u8; SERVED_LEN]>,
    slots: HashMap<MapData, [u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    node_ips: HashMap<MapData, [u8; NODE_PORT_IP_LEN], u8>,
    pods: LpmTrie<MapData, [u8; 16], u8>,
    devices: HashMap<MapData, u32, [u8; DEVICE_LEN]>,
    source_ports: Array<MapData, u64>,
    outcomes: PerCpuArray<MapData, u64>,
    id: u32,
}

impl Maps {
    /// Those that are pinned.
    pub(super) fn open(own: &Path) -> Result<Self, ApplyError> {
        let map = |name: &str| open(&own.join(name));
        let shaped = |error| refused("open the maps for traffic from outside", &error);
        Ok(Maps {
            served: hash(map("served")?)?,
            slots: hash(map("slots")?)?,
            node_ips: hash(map("node_ips")?)?,
            pods: LpmTrie::try_from(Map::LpmTrie(map("pod_ranges")?)).map_err(shaped)?,
            devices: hash(map("devices")?)?,
            source_ports: Array::try_from(Map::Array(map("source_ports")?)).map_err(shaped)?,
            outcomes: PerCpuArray::try_from(Map::PerCpuArray(map("outcomes")?)).map_err(shaped)?,
            id: made(&own.join("served"))?,
        })
    }

    /// Other maps have another one.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn set_source_ports(
        &mut self,
        ports: Option<RangeInclusive<u16>>,
    ) -> Result<(), ApplyError> {
        // struct ports: two numbers.
        let numbers = ports.map_or([0, 0], |ports| {
            let first = u32::from(*ports.start());
            [first, u32::from(*ports.end()) - first + 1]
        });
        let [a, b] = numbers.map(u32::to_ne_bytes);
        let mut value = [0; 8];
        value[..4].copy_from_slice(&a);
        value[4..].copy_from_slice(&b);
        let set = self.source_ports.set(0, u64::from_ne_bytes(value), 0);
        set.map_err(|error| refused("tell the programs their source ports", &error))
    }

    /// All devices at which the programs stand, and the indices of those through which XDP may send.
    pub(super) fn set_devices(
        &mut self,
        devices: &[Device],
        fast: &BTreeSet<u32>,
    ) -> Result<(), ApplyError> {
        let mut set = || -> Result<(), MapError> {
            let known: Vec<u32> = self.devices.keys().collect::<Result<_, _>>()?;
            let gone = known
                .iter()
                .filter(|index| !devices.iter().any(|device| device.index == **index));
            for index in gone {
                removed(self.devices.remove(index))?;
            }
            devices.iter().try_for_each(|device| {
                let value = device_of(device, fast.contains(&device.index));
                self.devices.insert(device.index, value, 0)
            })
        };
        set().map_err(|error| refused("tell the programs their devices", &error))
    }

    pub(super) fn outcomes(&self) -> Result<Outcomes, ApplyError> {
        let count = |index: u32| {
            let all = self.outcomes.get(&index, 0);
            let all = all.map_err(|error| refused("read how often programs did what", &error))?;
            Ok(all.iter().sum())
        };
        Ok(Outcomes {
            to_stack: count(0)?,
            to_masquerade: count(1)?,
            to_send: count(2)?,
            of_nobody: count(3)?,
            of_a_pod: count(4)?,
            without_slot: count(5)?,
            without_way: count(6)?,
            for_another: count(7)?,
            without_route: count(8)?,
            carried_fast: count(9)?,
        })
    }

    pub(super) fn apply(&mut self, op: &Op) -> Result<(), ApplyError> {
        let done = match op {
            Op::Reset => self.reset(),
            Op::PutSlot(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.slots.insert(key, endpoint_of(*to), 0)
            }
            Op::PutNodePortIp(ip) => self.node_ips.insert(ip_of(*ip), 1, 0),
            Op::PutPods(range) => self.pods.insert(&key_of(range_of(*range)), 1, 0),
            Op::PutServed(frontend, served) => {
                let key = service_key_of(*frontend);
                self.served.insert(key, served_of(served), 0)
            }
            Op::RemoveServed(frontend) => removed(self.served.remove(&service_key_of(*frontend))),
            Op::RemoveNodePortIp(ip) => removed(self.node_ips.remove(&ip_of(*ip))),
            Op::RemovePods(range) => removed(self.pods.remove(&key_of(range_of(*range)))),
            Op::RemoveSlot(list, slot) => {
                removed(self.slots.remove(&endpoint_key_of(*list, *slot)))
            }
        };
        done.map_err(|error| refused(format!("eBPF map: {op:?}"), &error))
    }

    /// Flows that begin from now on meet the rules; others go on.
    fn reset(&mut self) -> Result<(), MapError> {
        clear(&mut self.served)?;
        clear(&mut self.slots)?;
        clear(&mut self.node_ips)?;
        let ranges: Vec<Key<[u8; 16]>> = self.pods.keys().collect::<Result<_, _>>()?;
        ranges
            .iter()
            .try_for_each(|range| removed(self.pods.remove(range)))
    }

    pub(super) fn read(&self) -> Result<Readback, ApplyError> {
        let read = || -> Result<Readback, MapError> {
            let pods: Vec<Key<[u8; 16]>> = self.pods.keys().collect::<Result<_, _>>()?;
            Ok(Readback {
                services: self.served.iter().collect::<Result<_, _>>()?,
                slots: self.slots.iter().collect::<Result<_, _>>()?,
                node_port_ips: self.node_ips.keys().collect::<Result<_, _>>()?,
                pods: pods.iter().map(bytes_of).collect(),
            })
        };
        read().map_err(|error| refused("read the maps for traffic from outside", &error))
    }
}

/// The kernel's number of a pinned map.
fn made(path: &Path) -> Result<u32, ApplyError> {
    let info = MapInfo::from_pin(path);
    let info = info.map_err(|error| refused(format!("open the map {}", path.display()), &error))?;
    Ok(info.id())
}

/// `struct range` as aya has it.
fn key_of(bytes: [u8; RANGE_LEN]) -> Key<[u8; 16]> {
    let (length, address) = bytes.split_at(4);
    let length = length.first_chunk().map_or(0, |n| u32::from_ne_bytes(*n));
    Key::new(length, address.first_chunk().copied().unwrap_or_default())
}

fn bytes_of(key: &Key<[u8; 16]>) -> [u8; RANGE_LEN] {
    let mut out = [0; RANGE_LEN];
    out[..4].copy_from_slice(&key.prefix_len().to_ne_bytes());
    out[4..].copy_from_slice(&key.data());
    out
}

/// `struct device`.
fn device_of(device: &Device, takes_frames: bool) -> [u8; DEVICE_LEN] {
    let mut out = [0; DEVICE_LEN];
    let write = |out: &mut [u8], ip: Option<IpAddr>| {
        if let Some(ip) = ip {
            out.copy_from_slice(&ip_of(ip));
        }
    };
    write(&mut out[..16], device.addresses[0]);
    write(&mut out[16..32], device.addresses[1]);
    out[32..36].copy_from_slice(&device.mtu.to_ne_bytes());
    out[36..42].copy_from_slice(&device.mac);
    out[42] = u8::from(takes_frames);
    out
}
