//! Maps as the kernel has them: bytes and nothing else.
#![allow(dead_code, clippy::unwrap_used)] // Each test takes what it needs; an op that is wrong is a failed test.

pub mod outside;

use std::collections::BTreeMap;

use portolan_dataplane::ebpf::{
    Deed, ENDPOINT_KEY_LEN, ENDPOINT_LEN, MEMBER_LEN, NODE_PORT_IP_LEN, Op, Readback,
    SERVICE_KEY_LEN, SERVICE_LEN, Sockets, adopt, endpoint_key_of, endpoint_of, ip_of, member_of,
    service_key_of, service_of,
};

/// The maps that the agent writes.
#[derive(Clone, Default)]
pub struct Maps {
    pub services: BTreeMap<[u8; SERVICE_KEY_LEN], [u8; SERVICE_LEN]>,
    pub endpoints: BTreeMap<[u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    pub members: BTreeMap<[u8; MEMBER_LEN], u8>,
    pub node_port_ips: BTreeMap<[u8; NODE_PORT_IP_LEN], u8>,
}

impl Maps {
    /// Does one thing; what it removes must stand.
    pub fn op(&mut self, op: &Op) {
        match op {
            Op::Reset => *self = Maps::default(),
            Op::PutEndpoint(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.endpoints.insert(key, endpoint_of(*to));
            }
            Op::PutMember(list, to) => {
                self.members.insert(member_of(*list, *to), 1);
            }
            Op::RemoveMember(list, to) => {
                self.members.remove(&member_of(*list, *to)).unwrap();
            }
            Op::PutNodePortIp(ip) => {
                self.node_port_ips.insert(ip_of(*ip), 1);
            }
            Op::PutService(frontend, entry) => {
                let key = service_key_of(*frontend);
                self.services.insert(key, service_of(entry));
            }
            Op::RemoveService(frontend) => {
                self.services.remove(&service_key_of(*frontend)).unwrap();
            }
            Op::RemoveNodePortIp(ip) => {
                self.node_port_ips.remove(&ip_of(*ip)).unwrap();
            }
            Op::RemoveEndpoint(list, slot) => {
                let key = endpoint_key_of(*list, *slot);
                self.endpoints.remove(&key).unwrap();
            }
        }
    }

    pub fn read(&self) -> Option<Sockets> {
        adopt(&Readback {
            services: self.services.iter().map(|(k, v)| (*k, *v)).collect(),
            endpoints: self.endpoints.iter().map(|(k, v)| (*k, *v)).collect(),
            members: self.members.keys().copied().collect(),
            node_port_ips: self.node_port_ips.keys().copied().collect(),
        })
    }

    /// Whether every entry leads to slots that are there, and to members where pods stay.
    pub fn is_whole(&self) -> bool {
        let sockets = self.read().unwrap();
        sockets.services.values().all(|entry| {
            let deeds = entry.pod.into_iter().chain(entry.host);
            deeds.into_iter().all(|deed| {
                let Deed::Pick(pick) = deed else { return true };
                let key = portolan_dataplane::ebpf::ListKey {
                    id: entry.id,
                    hash: pick.list,
                };
                let list = sockets.lists.get(&key);
                let there = list.is_some_and(|list| list.len() == pick.slots as usize);
                let stays = entry.affinity_s.is_some() && entry.pod == Some(deed);
                let members = sockets.members.get(&key);
                there
                    && (!stays
                        || members.is_some_and(|members| {
                            list.unwrap().iter().all(|to| members.contains(to))
                        }))
            })
        })
    }
}
