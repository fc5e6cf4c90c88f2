//! Who owns whom.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::kind::{Kind, Scope};
use crate::object;
use crate::store::Key;
use crate::verbs::create::group_version;
use crate::verbs::delete::{FOREGROUND, ORPHAN};

/// An owner's uid → the objects that name it.
#[derive(Default)]
pub(super) struct Graph {
    dependents: BTreeMap<String, BTreeSet<Key>>,
}

impl Graph {
    /// The objects that name an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Key> {
        self.dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Follows one change; which objects must be looked at because of it.
    pub(super) fn change(
        &mut self,
        kinds: &'static [&'static Kind],
        key: &Key,
        old: Option<&Value>,
        new: Option<&Value>,
    ) -> Vec<Key> {
        for owner in old.into_iter().flat_map(owners) {
            if let Some(set) = self.dependents.get_mut(owner_uid(owner)) {
                set.remove(key);
                if set.is_empty() {
                    self.dependents.remove(owner_uid(owner));
                }
            }
        }
        for owner in new.into_iter().flat_map(owners) {
            self.dependents
                .entry(owner_uid(owner).to_owned())
                .or_default()
                .insert(key.clone());
        }
        let mut look = Vec::new();
        match (old, new) {
            (_, Some(new)) => {
                let owned = !owners(new).is_empty()
                    && old.is_none_or(|old| {
                        owners(old) != owners(new) || object::uid(old) != object::uid(new)
                    });
                if owned || holds_dependents(new) {
                    look.push(key.clone());
                }
                // A dependent that let go of an owner may have been the last one that this owner waits for.
                look.extend(old.into_iter().flat_map(|old| owner_keys(kinds, key, old)));
                if let Some(old) = old.filter(|old| object::uid(old) != object::uid(new)) {
                    look.extend(self.dependents(object::uid(old)));
                }
            }
            (Some(old), None) => {
                look.extend(self.dependents(object::uid(old)));
                look.extend(owner_keys(kinds, key, old));
            }
            (None, None) => {}
        }
        look
    }
}

/// Whether an object waits for its dependents.
pub(super) fn holds_dependents(object: &Value) -> bool {
    object::deleting(object)
        && object::finalizers(object)
            .iter()
            .any(|one| [ORPHAN, FOREGROUND].contains(one))
}

/// `metadata.ownerReferences`.
pub(super) fn owners(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// The uid that a reference names.
pub(super) fn owner_uid(reference: &Value) -> &str {
    reference["uid"].as_str().unwrap_or_default()
}

/// Where the owner of a reference must be; `None` for kinds that are not served.
pub(super) fn owner_key(
    kinds: &'static [&'static Kind],
    dependent: &Key,
    reference: &Value,
) -> Option<Key> {
    let (version, kind) = (
        reference["apiVersion"].as_str()?,
        reference["kind"].as_str()?,
    );
    // The version may be another one of the same group.
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let index = kinds
        .iter()
        .position(|known| known.kind == kind && group_version(known) == version)
        .or_else(|| {
            kinds
                .iter()
                .position(|known| known.kind == kind && known.group == group)
        })?;
    let namespace = match kinds[index].scope {
        Scope::Cluster => "",
        Scope::Namespaced => &*dependent.namespace,
    };
    Some(Key::new(index, namespace, reference["name"].as_str()?))
}

fn owner_keys(kinds: &'static [&'static Kind], key: &Key, object: &Value) -> Vec<Key> {
    owners(object)
        .iter()
        .filter_map(|reference| owner_key(kinds, key, reference))
        .collect()
}
