//! The maps of the programs at devices: bytes and nothing else.

use std::collections::BTreeMap;

use portolan_dataplane::ebpf::outside::{
    Op, Outside, RANGE_LEN, Readback, SERVED_LEN, adopt, range_of, served_of,
};
use portolan_dataplane::ebpf::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, ListKey, NODE_PORT_IP_LEN, SERVICE_KEY_LEN, endpoint_key_of,
    endpoint_of, ip_of, service_key_of,
};

/// The four maps that the agent writes.
#[derive(Clone, Default)]
pub struct OutsideMaps {
    pub served: BTreeMap<[u8; SERVICE_KEY_LEN], [u8; SERVED_LEN]>,
    pub slots: BTreeMap<[u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    pub node_ips: BTreeMap<[u8; NODE_PORT_IP_LEN], u8>,
    pub pods: BTreeMap<[u8; RANGE_LEN], u8>,
}

impl OutsideMaps {
    /// Does one thing; what it removes must stand.
    pub fn op(&mut self, op: &Op) {
        match op {
            Op::Reset => *self = OutsideMaps::default(),
            Op::PutSlot(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.slots.insert(key, endpoint_of(*to));
            }
            Op::PutNodePortIp(ip) => {
                self.node_ips.insert(ip_of(*ip), 1);
            }
            Op::PutPods(range) => {
                self.pods.insert(range_of(*range), 1);
            }
            Op::PutServed(frontend, served) => {
                let key = service_key_of(*frontend);
                self.served.insert(key, served_of(served));
            }
            Op::RemoveServed(frontend) => {
                self.served.remove(&service_key_of(*frontend)).unwrap();
            }
            Op::RemoveNodePortIp(ip) => {
                self.node_ips.remove(&ip_of(*ip)).unwrap();
            }
            Op::RemovePods(range) => {
                self.pods.remove(&range_of(*range)).unwrap();
            }
            Op::RemoveSlot(list, slot) => {
                let key = endpoint_key_of(*list, *slot);
                self.slots.remove(&key).unwrap();
            }
        }
    }

    pub fn read(&self) -> Option<Outside> {
        adopt(&Readback {
            services: self.served.iter().map(|(k, v)| (*k, *v)).collect(),
            slots: self.slots.iter().map(|(k, v)| (*k, *v)).collect(),
            node_port_ips: self.node_ips.keys().copied().collect(),
            pods: self.pods.keys().copied().collect(),
        })
    }

    /// Whether every entry leads to slots that are there.
    pub fn is_whole(&self) -> bool {
        let outside = self.read().unwrap();
        outside.services.values().all(|served| {
            served.pick.is_none_or(|pick| {
                let key = ListKey {
                    id: served.id,
                    hash: pick.list,
                };
                let list = outside.lists.get(&key);
                list.is_some_and(|list| list.len() == pick.slots as usize)
            })
        })
    }
}
