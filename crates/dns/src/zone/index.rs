//! The index: every change goes into it, and every [`Zone`] comes out of it.
//!
//! It has one owner. A change touches the records of one name; a Zone shares everything else with the one before it, so
//! that readers keep theirs and nothing is copied.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_model::names::{
    Backs, Change, Import, Kind, Label, ObjectName, Owner, Pod, Service, Slice,
};

use super::config::{Config, PodNames, Prepared};
use super::records::{Facts, Key, Members, SliceFacts, key_of};
use super::store::{Entry, Resident, Table, Zone};

/// All objects that names are made of, and the Zone that they make.
pub struct Index {
    zone: Zone,
    services: HashMap<Key, State>,
    imports: HashMap<Key, State>,
    slices: HashMap<ObjectName, Kept<Option<Arc<SliceFacts>>>>,
    namespaces: HashMap<Label, Kept<()>>,
    pods: HashMap<ObjectName, Kept<Resident>>,
    /// The number of each kind's listing.
    rounds: [u32; Kind::ALL.len()],
    listed: [bool; Kind::ALL.len()],
}

/// What is known of one name, beside its records.
#[derive(Default)]
struct State {
    /// The listing that named the object last; `None` when there are only slices.
    round: Option<u32>,
    slices: Vec<Arc<SliceFacts>>,
}

struct Kept<T> {
    value: T,
    round: u32,
}

impl Index {
    /// An index of nothing.
    pub fn new(config: Config) -> Self {
        Index {
            zone: Zone::new(Prepared::new(config)),
            services: HashMap::new(),
            imports: HashMap::new(),
            slices: HashMap::new(),
            namespaces: HashMap::new(),
            pods: HashMap::new(),
            rounds: [0; Kind::ALL.len()],
            listed: [false; Kind::ALL.len()],
        }
    }

    /// The names as they are now; to clone it costs nothing.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Takes in one change, which was heard of at `now_s` (seconds since 1970). Says whether an answer may have changed.
    pub fn apply(&mut self, change: Change, now_s: u64) -> bool {
        let changed = match change {
            Change::Listing(kind) => {
                self.rounds[kind as usize] = self.rounds[kind as usize].wrapping_add(1);
                false
            }
            Change::Listed(kind) => self.listed(kind),
            Change::Namespace(name) => self.namespace(name),
            Change::NamespaceGone(name) => self.namespace_gone(&name),
            Change::Service(service) => self.service(service),
            Change::ServiceGone(owner) => self.object_gone(Table::Services, &key_of(&owner)),
            Change::Slice(slice) => self.slice(slice),
            Change::SliceGone(object) => self.slice_gone(&object),
            Change::Pod(pod) => self.pod(pod),
            Change::PodGone(object) => self.pod_gone(&object),
            Change::Import(import) => self.import(import),
            Change::ImportGone(owner) => self.object_gone(Table::Imports, &key_of(&owner)),
        };
        if changed {
            self.zone.serial = now_s as u32;
        }
        changed
    }

    fn round(&self, kind: Kind) -> u32 {
        self.rounds[kind as usize]
    }

    /// A listing is complete: what it has not named is gone.
    fn listed(&mut self, kind: Kind) -> bool {
        let round = self.round(kind);
        let mut changed = match kind {
            Kind::Namespace => {
                let old = stale(&self.namespaces, round);
                old.iter().any_of(|name| self.namespace_gone(name))
            }
            Kind::Slice => {
                let old = stale(&self.slices, round);
                old.iter().any_of(|object| self.slice_gone(object))
            }
            Kind::Pod => {
                let old = stale(&self.pods, round);
                old.iter().any_of(|object| self.pod_gone(object))
            }
            Kind::Service => self.objects_listed(Table::Services, round),
            Kind::Import => self.objects_listed(Table::Imports, round),
        };
        self.listed[kind as usize] = true;
        if !self.zone.listed && self.is_listed() {
            self.zone.listed = true;
            changed = true;
        }
        changed
    }

    fn objects_listed(&mut self, table: Table, round: u32) -> bool {
        let states = self.states(table).iter();
        let old = |(key, state): (&Key, &State)| {
            let old = state.round.is_some_and(|named| named != round);
            old.then(|| key.clone())
        };
        let old: Vec<Key> = states.filter_map(old).collect();
        old.iter().any_of(|key| self.object_gone(table, key))
    }

