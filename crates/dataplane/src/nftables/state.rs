//! What should stand in the kernel. All maps are persistent: a clone costs O(1), and `diff` skips what both sides share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;
use portolan_model::{Family, NodeFacts, Origin, Protocol, Snapshot, packed};

use super::addresses::Addresses;
use super::class::{Class, List};
use super::element::{Element, Spot};
use super::expr::{Rule, digest_of};
use super::layout::{BaseChain, ChainId};
use super::render::{self, Pods};

/// Both tables, and the Snapshot that they were compiled from.
///
/// What a Service port has contributed is not kept: it is computed anew when the port changes, out of this Snapshot,
/// whose memory is shared with everybody else who holds it.
/// Two States are equal when the same things stand in the kernel; the bookkeeping does not count,
/// so a State that was read back can equal one that was compiled.
#[derive(Clone, Debug, Default)]
pub struct State {
    tables: [Table; 2],
    pub(crate) snapshot: Snapshot,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
    }
}

impl State {
    pub(crate) fn table(&self, family: Family) -> &Table {
        &self.tables[family as usize]
    }

    pub(crate) fn table_mut(&mut self, family: Family) -> &mut Table {
        &mut self.tables[family as usize]
    }

    /// All elements of both tables, in a fixed order; for tests and listings, not for the hot path.
    pub fn elements(&self) -> Vec<Element> {
        let of = |family| self.table(family).elements(family);
        Family::ALL.into_iter().flat_map(of).collect()
    }
}

/// How many users a shared thing has. It is bookkeeping and not in the kernel, so all counts are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uses(pub u32);

impl PartialEq for Uses {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The value of a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub class: Class,
    pub id: Spot,
}

/// Who stands behind an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backing {
    pub main: Addresses,
    pub other: Addresses,
    /// Which endpoint each slot of the main list has, and of the other; an empty one says that slot i has endpoint i.
    /// `None` if both are empty, so that Services without weights and hashes pay nothing for it.
    pub tables: Option<Box<[Vec<u16>; 2]>>,
    /// Whether clients are remembered, so that members have to be known.
    pub remembers: bool,
}

impl Backing {
    pub fn list(&self, list: List) -> &Addresses {
        match list {
            List::Main => &self.main,
            List::Other => &self.other,
        }
    }

    /// How many slots a list has.
    pub fn slot_count(&self, list: List) -> usize {
        match self.table(list) {
            [] => self.list(list).len(),
            table => table.len(),
        }
    }

    /// The endpoint in a slot of a list, the first of which is 0.
    pub fn slot(&self, list: List, index: usize) -> Option<SocketAddr> {
        let index = match self.table(list) {
            [] => index,
            table => usize::from(*table.get(index)?),
        };
        self.list(list).get(index)
    }

    /// Puts endpoints behind a list. An empty table says that slot i has endpoint i.
    pub fn set(&mut self, list: List, endpoints: &[SocketAddr], table: Vec<u16>) {
        match list {
            List::Main => self.main = Addresses::of(endpoints),
            List::Other => self.other = Addresses::of(endpoints),
        }
        if !table.is_empty() {
            self.tables.get_or_insert_default()[list as usize] = table;
        }
    }

    fn table(&self, list: List) -> &[u16] {
        self.tables
            .as_ref()
            .map_or(&[], |tables| &tables[list as usize])
    }
}

/// What one Service port contributes to one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub id: Spot,
    pub backing: Arc<Backing>,
    /// Frontends with an address.
    pub services: Vec<(Spot, Class)>,
    /// Sources that may enter the guarded ones of them.
    pub allowed: Vec<(Spot, Arc<[IpNet]>)>,
    pub node_port: Option<(Protocol, u16, Class)>,
    /// Endpoints that stand behind virtual servers instead of the backing.
    pub served: Vec<SocketAddr>,
}

/// What one Service port contributes, by family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub parts: [Option<Part>; 2],
    pub cluster_ips: Vec<IpAddr>,
}

/// A chain: how many elements lead to it, and the digest of its rules.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChainUse {
    pub uses: Uses,
    pub digest: u64,
}

/// One table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub services: OrdMap<Spot, Entry>,
    pub node_ports: OrdMap<(Protocol, u16), Entry>,
    pub backings: OrdMap<Spot, Arc<Backing>>,
    pub allowed: OrdMap<Spot, Arc<[IpNet]>>,
    pub cluster_ips: OrdMap<IpAddr, Uses>,
    pub hairpins: OrdMap<IpAddr, Uses>,
    pub node_port_ips: OrdMap<IpAddr, ()>,
    pub pod_cidrs: OrdMap<IpNet, ()>,
    pub service_cidrs: OrdMap<IpNet, ()>,
    /// A class chain has an element in `classes` that leads to it.
    pub chains: OrdMap<ChainId, ChainUse>,
    /// Slots and members that were found and make no backing; only what is read back has any.
    pub strays: Vec<Element>,
    /// How rules recognise pods. Not compared: the digests of the chains depend on it.
    pub pods: Pods,
    /// Whether there are virtual servers beside it. Not compared, for the same reason.
    pub servers: bool,
    /// The doors of the relay, in userspace mode. Not compared, for the same reason.
    pub doors: Vec<(SocketAddr, Origin)>,
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.services == other.services
            && self.node_ports == other.node_ports
            && self.backings == other.backings
            && self.allowed == other.allowed
            && self.cluster_ips == other.cluster_ips
            && self.hairpins == other.hairpins
            && self.node_port_ips == other.node_port_ips
            && self.pod_cidrs == other.pod_cidrs
            && self.service_cidrs == other.service_cidrs
            && self.chains == other.chains
            && self.strays == other.strays
    }
}

