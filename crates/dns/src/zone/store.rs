//! The Zone: everything that answers are made of, as one value that shares its parts with the Zones before it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::quality::RandomState;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

use super::config::Prepared;
use super::dashed::Key as AddressKey;
use super::records::{Facts, Key, Kind, Members, namespace_of};

/// What a cluster's names say at one moment. To clone it costs nothing.
#[derive(Clone)]
pub struct Zone {
    pub(super) config: Arc<Prepared>,
    /// Labels of the namespaces that exist.
    pub(super) namespaces: GenericHashMap<Arc<[u8]>, (), RandomState, DefaultSharedPtr>,
    services: GenericHashMap<Key, Entry, RandomState, DefaultSharedPtr>,
    imports: GenericHashMap<Key, Entry, RandomState, DefaultSharedPtr>,
    /// Who has an address: as a virtual one, or that of an endpoint.
    pub(super) reverse: imbl::OrdMap<AddressKey, Holders>,
    /// Who is seen at an address from outside.
    pub(super) external: imbl::OrdMap<AddressKey, Holders>,
    /// Services behind which one of our own addresses stands, whatever namespaces have names.
    pub(super) own: Arc<BTreeMap<IpAddr, BTreeSet<Key>>>,
    /// Live pods.
    pods: imbl::OrdMap<AddressKey, Residents>,
    /// Seconds since 1970 of the last change.
    pub(super) serial: u32,
    /// Whether everything has been listed once.
    pub(super) listed: bool,
}

/// Where names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Services,
    Imports,
}

/// One name: what its object says, and its endpoints. Without an object it has no records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub facts: Option<Arc<Facts>>,
    pub members: Option<Arc<Members>>,
}

/// Names that share an address, in order; mostly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Holders {
    One(Key),
    Many(Box<[Key]>),
}

/// One pod and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    pub namespace: Arc<[u8]>,
    pub addresses: Box<[IpAddr]>,
    pub host_network: bool,
}