    /// Whether everything that answers are made of has been listed once.
    fn is_listed(&self) -> bool {
        let config = &self.zone.config.options;
        let needed = |kind: &Kind| match kind {
            Kind::Namespace | Kind::Service => true,
            Kind::Slice => !config.no_endpoints,
            Kind::Pod => config.pods == PodNames::Verified,
            Kind::Import => !config.multicluster.is_empty(),
        };
        let all = Kind::ALL.into_iter();
        all.filter(needed).all(|kind| self.listed[kind as usize])
    }

    fn namespace(&mut self, name: Label) -> bool {
        let round = self.round(Kind::Namespace);
        let new = self.zone.namespaces.insert(name.as_bytes().into(), ());
        self.namespaces.insert(name, Kept { value: (), round });
        new.is_none()
    }

    fn namespace_gone(&mut self, name: &Label) -> bool {
        self.namespaces.remove(name);
        self.zone.namespaces.remove(name.as_bytes()).is_some()
    }

    fn service(&mut self, service: Service) -> bool {
        let key = key_of(&service.owner);
        let round = self.round(Kind::Service);
        self.object(Table::Services, key, Facts::of_service(service), round)
    }

    fn import(&mut self, import: Import) -> bool {
        let key = key_of(&import.owner);
        let round = self.round(Kind::Import);
        self.object(Table::Imports, key, Facts::of_import(import), round)
    }

    fn object(&mut self, table: Table, key: Key, facts: Facts, round: u32) -> bool {
        let state = self.states_mut(table).entry(key.clone()).or_default();
        state.round = Some(round);
        let publish_not_ready = facts.publish_not_ready;
        let before = self.zone.entry(table, &key);
        let members = before.and_then(|entry| entry.members.clone());
        let same = before.and_then(|entry| entry.facts.as_deref());
        let rebuild = same.is_some_and(|facts| facts.publish_not_ready) != publish_not_ready;
        let members = match rebuild {
            true => self.members(table, &key, publish_not_ready),
            false => members,
        };
        let facts = Some(Arc::new(facts));
        self.zone.set(table, &key, Entry { facts, members })
    }

    fn object_gone(&mut self, table: Table, key: &Key) -> bool {
        let Some(state) = self.states_mut(table).get_mut(key) else {
            return false;
        };
        state.round = None;
        if state.slices.is_empty() {
            self.states_mut(table).remove(key);
        }
        let members = self.members(table, key, false);
        let facts = None;
        self.zone.set(table, key, Entry { facts, members })
    }

    fn slice(&mut self, slice: Slice) -> bool {
        if self.zone.config.options.no_endpoints {
            return false;
        }
        let round = self.round(Kind::Slice);
        let object = slice.object.clone();
        let facts = self.encode(slice).map(Arc::new);
        let before = self.slices.get_mut(&object);
        let before = before.and_then(|kept| {
            kept.round = round;
            kept.value.clone()
        });
        if before == facts && self.slices.contains_key(&object) {
            return false;
        }
        let value = facts.clone();
        self.slices.insert(object, Kept { value, round });
        let both = [before.as_ref(), facts.as_ref()];
        let touched = both.map(|facts| facts.map(|facts| (facts.table(), facts.key.clone())));
        if let Some(before) = before {
            self.forget(&before);
        }
        if let Some(facts) = facts {
            let states = self.states_mut(facts.table());
            let state = states.entry(facts.key.clone()).or_default();
            state.slices.push(facts);
        }
        self.touch(touched)
    }

    fn slice_gone(&mut self, object: &ObjectName) -> bool {
        let gone = self.slices.remove(object).and_then(|kept| kept.value);
        let Some(gone) = gone else { return false };
        self.forget(&gone);
        self.touch([Some((gone.table(), gone.key.clone())), None])
    }

