//! The maps that programs and agent share. Keys and values are bytes, as `portolan_dataplane::ebpf` writes them.

use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use portolan_dataplane::ebpf::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, MEMBER_LEN, NODE_PORT_IP_LEN, Op, Readback, SERVICE_KEY_LEN,
    SERVICE_LEN, endpoint_key_of, endpoint_of, ip_of, member_of, service_key_of, service_of,
};
use portolan_model::ApplyError;

use super::pins::Pins;
use super::refused;

/// Frontends. The table of the map takes 16 bytes of kernel memory for each, the rest comes with the entries.
const SERVICES_MAX: u32 = 262_144;

/// Slots of all lists together: two for each frontend, and most frontends share theirs. As before, the table takes 16
/// bytes for each.
const ENDPOINTS_MAX: u32 = 524_288;

/// Endpoints of lists with whom pods stay: each list has at most [`ENDPOINTS_MAX`] slots, and most lists are not of such
/// Services.
const MEMBERS_MAX: u32 = 262_144;

/// Addresses of one node at which NodePorts answer: a node with more has another problem.
const NODE_PORT_IPS_MAX: u32 = 1024;

/// Sockets whose getpeername(2) can be answered with the Service. When there are more, those that were connected first
/// get the endpoint as an answer. They take 112 bytes each, from the start.
const PEERS_MAX: u32 = 32_768;

/// Sockets of UDP that are connected at the same time. Further ones are left to the rules.
const DATAGRAM_PEERS_MAX: u32 = 32_768;

/// Pods that are remembered, each for one Service. When there are more, those that were seen longest ago are forgotten.
/// They take 120 bytes each, from the start.
const CLIENTS_MAX: u32 = 16_384;

/// Pairs of a socket of UDP that is not connected and a Service. A pair that is forgotten gets another endpoint. They
/// take 240 bytes each, from the start: 120 for the way there, 120 for the way back.
const FLOWS_MAX: u32 = 16_384;

/// Network namespaces of one node: some hundred pods are the most that Kubernetes means to have.
pub(super) const NAMESPACES_MAX: u32 = 4096;

/// Pairs of destination and endpoint that are counted: as many as the rules count in each family.
const PAIRS_MAX: u32 = 65_536;

/// Endpoints of which is known what was asked for by those who got them: as many as `model::health` watches. They take
/// 112 bytes each, from the start.
const DIALS_MAX: u32 = 16_384;

/// `BPF_NOEXIST` of linux/bpf.h.
const NOEXIST: u64 = 1;

/// Every map that has a limit, for the loader.
pub(super) const LIMITS: [(&str, u32); 12] = [
    ("services", SERVICES_MAX),
    ("endpoints", ENDPOINTS_MAX),
    ("node_port_ips", NODE_PORT_IPS_MAX),
    ("members", MEMBERS_MAX),
    ("peers", PEERS_MAX),
    ("datagram_peers", DATAGRAM_PEERS_MAX),
    ("clients", CLIENTS_MAX),
    ("flows", FLOWS_MAX),
    ("replies", FLOWS_MAX),
    ("namespaces", NAMESPACES_MAX),
    ("pairs", PAIRS_MAX),
    ("dials", DIALS_MAX),
];

/// The maps of the programs, open.
pub(super) struct Maps {
    services: HashMap<MapData, [u8; SERVICE_KEY_LEN], [u8; SERVICE_LEN]>,
    endpoints: HashMap<MapData, [u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    members: HashMap<MapData, [u8; MEMBER_LEN], u8>,
    node_port_ips: HashMap<MapData, [u8; NODE_PORT_IP_LEN], u8>,
}

impl Maps {
    /// Those that are pinned.
    pub(super) fn open(pins: &Pins) -> Result<Self, ApplyError> {
        let map = |name: &str| pinned(pins, name);
        Ok(Maps {
            services: hash(map("services")?)?,
            endpoints: hash(map("endpoints")?)?,
            members: hash(map("members")?)?,
            node_port_ips: hash(map("node_port_ips")?)?,
        })
    }

