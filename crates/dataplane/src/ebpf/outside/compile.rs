//! From the model's decisions to the maps of the programs at devices.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::{
    Action, Balance, Family, Frontend, FrontendKind, LocalPods, NodeFacts, Place, PortKey,
    Protocol, ServicePort, Snapshot, Treatment, decide, packed,
};

use super::state::{By, Outside, Served};
use crate::ebpf::compile::{changed, hash, slots};
use crate::ebpf::state::{ListKey, Pick};

/// What one Service port contributes.
#[derive(Default, PartialEq)]
struct Fragment {
    services: Vec<(Frontend, Served)>,
    lists: BTreeMap<ListKey, Arc<[SocketAddr]>>,
}

pub(crate) fn compile(snapshot: &Snapshot) -> Outside {
    let node = snapshot.node();
    let mut outside = Outside::default();
    for ip in &node.node_port_addresses {
        outside.node_port_ips.insert(*ip, ());
    }
    if let LocalPods::Cidrs(ranges) = &node.local_pods {
        let ranges = ranges.iter().map(|range| (range.trunc(), ()));
        outside.pods.extend(ranges);
    }
    for port in packed(snapshot.ports().collect()) {
        insert(&mut outside, fragment(node, port));
    }
    outside
}

/// Takes out all old fragments before any new one goes in: a frontend may have moved from one port to another.
pub(crate) fn update(
    outside: &mut Outside,
    before: &Snapshot,
    snapshot: &Snapshot,
    touched: &[PortKey],
) {
    let (old, new) = changed(before, snapshot, touched, fragment);
    old.iter().for_each(|old| remove(outside, old));
    new.into_iter().for_each(|new| insert(outside, new));
}

fn insert(outside: &mut Outside, fragment: Fragment) {
    outside.services.extend(fragment.services);
    outside.lists.extend(fragment.lists);
}

fn remove(outside: &mut Outside, fragment: &Fragment) {
    for (frontend, _) in &fragment.services {
        outside.services.remove(frontend);
    }
    for key in fragment.lists.keys() {
        outside.lists.remove(key);
    }
}

fn fragment(node: &NodeFacts, port: &ServicePort) -> Fragment {
    let mut fragment = Fragment::default();
    let treatments = decide(node, port);
    for family in Family::ALL {
        let ours = |t: &&Treatment| t.frontend.place.family() == family;
        let mut ours = treatments.iter().filter(ours).peekable();
        let Some(id) = ours.peek().map(|first| first.frontend) else {
            continue;
        };
        for treatment in ours {
            fragment.treatment(id, node, treatment);
        }
    }
    fragment
}

impl Fragment {
    fn treatment(&mut self, id: Frontend, node: &NodeFacts, treatment: &Treatment) {
        let frontend = treatment.frontend;
        let hides_a_node_port = match frontend.place {
            Place::Address(ip) => node.node_port_addresses.contains(&ip),
            Place::NodePort(_) => false,
        };
        let served = self.served(id, node, treatment);
        let served = served.or(hides_a_node_port.then_some(Served {
            id,
            pick: None,
            by: By::Chance,
            masquerade: false,
            pods: false,
        }));
        self.services
            .extend(served.map(|served| (frontend, served)));
    }

    /// `None` if only the rules can do it.
    fn served(&mut self, id: Frontend, node: &NodeFacts, treatment: &Treatment) -> Option<Served> {
        let by = by(treatment)?;
        let Action::Balance {
            endpoints,
            masquerade,
        } = &treatment.outside
        else {
            return None;
        };
        let pods = treatment.pod == treatment.outside;
        // Programs know pods by their addresses.
        let by_interface = matches!(
            node.local_pods,
            LocalPods::Interface(_) | LocalPods::InterfacePrefix(_)
        );
        if by_interface && !pods {
            return None;
        }
        let list = slots(endpoints, treatment.balance);
        let pick = Pick {
            list: hash(&list),
            slots: u32::try_from(list.len()).ok().filter(|count| *count > 0)?,
        };
        let key = ListKey {
            id,
            hash: pick.list,
        };
        self.lists.entry(key).or_insert(list);
        Some(Served {
            id,
            pick: Some(pick),
            by,
            masquerade: *masquerade,
            pods,
        })
    }
}

/// How programs choose there, if they can: they remember no client and count no turns, and know no ranges.
fn by(treatment: &Treatment) -> Option<By> {
    let carried = matches!(treatment.frontend.protocol, Protocol::Tcp | Protocol::Udp);
    let external = treatment.kind != FrontendKind::ClusterIp;
    let open = treatment.affinity.is_none() && treatment.sources.is_none();
    if !carried || !external || !open {
        return None;
    }
    match treatment.balance {
        Balance::Random => Some(By::Chance),
        Balance::SourceHash => Some(By::Address),
        Balance::Maglev => Some(By::Flow),
        Balance::RoundRobin => None,
    }
}
