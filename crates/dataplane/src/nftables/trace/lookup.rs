//! Lookups in sets and maps as the kernel does them: by the bytes in the registers.

use super::World;
use crate::nftables::class::List;
use crate::nftables::element::Element;
use crate::nftables::layout::{Part, SetName};
use crate::nftables::state::Entry;

impl World<'_> {
    /// The data of `key` (the registers from its start) in a set; empty for a set without data.
    pub(super) fn find(&self, set: SetName, key: &[u8]) -> Option<Vec<u8>> {
        let width = |part: &Part| usize::from(part.registers(self.family)) * 4;
        let key = key.get(..set.key().iter().map(width).sum::<usize>())?;
        let table = self.table;
        let mut key = self.reader(key);
        let element = match set {
            SetName::Services => {
                let spot = key.spot()?;
                let Entry { class, id } = table.services.get(&spot)?;
                Element::Service(spot, *class, *id)
            }
            SetName::NodePorts => {
                let (port, protocol) = (key.port()?, key.protocol()?);
                let Entry { class, id } = table.node_ports.get(&(protocol, port))?;
                Element::NodePort(protocol, port, *class, *id)
            }
            SetName::Endpoints | SetName::StickyEndpoints => {
                let (id, slot) = (key.spot()?, key.number()?);
                let list = match slot < List::Other.first_slot() {
                    true => List::Main,
                    false => List::Other,
                };
                let index = (slot - list.first_slot()) as usize;
                let sticky = set == SetName::StickyEndpoints;
                let backing = table.backings.get(&id).filter(|b| b.remembers == sticky)?;
                let to = backing.slot(list, index)?;
                match sticky {
                    false => Element::Endpoint(id, slot, to),
                    true => Element::StickyEndpoint(id, slot, to),
                }
            }
            SetName::Allowed => {
                let (spot, source) = (key.spot()?, key.address()?);
                let ranges = table.allowed.get(&spot)?;
                return ranges.iter().any(|r| r.contains(&source)).then(Vec::new);
            }
            SetName::ClusterIps => return table.cluster_ips.get(&key.address()?).map(|_| vec![]),
            SetName::Hairpins => {
                let (source, to) = (key.address()?, key.address()?);
                let known = source == to && table.hairpins.contains_key(&source);
                return known.then(Vec::new);
            }
            SetName::NodePortIps => {
                return table.node_port_ips.get(&key.address()?).map(|()| vec![]);
            }
            SetName::PodCidrs | SetName::ServiceCidrs => {
                let ranges = match set {
                    SetName::PodCidrs => &table.pod_cidrs,
                    _ => &table.service_cidrs,
                };
                let ip = key.address()?;
                return ranges.keys().any(|r| r.contains(&ip)).then(Vec::new);
            }
            // The memory is empty for the first packet of a client, so nobody asks for members after it either; classes
            // are looked up by `Dispatch`.
            SetName::Affinity
            | SetName::Members
            | SetName::OtherMembers
            | SetName::Classes
            | SetName::Turns => return None,
        };
        let mut data = Vec::new();
        element.write_data(&mut data);
        Some(data)
    }
}
