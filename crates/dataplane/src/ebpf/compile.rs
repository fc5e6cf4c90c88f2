//! From the model's decisions to the maps of the socket programs: what programs can do exactly, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_model::balance::ENDPOINTS_MAX;
use portolan_model::hash::jhash;
use portolan_model::{
    Action, Balance, Choices, Family, Frontend, LocalPods, NodeFacts, PortKey, Protocol,
    ServicePort, Snapshot, Treatment, decide, packed,
};

use super::bytes;
use super::state::{Entry, ListKey, Pick, Pods, Sockets};

/// Any number: it makes these hashes others than those of clients.
const LIST_SEED: u32 = 0x706f_7274;

/// What one Service port contributes.
#[derive(Default, PartialEq)]
struct Fragment {
    services: Vec<(Frontend, Entry)>,
    lists: BTreeMap<ListKey, Arc<[SocketAddr]>>,
}

pub(crate) fn compile(snapshot: &Snapshot) -> Sockets {
    let node = snapshot.node();
    let mut sockets = Sockets {
        pods: match &node.local_pods {
            LocalPods::Cidrs(cidrs) => Pods::Cidrs(cidrs.as_slice().into()),
            _ => Pods::Anybody,
        },
        ..Sockets::default()
    };
    for ip in &node.node_port_addresses {
        sockets.node_port_ips.insert(*ip, ());
    }
    for port in packed(snapshot.ports().collect()) {
        insert(&mut sockets, fragment(node, port));
    }
    sockets
}

/// Takes out all old fragments before any new one goes in: a frontend may have moved from one port to another.
pub(crate) fn update(
    sockets: &mut Sockets,
    before: &Snapshot,
    snapshot: &Snapshot,
    touched: &[PortKey],
) {
    let of = |snapshot: &Snapshot, key| {
        let port = snapshot.port(key);
        port.map_or_else(Fragment::default, |port| fragment(snapshot.node(), port))
    };
    let fragments = touched
        .iter()
        .map(|key| (of(before, key), of(snapshot, key)));
    let changed: Vec<(Fragment, Fragment)> = fragments.filter(|(old, new)| old != new).collect();
    let (old, new): (Vec<Fragment>, Vec<Fragment>) = changed.into_iter().unzip();
    old.iter().for_each(|old| remove(sockets, old));
    new.into_iter().for_each(|new| insert(sockets, new));
}

fn insert(sockets: &mut Sockets, fragment: Fragment) {
    sockets.services.extend(fragment.services);
    sockets.lists.extend(fragment.lists);
}

fn remove(sockets: &mut Sockets, fragment: &Fragment) {
    for (frontend, _) in &fragment.services {
        sockets.services.remove(frontend);
    }
    for key in fragment.lists.keys() {
        sockets.lists.remove(key);
    }
}

/// Programs know neither the address of a client nor whose turn it is.
fn fragment(node: &NodeFacts, port: &ServicePort) -> Fragment {
    let mut fragment = Fragment::default();
    let plain = port.affinity.is_none() && port.balance == Balance::Random;
    if !plain || port.key.protocol != Protocol::Tcp {
        return fragment;
    }
    let treatments = decide(node, port);
    for family in Family::ALL {
        let ours = |t: &&Treatment| t.frontend.place.family() == family;
        let mut ours = treatments.iter().filter(ours).peekable();
        let Some(id) = ours.peek().map(|first| first.frontend) else {
            continue;
        };
        for treatment in ours.filter(|treatment| treatment.sources.is_none()) {
            fragment.treatment(id, node, treatment);
        }
    }
    fragment
}

impl Fragment {
    fn treatment(&mut self, id: Frontend, node: &NodeFacts, treatment: &Treatment) {
        let pod = of_pods(node, treatment).and_then(|action| match action {
            Action::Balance {
                endpoints,
                masquerade: false,
            } => self.pick(id, endpoints),
            _ => None,
        });
        let (host, host_unbound) = match &treatment.host {
            Action::Balance {
                endpoints,
                masquerade,
            } => (self.pick(id, endpoints), *masquerade),
            Action::Reject | Action::Drop => (None, false),
        };
        if pod.is_some() || host.is_some() {
            let entry = Entry {
                id,
                pod,
                host,
                host_unbound,
            };
            self.services.push((treatment.frontend, entry));
        }
    }

    fn pick(&mut self, id: Frontend, endpoints: &Choices) -> Option<Pick> {
        let list = slots(endpoints);
        if list.is_empty() {
            return None;
        }
        let pick = Pick {
            list: hash(&list),
            slots: list.len() as u32,
        };
        let hash = pick.list;
        self.lists.entry(ListKey { id, hash }).or_insert(list);
        Some(pick)
    }
}

/// What happens to sockets outside the node's network namespace, if that is certain.
/// Over which interface their packets will come is not known, so where it matters, nothing is.
fn of_pods<'a>(node: &NodeFacts, treatment: &'a Treatment) -> Option<&'a Action> {
    let family = treatment.frontend.place.family();
    match &node.local_pods {
        LocalPods::Cidrs(_) if node.local_pods.known(family) => Some(&treatment.pod),
        LocalPods::Cidrs(_) | LocalPods::Unknown => Some(&treatment.outside),
        LocalPods::Interface(_) | LocalPods::InterfacePrefix(_) => {
            (treatment.pod == treatment.outside).then_some(&treatment.pod)
        }
    }
}

/// The endpoint of each slot. As in the rules, only the first [`ENDPOINTS_MAX`] endpoints get connections.
fn slots(endpoints: &Choices) -> Arc<[SocketAddr]> {
    let all = &endpoints.addresses;
    match endpoints.slots(Balance::Random) {
        Some(slots) => slots.iter().map(|slot| all[usize::from(*slot)]).collect(),
        None => all.iter().copied().take(ENDPOINTS_MAX).collect(),
    }
}

fn hash(list: &[SocketAddr]) -> u32 {
    let bytes: Vec<u8> = list.iter().flat_map(|to| bytes::endpoint_of(*to)).collect();
    jhash(&bytes, LIST_SEED)
}
