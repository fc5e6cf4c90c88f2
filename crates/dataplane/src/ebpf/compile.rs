//! From the model's decisions to the maps of the socket programs: what programs can do exactly, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use portolan_model::balance::ENDPOINTS_MAX;
use portolan_model::hash::jhash;
use portolan_model::{
    Action, Balance, Choices, Family, Frontend, LocalPods, NodeFacts, Place, PortKey, Protocol,
    ServicePort, Snapshot, Treatment, decide, packed,
};

use super::bytes;
use super::state::{Deed, Entry, ListKey, Pick, Pods, Sockets};

/// Any number: it makes these hashes others than those of clients.
const LIST_SEED: u32 = 0x706f_7274;

/// What one Service port contributes.
#[derive(Default, PartialEq)]
struct Fragment {
    services: Vec<(Frontend, Entry)>,
    lists: BTreeMap<ListKey, Arc<[SocketAddr]>>,
    members: BTreeMap<ListKey, Arc<[SocketAddr]>>,
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
    let (old, new) = changed(before, snapshot, touched, fragment);
    old.iter().for_each(|old| remove(sockets, old));
    new.into_iter().for_each(|new| insert(sockets, new));
}

/// What the touched ports contributed and what they contribute now, of those that now contribute something else.
pub(crate) fn changed<F: Default + PartialEq>(
    before: &Snapshot,
    snapshot: &Snapshot,
    touched: &[PortKey],
    fragment: impl Fn(&NodeFacts, &ServicePort) -> F,
) -> (Vec<F>, Vec<F>) {
    let of = |snapshot: &Snapshot, key| {
        let port = snapshot.port(key);
        port.map_or_else(F::default, |port| fragment(snapshot.node(), port))
    };
    let fragments = touched
        .iter()
        .map(|key| (of(before, key), of(snapshot, key)));
    fragments.filter(|(old, new)| old != new).unzip()
}

fn insert(sockets: &mut Sockets, fragment: Fragment) {
    sockets.services.extend(fragment.services);
    sockets.lists.extend(fragment.lists);
    sockets.members.extend(fragment.members);
}

fn remove(sockets: &mut Sockets, fragment: &Fragment) {
    for (frontend, _) in &fragment.services {
        sockets.services.remove(frontend);
    }
    for key in fragment.lists.keys() {
        sockets.lists.remove(key);
        sockets.members.remove(key);
    }
}

/// Programs know neither the address of a client nor whose turn it is.
fn fragment(node: &NodeFacts, port: &ServicePort) -> Fragment {
    let mut fragment = Fragment::default();
    // No program sees a socket of SCTP. Where a process of the node answers, packets find it, and not sockets.
    if port.key.protocol == Protocol::Sctp || port.is_node_local {
        return fragment;
    }
    let treatments = decide(node, port);
    for family in Family::ALL {
        let ours = |t: &&Treatment| t.frontend.place.family() == family;
        let ours: Vec<&Treatment> = treatments.iter().filter(ours).collect();
        let Some(id) = ours.first().map(|first| first.frontend) else {
            continue;
        };
        let is_remembered = port.affinity.is_some();
        let pods = match is_remembered {
            true => ours.iter().all(|treatment| is_whole(node, treatment)),
            false => true,
        };
        for treatment in ours {
            fragment.treatment(id, node, treatment, pods);
        }
    }
    fragment
}

/// Whether no flow of a pod to this frontend is left to the rules: a client must be remembered in one place only.
fn is_whole(node: &NodeFacts, treatment: &Treatment) -> bool {
    match of_pods(node, treatment) {
        None => false,
        Some(Action::Reject | Action::Drop) => true,
        Some(Action::Balance { masquerade, .. }) => {
            !masquerade && treatment.balance == Balance::Random
        }
    }
}

