//! A fake of eBPF mode's target: fake rules, and maps of bytes. It can also stop half-way, as the kernel may: maps are
//! changed one element after the other.

use std::collections::BTreeMap;

use portolan_dataplane::ebpf::outside::{self, RANGE_LEN, SERVED_LEN};
use portolan_dataplane::ebpf::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, Ebpf, MEMBER_LEN, NODE_PORT_IP_LEN, Op, Ops, Readback,
    SERVICE_KEY_LEN, SERVICE_LEN, State, adopt, endpoint_key_of, endpoint_of, ip_of, member_of,
    service_key_of, service_of,
};
use portolan_model::{ApplyError, Target};

use crate::fake_nft::FakeNft;
use crate::faulty::OURS;

/// Of so many changes, one stops half-way.
const WHOLE_MAX: u32 = 7;

/// The rules of one network namespace, and the maps of its programs.
#[derive(Clone, Debug, Default)]
pub struct FakeEbpf {
    rules: FakeNft,
    services: BTreeMap<[u8; SERVICE_KEY_LEN], [u8; SERVICE_LEN]>,
    endpoints: BTreeMap<[u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    members: BTreeMap<[u8; MEMBER_LEN], ()>,
    node_port_ips: BTreeMap<[u8; NODE_PORT_IP_LEN], ()>,
    outside: Outside,
    changes: u32,
}

/// The maps of the programs at devices.
#[derive(Clone, Debug, Default)]
struct Outside {
    services: BTreeMap<[u8; SERVICE_KEY_LEN], [u8; SERVED_LEN]>,
    slots: BTreeMap<[u8; ENDPOINT_KEY_LEN], [u8; ENDPOINT_LEN]>,
    node_port_ips: BTreeMap<[u8; NODE_PORT_IP_LEN], ()>,
    pods: BTreeMap<[u8; RANGE_LEN], ()>,
}

impl Outside {
    fn op(&mut self, op: &outside::Op) {
        use outside::Op;
        match op {
            Op::Reset => *self = Outside::default(),
            Op::PutSlot(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.slots.insert(key, endpoint_of(*to));
            }
            Op::PutNodePortIp(ip) => {
                self.node_port_ips.insert(ip_of(*ip), ());
            }
            Op::PutPods(range) => {
                self.pods.insert(outside::range_of(*range), ());
            }
            Op::PutServed(frontend, served) => {
                let key = service_key_of(*frontend);
                self.services.insert(key, outside::served_of(served));
            }
            Op::RemoveServed(frontend) => {
                self.services.remove(&service_key_of(*frontend));
            }
            Op::RemoveNodePortIp(ip) => {
                self.node_port_ips.remove(&ip_of(*ip));
            }
            Op::RemovePods(range) => {
                self.pods.remove(&outside::range_of(*range));
            }
            Op::RemoveSlot(list, slot) => {
                self.slots.remove(&endpoint_key_of(*list, *slot));
            }
        }
    }

    fn read(&self) -> Option<outside::Outside> {
        outside::adopt(&outside::Readback {
            services: self.services.iter().map(|(k, v)| (*k, *v)).collect(),
            slots: self.slots.iter().map(|(k, v)| (*k, *v)).collect(),
            node_port_ips: self.node_port_ips.keys().copied().collect(),
            pods: self.pods.keys().copied().collect(),
        })
    }
}

impl FakeEbpf {
    /// What somebody does who flushes all rules of the machine: the programs stay.
    pub fn wipe(&mut self) {
        self.rules.wipe();
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::Reset => {
                self.services.clear();
                self.endpoints.clear();
                self.members.clear();
                self.node_port_ips.clear();
            }
            Op::PutEndpoint(list, slot, to) => {
                let key = endpoint_key_of(*list, *slot);
                self.endpoints.insert(key, endpoint_of(*to));
            }
            Op::PutMember(list, to) => {
                self.members.insert(member_of(*list, *to), ());
            }
            Op::RemoveMember(list, to) => {
                self.members.remove(&member_of(*list, *to));
            }
            Op::PutNodePortIp(ip) => {
                self.node_port_ips.insert(ip_of(*ip), ());
            }
            Op::PutService(frontend, entry) => {
                let key = service_key_of(*frontend);
                self.services.insert(key, service_of(entry));
            }
            Op::RemoveService(frontend) => {
                self.services.remove(&service_key_of(*frontend));
            }
            Op::RemoveNodePortIp(ip) => {
                self.node_port_ips.remove(&ip_of(*ip));
            }
            Op::RemoveEndpoint(list, slot) => {
                self.endpoints.remove(&endpoint_key_of(*list, *slot));
            }
        }
    }
}

impl Target<Ebpf> for FakeEbpf {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        self.rules.apply(&ops.rules)?;
        self.changes += 1;
        let stops = self.changes.is_multiple_of(WHOLE_MAX);
        let part = if stops { 2 } else { 1 };
        let sockets = &ops.sockets[..ops.sockets.len() / part];
        sockets.iter().for_each(|op| self.op(op));
        let outside = &ops.outside[..ops.outside.len() / part];
        outside.iter().for_each(|op| self.outside.op(op));
        match stops {
            true => Err(ApplyError {
                doing: "eBPF map".to_owned(),
                words: format!("Cannot allocate memory ({OURS})"),
            }),
            false => Ok(()),
        }
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        let sockets = adopt(&Readback {
            services: self.services.iter().map(|(k, v)| (*k, *v)).collect(),
            endpoints: self.endpoints.iter().map(|(k, v)| (*k, *v)).collect(),
            members: self.members.keys().copied().collect(),
            node_port_ips: self.node_port_ips.keys().copied().collect(),
        });
        let rules = self.rules.read()?;
        let read = || {
            Some(State {
                rules: rules?,
                sockets: sockets?,
                outside: self.outside.read()?,
            })
        };
        Ok(read())
    }
}