impl Table {
    /// The table of a node without Services.
    pub fn of(family: Family, node: &NodeFacts, servers: bool) -> Self {
        let mut table = Table {
            servers,
            pods: Pods::of(&node.local_pods),
            ..Table::default()
        };
        let ours = |ip: &&IpAddr| Family::of(**ip) == family;
        for ip in node.node_port_addresses.iter().filter(ours) {
            table.node_port_ips.insert(*ip, ());
        }
        if let portolan_model::LocalPods::Cidrs(cidrs) = &node.local_pods {
            table.pod_cidrs = disjoint(family, cidrs);
        }
        table.service_cidrs = disjoint(family, &node.service_cidrs);
        for chain in BaseChain::ALL {
            table.use_chain(family, ChainId::Base(chain));
        }
        table
    }

    pub fn use_chain(&mut self, family: Family, chain: ChainId) {
        if let Some(known) = self.chains.get_mut(&chain) {
            known.uses.0 += 1;
            return;
        }
        let rules = self.rules(family, &chain);
        let digest = digest_of(rules.iter().map(|rule| rule.digest(family)));
        let uses = Uses(1);
        self.chains.insert(chain, ChainUse { uses, digest });
    }

    pub fn drop_chain(&mut self, chain: &ChainId) {
        if let Some(known) = self.chains.get_mut(chain) {
            known.uses.0 = known.uses.0.saturating_sub(1);
            if known.uses.0 == 0 {
                self.chains.remove(chain);
            }
        }
    }

    pub fn chains(&self) -> impl Iterator<Item = &ChainId> {
        self.chains.keys()
    }

    pub fn rules(&self, family: Family, chain: &ChainId) -> Vec<Rule> {
        render::rules(family, chain, &self.pods, self.servers, &self.doors)
    }

    /// All elements, in a fixed order.
    pub fn elements(&self, family: Family) -> Vec<Element> {
        let mut all = Vec::new();
        for (spot, entry) in &self.services {
            all.push(Element::Service(*spot, entry.class, entry.id));
        }
        for ((protocol, port), entry) in &self.node_ports {
            all.push(Element::NodePort(*protocol, *port, entry.class, entry.id));
        }
        for (id, backing) in &self.backings {
            super::diff::endpoints(*id, backing, &mut |element| all.push(element));
        }
        all.extend(&self.strays);
        for (spot, ranges) in &self.allowed {
            all.extend(ranges.iter().map(|range| Element::Allowed(*spot, *range)));
        }
        all.extend(self.cluster_ips.keys().map(|ip| Element::ClusterIp(*ip)));
        all.extend(self.hairpins.keys().map(|ip| Element::Hairpin(*ip)));
        all.extend(self.node_port_ips.keys().map(|ip| Element::NodePortIp(*ip)));
        all.extend(self.pod_cidrs.keys().map(|net| Element::PodCidr(*net)));
        all.extend(
            self.service_cidrs
                .keys()
                .map(|net| Element::ServiceCidr(*net)),
        );
        for chain in self.chains.keys() {
            all.extend(chain.element(family));
        }
        all
    }
}

/// How often each address is there, in a map that is packed.
pub(crate) fn counted(mut ips: Vec<IpAddr>) -> OrdMap<IpAddr, Uses> {
    ips.sort_unstable();
    let runs = ips.chunk_by(|a, b| a == b);
    let counts = runs.map(|run| (run[0], Uses(run.len() as u32))).collect();
    packed(counts).collect()
}

pub(crate) fn count_up(map: &mut OrdMap<IpAddr, Uses>, ip: IpAddr) {
    map.entry(ip).or_default().0 += 1;
}

pub(crate) fn count_down(map: &mut OrdMap<IpAddr, Uses>, ip: &IpAddr) {
    if let Some(uses) = map.get_mut(ip) {
        uses.0 = uses.0.saturating_sub(1);
        if uses.0 == 0 {
            map.remove(ip);
        }
    }
}

/// The ranges of one family without overlaps: the kernel refuses ranges that overlap.
fn disjoint(family: Family, ranges: &[IpNet]) -> OrdMap<IpNet, ()> {
    let ours = |range: &&IpNet| Family::of(range.network()) == family;
    let ours: Vec<IpNet> = ranges.iter().filter(ours).map(IpNet::trunc).collect();
    IpNet::aggregate(&ours)
        .into_iter()
        .map(|net| (net, ()))
        .collect()
}