/// Pods that share an address: those of a node's own network, or an old one and a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Residents {
    One(Tenant),
    Many(Box<[Tenant]>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tenant {
    namespace: Arc<[u8]>,
    host_network: bool,
}

impl Zone {
    /// The serial of SOA, once everything has been listed.
    pub fn serial(&self) -> Option<u32> {
        self.listed.then_some(self.serial)
    }

    pub(super) fn new(config: Prepared) -> Self {
        Zone {
            config: Arc::new(config),
            namespaces: GenericHashMap::new(),
            services: GenericHashMap::new(),
            imports: GenericHashMap::new(),
            reverse: imbl::OrdMap::new(),
            external: imbl::OrdMap::new(),
            own: Arc::default(),
            pods: imbl::OrdMap::new(),
            serial: 0,
            listed: false,
        }
    }

    pub(super) fn entry(&self, table: Table, key: &[u8]) -> Option<&Entry> {
        match table {
            Table::Services => self.services.get(key),
            Table::Imports => self.imports.get(key),
        }
    }

    pub(super) fn entries(&self, table: Table) -> impl Iterator<Item = (&Key, &Entry)> {
        match table {
            Table::Services => self.services.iter(),
            Table::Imports => self.imports.iter(),
        }
    }

    /// Whether names below a namespace exist: it is there, and asked for.
    pub(super) fn has_namespace(&self, label: &[u8]) -> bool {
        self.namespaces.contains_key(label) && self.config.allows(label)
    }

    /// The label as it is shared, if there is such a namespace.
    pub(super) fn namespace_label(&self, label: &[u8]) -> Arc<[u8]> {
        let known = self.namespaces.get_key_value(label);
        known.map_or_else(|| label.into(), |(label, ())| label.clone())
    }

    /// Puts the records of one name in place of those that were there. Says whether they differ.
    pub(super) fn set(&mut self, table: Table, key: &Key, entry: Entry) -> bool {
        let before = self.entry(table, key).cloned().unwrap_or_default();
        if before == entry {
            return false;
        }
        if table == Table::Services {
            self.hold(key, &before, &entry);
        }
        let all = match table {
            Table::Services => &mut self.services,
            Table::Imports => &mut self.imports,
        };
        match entry == Entry::default() {
            true => all.remove(&**key),
            false => all.insert(key.clone(), entry),
        };
        true
    }

    /// Keeps the maps from addresses to names.
    fn hold(&mut self, key: &Key, before: &Entry, after: &Entry) {
        let namespace = &namespace_of(key)[1..];
        if self.config.allows(namespace) {
            change(
                &mut self.reverse,
                key,
                before.addresses(),
                after.addresses(),
            );
            let outside = [before, after].map(Entry::outside);
            let [before, after] = outside;
            change(&mut self.external, key, before, after);
        }
        for own in &self.config.options.own {
            let had = before.has_member(*own);
            let has = after.has_member(*own);
            if had == has {
                continue;
            }
            let holders = Arc::make_mut(&mut self.own).entry(*own).or_default();
            match has {
                true => holders.insert(key.clone()),
                false => holders.remove(key),
            };
        }
    }

    /// A pod uses its addresses.
    pub(super) fn enter(&mut self, pod: &Resident) {
        for address in &pod.addresses {
            let at = AddressKey::of(*address);
            let mut all = self
                .pods
                .get(&at)
                .map_or(Vec::new(), |r| r.as_slice().to_vec());
            let tenant = pod.tenant();
            let place = all.partition_point(|other| *other < tenant);
            all.insert(place, tenant);
            self.pods.insert(at, Residents::of(all));
        }
    }

    /// A pod does not use them any more.
    pub(super) fn leave(&mut self, pod: &Resident) {
        for address in &pod.addresses {
            let at = AddressKey::of(*address);
            let mut all = self
                .pods
                .get(&at)
                .map_or(Vec::new(), |r| r.as_slice().to_vec());
            let tenant = pod.tenant();
            if let Some(place) = all.iter().position(|other| *other == tenant) {
                all.remove(place);
            }
            match all.is_empty() {
                true => self.pods.remove(&at),
                false => self.pods.insert(at, Residents::of(all)),
            };
        }
    }

    /// Whether a live pod in the namespace has the address.
    pub(super) fn has_pod(&self, namespace: &[u8], address: IpAddr) -> bool {
        let residents = self.pods.get(&AddressKey::of(address));
        let mut residents = residents.into_iter().flat_map(Residents::as_slice);
        residents.any(|tenant| *tenant.namespace == *namespace)
    }

    /// The namespace of the pod that speaks with this address; `None` when it is nobody's, or one of several could be
    /// meant: those of a node's own network, or an old and a new pod in two namespaces.
    pub fn namespace_at(&self, address: IpAddr) -> Option<&[u8]> {
        let residents = self.pods.get(&AddressKey::of(address.to_canonical()))?;
        let (first, rest) = residents.as_slice().split_first()?;
        let clear = |other: &Tenant| !other.host_network && other.namespace == first.namespace;
        (clear(first) && rest.iter().all(clear)).then_some(&*first.namespace)
    }
}

impl Resident {
    fn tenant(&self) -> Tenant {
        Tenant {
            namespace: self.namespace.clone(),
            host_network: self.host_network,
        }
    }
}

impl Residents {
    fn of(all: Vec<Tenant>) -> Self {
        match <[Tenant; 1]>::try_from(all) {
            Ok([one]) => Residents::One(one),
            Err(all) => Residents::Many(all.into()),
        }
    }

    fn as_slice(&self) -> &[Tenant] {
        match self {
            Residents::One(one) => std::slice::from_ref(one),
            Residents::Many(all) => all,
        }
    }
}

impl Holders {
    pub fn as_slice(&self) -> &[Key] {
        match self {
            Holders::One(one) => std::slice::from_ref(one),
            Holders::Many(all) => all,
        }
    }

    fn of(all: Vec<Key>) -> Self {
        match <[Key; 1]>::try_from(all) {
            Ok([one]) => Holders::One(one),
            Err(all) => Holders::Many(all.into()),
        }
    }
}

impl Entry {
    /// Every address that has a PTR record because of this name, in order.
    fn addresses(&self) -> Vec<AddressKey> {
        let Some(facts) = &self.facts else {
            return Vec::new();
        };
        if let Kind::Alias(_) = facts.kind {
            return Vec::new();
        }
        let mut all: Vec<AddressKey> = facts
            .addresses()
            .iter()
            .map(|a| AddressKey::of(*a))
            .collect();
        if let Some(members) = &self.members {
            all.extend(members.v4.iter().map(|v4| AddressKey::of((*v4).into())));
            all.extend(members.v6.iter().map(|v6| AddressKey::of((*v6).into())));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Every address at which it is seen from outside, in order.
    fn outside(&self) -> Vec<AddressKey> {
        let external = self
            .facts
            .as_ref()
            .and_then(|facts| facts.external.as_ref());
        let external = external.map_or(&[][..], |external| external.facts.addresses());
        let mut all: Vec<AddressKey> = external.iter().map(|a| AddressKey::of(*a)).collect();
        all.sort_unstable();
        all
    }

    fn has_member(&self, address: IpAddr) -> bool {
        let both = self.facts.as_ref().zip(self.members.as_ref());
        both.is_some_and(|(_, members)| members.at(address).next().is_some())
    }
}

/// Takes `key` away from the addresses that it had and gives it those that it has; both are in order.
fn change(
    map: &mut imbl::OrdMap<AddressKey, Holders>,
    key: &Key,
    before: Vec<AddressKey>,
    after: Vec<AddressKey>,
) {
    for address in &before {
        if after.binary_search(address).is_ok() {
            continue;
        }
        let holders = map.get(address).map_or(&[][..], Holders::as_slice);
        let rest: Vec<Key> = holders.iter().filter(|k| *k != key).cloned().collect();
        match rest.is_empty() {
            true => map.remove(address),
            false => map.insert(*address, Holders::of(rest)),
        };
    }
    for address in after {
        if before.binary_search(&address).is_ok() {
            continue;
        }
        let mut holders = map
            .get(&address)
            .map_or(Vec::new(), |h| h.as_slice().to_vec());
        if let Err(place) = holders.binary_search(key) {
            holders.insert(place, key.clone());
            map.insert(address, Holders::of(holders));
        }
    }
}
