//! From what a former process left in the maps to a State of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use imbl::OrdMap;

use super::bytes::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, MEMBER_LEN, NODE_PORT_IP_LEN, SERVICE_KEY_LEN, SERVICE_LEN,
    read_endpoint, read_endpoint_key, read_ip, read_member, read_service, read_service_key,
};
use super::state::{ListKey, Sockets};

/// All that is in the maps, in any order.
#[derive(Clone, Debug, Default)]
pub struct Readback {
    /// Of @services.
    pub services: Vec<([u8; SERVICE_KEY_LEN], [u8; SERVICE_LEN])>,
    /// Of @endpoints.
    pub endpoints: Vec<([u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN])>,
    /// Of @members.
    pub members: Vec<[u8; MEMBER_LEN]>,
    /// Of @node_port_ips.
    pub node_port_ips: Vec<[u8; NODE_PORT_IP_LEN]>,
}

/// `None` if something in it is not as we write it: the maps are then written anew.
pub fn adopt(found: &Readback) -> Option<Sockets> {
    let mut sockets = Sockets::default();
    for (key, value) in &found.services {
        let (frontend, entry) = (read_service_key(key)?, read_service(value)?);
        sockets.services.insert(frontend, entry);
    }
    sockets.lists = read_lists(&found.endpoints)?;
    let mut members: BTreeMap<ListKey, BTreeSet<SocketAddr>> = BTreeMap::new();
    for key in &found.members {
        let (list, to) = read_member(key)?;
        members.entry(list).or_default().insert(to);
    }
    for (list, all) in members {
        sockets.members.insert(list, all.into_iter().collect());
    }
    for ip in &found.node_port_ips {
        sockets.node_port_ips.insert(read_ip(ip), ());
    }
    Some(sockets)
}

/// Every list must be there from its first slot to its last.
pub(super) fn read_lists(
    found: &[([u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN])],
) -> Option<OrdMap<ListKey, Arc<[SocketAddr]>>> {
    let mut lists: BTreeMap<ListKey, BTreeMap<u32, SocketAddr>> = BTreeMap::new();
    for (key, value) in found {
        let (list, slot) = read_endpoint_key(key)?;
        lists
            .entry(list)
            .or_default()
            .insert(slot, read_endpoint(value)?);
    }
    let mut read = OrdMap::new();
    for (key, slots) in lists {
        let whole = slots.keys().copied().eq(0..slots.len() as u32);
        let list: Arc<[SocketAddr]> = slots.into_values().collect();
        read.insert(key, whole.then_some(list)?);
    }
    Some(read)
}