    /// A slice as it is kept; `None` for one that says nothing.
    fn encode(&self, slice: Slice) -> Option<SliceFacts> {
        let (owner, cluster): (&Owner, Option<Label>) = match &slice.backs {
            Backs::Nobody => return None,
            Backs::Service(owner) => (owner, None),
            Backs::Import { owner, cluster } => (owner, Some(cluster.clone())),
        };
        let key = key_of(owner);
        let table = if cluster.is_some() {
            Table::Imports
        } else {
            Table::Services
        };
        let known = self.states(table).get_key_value(&key);
        let key = known.map_or(key, |(known, _)| known.clone());
        let pod_names = self.zone.config.options.endpoint_pod_names;
        Some(SliceFacts::new(slice, key, cluster, pod_names))
    }

    fn forget(&mut self, slice: &Arc<SliceFacts>) {
        let states = self.states_mut(slice.table());
        if let Some(state) = states.get_mut(&slice.key) {
            state.slices.retain(|kept| !Arc::ptr_eq(kept, slice));
            if state.slices.is_empty() && state.round.is_none() {
                states.remove(&slice.key);
            }
        }
    }

    /// Makes the endpoints of these names anew.
    fn touch(&mut self, touched: [Option<(Table, Key)>; 2]) -> bool {
        let [first, second] = touched;
        let second = second.filter(|second| first.as_ref() != Some(second));
        [first, second]
            .into_iter()
            .flatten()
            .any_of(|(table, key)| {
                let facts = self.zone.entry(table, &key);
                let facts = facts.and_then(|entry| entry.facts.clone());
                let publish_not_ready = facts.as_ref().is_some_and(|facts| facts.publish_not_ready);
                let members = self.members(table, &key, publish_not_ready);
                self.zone.set(table, &key, Entry { facts, members })
            })
    }

    fn members(&self, table: Table, key: &Key, publish_not_ready: bool) -> Option<Arc<Members>> {
        let state = self.states(table).get(key)?;
        let slices = state.slices.iter().map(Arc::as_ref);
        let members = Members::new(slices, publish_not_ready);
        (!members.is_empty()).then(|| Arc::new(members))
    }

    fn pod(&mut self, pod: Pod) -> bool {
        if self.zone.config.options.pods != PodNames::Verified {
            return false;
        }
        let round = self.round(Kind::Pod);
        let namespace = pod.object.namespace.to_ascii_lowercase();
        let addresses = match pod.live {
            true => pod.addresses.iter().map(|a| a.to_canonical()).collect(),
            false => Box::default(),
        };
        let resident = Resident {
            namespace: self.zone.namespace_label(namespace.as_bytes()),
            addresses,
            host_network: pod.host_network,
        };
        let before = self.slot(&pod.object, round);
        if before.as_ref() == Some(&resident) {
            return false;
        }
        if let Some(before) = &before {
            self.zone.leave(before);
        }
        self.zone.enter(&resident);
        let value = resident;
        self.pods.insert(pod.object, Kept { value, round });
        true
    }

    fn slot(&mut self, object: &ObjectName, round: u32) -> Option<Resident> {
        let kept = self.pods.get_mut(object)?;
        kept.round = round;
        Some(kept.value.clone())
    }

    fn pod_gone(&mut self, object: &ObjectName) -> bool {
        let Some(gone) = self.pods.remove(object) else {
            return false;
        };
        self.zone.leave(&gone.value);
        true
    }

    fn states(&self, table: Table) -> &HashMap<Key, State> {
        match table {
            Table::Services => &self.services,
            Table::Imports => &self.imports,
        }
    }

    fn states_mut(&mut self, table: Table) -> &mut HashMap<Key, State> {
        match table {
            Table::Services => &mut self.services,
            Table::Imports => &mut self.imports,
        }
    }
}

impl SliceFacts {
    fn table(&self) -> Table {
        match self.import {
            true => Table::Imports,
            false => Table::Services,
        }
    }
}

/// What the listing with number `round` has not named.
fn stale<K: Clone, T>(kept: &HashMap<K, Kept<T>>, round: u32) -> Vec<K> {
    let old = kept.iter().filter(|(_, kept)| kept.round != round);
    old.map(|(key, _)| key.clone()).collect()
}

/// As `any`, but does them all.
trait AnyOf: Iterator + Sized {
    fn any_of(self, mut act: impl FnMut(Self::Item) -> bool) -> bool {
        self.fold(false, |any, item| act(item) | any)
    }
}

impl<I: Iterator> AnyOf for I {}
