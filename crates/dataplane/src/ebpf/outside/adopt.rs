//! From what a former process left in the maps to a State of them.

use super::bytes::{RANGE_LEN, SERVED_LEN, read_range, read_served};
use super::state::Outside;
use crate::ebpf::adopt::read_lists;
use crate::ebpf::bytes::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, NODE_PORT_IP_LEN, SERVICE_KEY_LEN, read_ip, read_service_key,
};

/// All that is in the maps, in any order.
#[derive(Clone, Debug, Default)]
pub struct Readback {
    /// Of @served.
    pub services: Vec<([u8; SERVICE_KEY_LEN], [u8; SERVED_LEN])>,
    /// Of @slots.
    pub slots: Vec<([u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN])>,
    /// Of @node_ips.
    pub node_port_ips: Vec<[u8; NODE_PORT_IP_LEN]>,
    /// Of @pod_ranges.
    pub pods: Vec<[u8; RANGE_LEN]>,
}

/// `None` if something in it is not as we write it: the maps are then written anew.
pub fn adopt(found: &Readback) -> Option<Outside> {
    let mut outside = Outside::default();
    for (key, value) in &found.services {
        let (frontend, served) = (read_service_key(key)?, read_served(value)?);
        outside.services.insert(frontend, served);
    }
    outside.lists = read_lists(&found.slots)?;
    for ip in &found.node_port_ips {
        outside.node_port_ips.insert(read_ip(ip), ());
    }
    for range in &found.pods {
        outside.pods.insert(read_range(range)?, ());
    }
    Some(outside)
}