impl Fragment {
    /// `pods` says whether the programs may choose endpoints for pods.
    fn treatment(&mut self, id: Frontend, node: &NodeFacts, treatment: &Treatment, pods: bool) {
        let is_remembered = treatment.affinity.is_some();
        let pod = match of_pods(node, treatment) {
            Some(Action::Balance {
                endpoints,
                masquerade: false,
            }) if pods => self.pick(id, treatment, endpoints),
            Some(Action::Reject) => refusal(treatment),
            _ => None,
        };
        let (host, host_unbound) = match &treatment.host {
            // What the client's address decides is not known, and a process may have several.
            _ if treatment.sources.is_some() => (None, false),
            Action::Balance {
                endpoints,
                masquerade,
            } if !is_remembered => (self.pick(id, treatment, endpoints), *masquerade),
            Action::Reject => (refusal(treatment), false),
            _ => (None, false),
        };
        // A NodePort may answer at the same address and port: who is left to the rules must not be taken for its client.
        let hides =
            |place| matches!(place, Place::Address(ip) if node.node_port_addresses.contains(&ip));
        if pod.is_some() || host.is_some() || hides(treatment.frontend.place) {
            let timeout = treatment.affinity.map_or(0, |a| a.timeout.as_secs());
            let timeout = u32::try_from(timeout).unwrap_or(u32::MAX);
            let entry = Entry {
                id,
                pod,
                host,
                host_unbound,
                affinity_s: NonZeroU32::new(timeout),
            };
            self.services.push((treatment.frontend, entry));
        }
    }

    /// A single endpoint is what every way to choose leads to.
    fn pick(&mut self, id: Frontend, treatment: &Treatment, endpoints: &Choices) -> Option<Deed> {
        if treatment.balance != Balance::Random && endpoints.addresses.len() > 1 {
            return None;
        }
        let list = slots(endpoints, Balance::Random);
        if list.is_empty() {
            return None;
        }
        let hash = hash(&list);
        let slots = list.len() as u32;
        let key = ListKey { id, hash };
        if treatment.affinity.is_some() {
            let all = endpoints.addresses.iter().take(ENDPOINTS_MAX);
            let members = self.members.entry(key);
            members.or_insert_with(|| all.copied().collect());
        }
        self.lists.entry(key).or_insert(list);
        Some(Deed::Pick(Pick { list: hash, slots }))
    }
}

/// A datagram is answered by a packet of the rules: its sender may not wait for an error.
fn refusal(treatment: &Treatment) -> Option<Deed> {
    (treatment.frontend.protocol == Protocol::Tcp).then_some(Deed::Refuse)
}

/// Whether every pod may enter; what only some may is not known before they have an address.
fn lets_pods_in(node: &NodeFacts, treatment: &Treatment) -> bool {
    let Some(sources) = &treatment.sources else {
        return true;
    };
    let LocalPods::Cidrs(cidrs) = &node.local_pods else {
        return false;
    };
    let family = treatment.frontend.place.family();
    let mut pods = cidrs.iter().filter(|c| Family::of(c.addr()) == family);
    node.local_pods.known(family) && pods.all(|pods| sources.iter().any(|all| all.contains(pods)))
}

/// What happens to sockets outside the node's network namespace, if that is certain.
/// Over which interface their packets will come is not known, so where it matters, nothing is.
fn of_pods<'a>(node: &NodeFacts, treatment: &'a Treatment) -> Option<&'a Action> {
    if !lets_pods_in(node, treatment) {
        return None;
    }
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
pub(super) fn slots(endpoints: &Choices, balance: Balance) -> Arc<[SocketAddr]> {
    let all = &endpoints.addresses;
    match endpoints.slots(balance) {
        Some(slots) => slots.iter().map(|slot| all[usize::from(*slot)]).collect(),
        None => all.iter().copied().take(ENDPOINTS_MAX).collect(),
    }
}

pub(super) fn hash(list: &[SocketAddr]) -> u32 {
    let bytes: Vec<u8> = list.iter().flat_map(|to| bytes::endpoint_of(*to)).collect();
    jhash(&bytes, LIST_SEED)
}
