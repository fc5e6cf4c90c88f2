//! What the reference knows: the objects of a cluster as changes have left them.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::names::{Change, Import, Kind, Label, ObjectName, Owner, Pod, Service, Slice};

/// The objects of a cluster.
#[derive(Clone, Default)]
pub struct Objects {
    pub(super) namespaces: BTreeMap<Label, u32>,
    pub(super) services: BTreeMap<Owner, (Service, u32)>,
    pub(super) slices: BTreeMap<ObjectName, (Slice, u32)>,
    pub(super) pods: BTreeMap<ObjectName, (Pod, u32)>,
    pub(super) imports: BTreeMap<Owner, (Import, u32)>,
    rounds: BTreeMap<Kind, u32>,
    pub(super) listed: BTreeSet<Kind>,
}

impl Objects {
    /// Takes in a change.
    pub fn apply(&mut self, change: Change) {
        let round = |kind| self.rounds.get(&kind).copied().unwrap_or_default();
        match change {
            Change::Listing(kind) => *self.rounds.entry(kind).or_default() += 1,
            Change::Listed(kind) => {
                let now = round(kind);
                match kind {
                    Kind::Namespace => self.namespaces.retain(|_, round| *round == now),
                    Kind::Service => self.services.retain(|_, (_, round)| *round == now),
                    Kind::Slice => self.slices.retain(|_, (_, round)| *round == now),
                    Kind::Pod => self.pods.retain(|_, (_, round)| *round == now),
                    Kind::Import => self.imports.retain(|_, (_, round)| *round == now),
                }
                self.listed.insert(kind);
            }
            Change::Namespace(name) => {
                let round = round(Kind::Namespace);
                self.namespaces.insert(name, round);
            }
            Change::NamespaceGone(name) => {
                self.namespaces.remove(&name);
            }
            Change::Service(service) => {
                let round = round(Kind::Service);
                self.services
                    .insert(service.owner.clone(), (service, round));
            }
            Change::ServiceGone(owner) => {
                self.services.remove(&owner);
            }
            Change::Slice(slice) => {
                let round = round(Kind::Slice);
                self.slices.insert(slice.object.clone(), (slice, round));
            }
            Change::SliceGone(object) => {
                self.slices.remove(&object);
            }
            Change::Pod(pod) => {
                let round = round(Kind::Pod);
                self.pods.insert(pod.object.clone(), (pod, round));
            }
            Change::PodGone(object) => {
                self.pods.remove(&object);
            }
            Change::Import(import) => {
                let round = round(Kind::Import);
                self.imports.insert(import.owner.clone(), (import, round));
            }
            Change::ImportGone(owner) => {
                self.imports.remove(&owner);
            }
        }
    }
}