    pub(super) fn apply(&mut self, op: &Op) -> Result<(), ApplyError> {
        let done = match op {
            Op::Reset => self.reset(),
            Op::PutEndpoint(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.endpoints.insert(key, endpoint_of(*to), 0)
            }
            Op::PutMember(list, to) => self.members.insert(member_of(*list, *to), 1, 0),
            Op::PutNodePortIp(ip) => self.node_port_ips.insert(ip_of(*ip), 1, 0),
            Op::PutService(frontend, entry) => {
                let key = service_key_of(*frontend);
                self.services.insert(key, service_of(entry), 0)
            }
            Op::RemoveService(frontend) => {
                removed(self.services.remove(&service_key_of(*frontend)))
            }
            Op::RemoveNodePortIp(ip) => removed(self.node_port_ips.remove(&ip_of(*ip))),
            Op::RemoveEndpoint(list, slot) => {
                removed(self.endpoints.remove(&endpoint_key_of(*list, *slot)))
            }
            Op::RemoveMember(list, to) => removed(self.members.remove(&member_of(*list, *to))),
        };
        done.map_err(|error| refused(format!("eBPF map: {op:?}"), &error))
    }

    /// Sockets that connect from now on meet the rules.
    fn reset(&mut self) -> Result<(), MapError> {
        clear(&mut self.services)?;
        clear(&mut self.endpoints)?;
        clear(&mut self.members)?;
        clear(&mut self.node_port_ips)
    }

    pub(super) fn read(&self) -> Result<Readback, ApplyError> {
        let read = || -> Result<Readback, MapError> {
            Ok(Readback {
                services: self.services.iter().collect::<Result<_, _>>()?,
                endpoints: self.endpoints.iter().collect::<Result<_, _>>()?,
                members: self.members.keys().collect::<Result<_, _>>()?,
                node_port_ips: self.node_port_ips.keys().collect::<Result<_, _>>()?,
            })
        };
        read().map_err(|error| refused("read the maps of the socket programs", &error))
    }
}

/// Takes over what the programs of another version remember of clients and sockets, as far as both remember it in the
/// same way. What these know already is newer.
pub(super) fn inherit(from: &Pins, to: &Pins) {
    copy::<[u8; 32], [u8; 24]>("clients", from, to);
    copy::<u64, [u8; 40]>("peers", from, to);
    copy::<u64, [u8; 40]>("datagram_peers", from, to);
    copy::<[u8; 32], [u8; 24]>("flows", from, to);
    copy::<[u8; 32], [u8; 20]>("replies", from, to);
}

fn copy<K: Pod, V: Pod>(name: &str, from: &Pins, to: &Pins) {
    let open = |pins| hash::<K, V>(pinned(pins, name)?);
    let (Ok(from), Ok(mut to)) = (open(from), open(to)) else {
        return;
    };
    for (key, value) in from.iter().flatten() {
        let _ = to.insert(key, value, NOEXIST);
    }
}

/// The map that is pinned under this name.
pub(super) fn pinned(pins: &Pins, name: &str) -> Result<MapData, ApplyError> {
    open(&pins.path(name))
}

/// The map that is pinned there.
pub(super) fn open(path: &Path) -> Result<MapData, ApplyError> {
    let map = MapData::from_pin(path);
    map.map_err(|error| refused(format!("open the map {}", path.display()), &error))
}

pub(super) fn hash<K: Pod, V: Pod>(data: MapData) -> Result<HashMap<MapData, K, V>, ApplyError> {
    let shaped = |error| refused("open the maps of the socket programs", &error);
    HashMap::try_from(Map::HashMap(data)).map_err(shaped)
}

pub(super) fn clear<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<(), MapError> {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
    keys.iter().try_for_each(|key| removed(map.remove(key)))
}

/// What is not there need not be removed.
pub(super) fn removed(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        done => done,
    }
}
