//! What becomes of one object.

use std::sync::Arc;

use serde_json::{Value, json};

use super::graph::{holds_dependents, owner_key, owner_uid, owners};
use crate::api::Api;
use crate::object;
use crate::status::Failure;
use crate::store::{Key, Snapshot, Txn};
use crate::verbs::delete::{FOREGROUND, ORPHAN, Options, Propagation, delete_in};
use crate::verbs::update::{Place, update_in};

/// Does what must be done about an object and answers which others must be looked at then.
/// `dependents` are the objects that may name it as their owner.
pub(super) async fn act(
    api: &Arc<Api>,
    snapshot: &Snapshot,
    key: Key,
    dependents: Vec<Key>,
) -> Result<Vec<Key>, Failure> {
    // Most objects need nothing, which is seen without a write.
    let Some(object) = snapshot.get(&key) else {
        return Ok(Vec::new());
    };
    let rest = References::of(api, &key, &object, |key| snapshot.get(key));
    if !holds_dependents(&object)
        && (rest.none() || (rest.waiting.is_empty() && rest.dangling.is_empty()))
    {
        return Ok(Vec::new());
    }
    let shared = Arc::clone(api);
    api.store
        .write(false, move |txn| act_in(&shared, txn, &key, &dependents))
        .await
}

fn act_in(
    api: &Api,
    txn: &mut Txn<'_>,
    key: &Key,
    dependents: &[Key],
) -> Result<Vec<Key>, Failure> {
    let Some(object) = txn.get(key) else {
        return Ok(Vec::new());
    };
    let uid = object::uid(&object).to_owned();
    let names_it = |object: &Value| {
        owners(object)
            .iter()
            .find(|owner| owner_uid(owner) == uid)
            .cloned()
    };
    let dependents: Vec<(&Key, Arc<Value>, Value)> = dependents
        .iter()
        .filter_map(|key| {
            let object = txn.get(key)?;
            let reference = names_it(&object)?;
            Some((key, object, reference))
        })
        .collect();
    if holds_dependents(&object) {
        if object::finalizers(&object).contains(&ORPHAN) {
            for (key, _, _) in &dependents {
                forget_owners(api, txn, key, std::slice::from_ref(&uid))?;
            }
            remove_finalizer(api, txn, key, ORPHAN)?;
            return Ok(Vec::new());
        }
        let blocked = dependents
            .iter()
            .any(|(_, _, reference)| reference["blockOwnerDeletion"] == true);
        if !blocked {
            remove_finalizer(api, txn, key, FOREGROUND)?;
        }
        return Ok(dependents
            .iter()
            .filter(|(_, object, _)| !object::deleting(object))
            .map(|(key, ..)| (*key).clone())
            .collect());
    }
    let references = References::of(api, key, &object, |key| txn.get(key));
    if references.none() || (references.waiting.is_empty() && references.dangling.is_empty()) {
        return Ok(Vec::new());
    }
    if references.solid > 0 {
        let mut gone = references.dangling;
        gone.extend(references.waiting);
        forget_owners(api, txn, key, &gone)?;
        return Ok(Vec::new());
    }
    if object::deleting(&object) {
        return Ok(Vec::new());
    }
    let finalizers = object::finalizers(&object);
    let propagation = if finalizers.contains(&ORPHAN) {
        Propagation::Orphan
    } else if finalizers.contains(&FOREGROUND)
        || (!references.waiting.is_empty() && !dependents.is_empty())
    {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    let options = Options {
        propagation: Some(propagation),
        uid: Some(uid),
        ..Options::default()
    };
    delete_in(api, txn, key, &options)?;
    Ok(Vec::new())
}

/// The owners of an object, by what has become of them.
struct References {
    /// They exist (or their kind is not served, and nobody knows).
    solid: usize,
    /// They wait for their dependents.
    waiting: Vec<String>,
    /// They are gone.
    dangling: Vec<String>,
}

impl References {
    fn of(
        api: &Api,
        key: &Key,
        object: &Value,
        find: impl Fn(&Key) -> Option<Arc<Value>>,
    ) -> References {
        let mut references = References {
            solid: 0,
            waiting: Vec::new(),
            dangling: Vec::new(),
        };
        for reference in owners(object) {
            let uid = owner_uid(reference);
            let Some(owner) = owner_key(api.kinds, key, reference) else {
                references.solid += 1;
                continue;
            };
            match find(&owner).filter(|owner| object::uid(owner) == uid) {
                None => references.dangling.push(uid.to_owned()),
                Some(owner)
                    if object::deleting(&owner)
                        && object::finalizers(&owner).contains(&FOREGROUND) =>
                {
                    references.waiting.push(uid.to_owned());
                }
                Some(_) => references.solid += 1,
            }
        }
        references
    }

    fn none(&self) -> bool {
        self.solid == 0 && self.waiting.is_empty() && self.dangling.is_empty()
    }
}

fn forget_owners(api: &Api, txn: &mut Txn<'_>, key: &Key, uids: &[String]) -> Result<(), Failure> {
    change_metadata(api, txn, key, "ownerReferences", |one| {
        !uids.iter().any(|uid| uid == owner_uid(one))
    })
}

fn remove_finalizer(
    api: &Api,
    txn: &mut Txn<'_>,
    key: &Key,
    finalizer: &str,
) -> Result<(), Failure> {
    change_metadata(api, txn, key, "finalizers", |one| one != finalizer)
}

/// Keeps what is wanted of a list in the metadata.
fn change_metadata(
    api: &Api,
    txn: &mut Txn<'_>,
    key: &Key,
    field: &str,
    keep: impl Fn(&Value) -> bool,
) -> Result<(), Failure> {
    let place = Place {
        key: key.clone(),
        subresource: None,
        dry_run: false,
    };
    let change = |old: &Value| {
        let mut object = old.clone();
        let list = old["metadata"][field].as_array().into_iter().flatten();
        let kept: Vec<Value> = list.filter(|one| keep(one)).cloned().collect();
        object::set_meta(
            &mut object,
            field,
            if kept.is_empty() {
                Value::Null
            } else {
                json!(kept)
            },
        );
        Ok(object)
    };
    update_in(api, txn, &place, change).map(drop)
}
