//! PUT, and what every change of an object that exists goes through.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{Admitted, Api};
use crate::kind::{FieldError, Operation, Subresource};
use crate::object;
use crate::status::{self, Failure};
use crate::store::{Key, Txn};

/// Which object is changed, and how much of it may change.
#[derive(Clone, Debug)]
pub struct Place {
    /// The object.
    pub key: Key,
    /// `None` for the object itself.
    pub subresource: Option<Subresource>,
    /// Nothing is stored.
    pub dry_run: bool,
}

/// Changes an object: `change` makes the new one out of the old one.
pub async fn update<F>(api: &Arc<Api>, place: Place, change: F) -> Result<Arc<Value>, Failure>
where
    F: FnOnce(&Value) -> Result<Value, Failure> + Send + 'static,
{
    let shared = Arc::clone(api);
    api.store
        .write(place.dry_run, move |txn| {
            update_in(&shared, txn, &place, change)
        })
        .await
}

/// The same inside a write.
pub fn update_in(
    api: &Api,
    txn: &mut Txn<'_>,
    place: &Place,
    change: impl FnOnce(&Value) -> Result<Value, Failure>,
) -> Result<Arc<Value>, Failure> {
    let (index, kind) = (place.key.kind, api.kinds[place.key.kind]);
    let old = txn
        .get(&place.key)
        .ok_or_else(|| status::not_found(kind, &place.key.name))?;
    let mut object = change(&old)?;
    check_identity(api, place, &old, &object)?;
    for field in FIXED {
        object::set_meta(&mut object, field, old["metadata"][*field].clone());
    }
    object::set_meta(&mut object, "managedFields", Value::Null);
    (kind.default)(&mut object);
    match place.subresource {
        Some(Subresource::Status) => (kind.prepare_status)(&mut object, &old),
        // Binding and scale are narrower than their kind's own rules: what they made is taken as it is, but counted.
        None | Some(Subresource::Scale) => (kind.prepare)(&mut object, Some(&old)),
        Some(_) => {}
    }
    object::set_meta(
        &mut object,
        "resourceVersion",
        old["metadata"]["resourceVersion"].clone(),
    );
    let write = Admitted {
        index,
        subresource: place.subresource,
        operation: Operation::Update,
        dry_run: place.dry_run,
        old: Some(&old),
        object: &mut object,
    };
    api.admit(txn, write)?;
    let mut errors = new_finalizers(&old, &object);
    errors.extend((kind.validate)(&object, Some(&old)));
    if !errors.is_empty() {
        return Err(status::invalid(kind, &place.key.name, &errors));
    }
    if object == *old {
        return Ok(old);
    }
    if finished(&object) {
        txn.remove(place.key.clone());
        return Ok(Arc::new(object));
    }
    Ok(txn.put(place.key.clone(), object))
}

/// Metadata that no update changes.
const FIXED: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generateName",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
];

/// Whether nothing holds a deleted object any more: no finalizer, no grace period, no contents of a namespace.
pub fn finished(object: &Value) -> bool {
    let namespace_content =
        object["kind"] == "Namespace" && !object::strings(&object["spec"]["finalizers"]).is_empty();
    object::deleting(object)
        && object::finalizers(object).is_empty()
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && !namespace_content
}

fn check_identity(api: &Api, place: &Place, old: &Value, new: &Value) -> Result<(), Failure> {
    let kind = api.kinds[place.key.kind];
    let name = object::name(new);
    if !name.is_empty() && name != &*place.key.name {
        return Err(status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            place.key.name
        )));
    }
    let (given, stored) = (object::uid(new), object::uid(old));
    if !given.is_empty() && given != stored {
        let why = format!(
            "Precondition failed: UID in precondition: {given}, UID in object meta: {stored}"
        );
        return Err(status::conflict(kind, &place.key.name, &why));
    }
    let given = object::meta(new, "resourceVersion");
    if !given.is_empty() && given != "0" && given != object::meta(old, "resourceVersion") {
        return Err(status::conflict(kind, &place.key.name, status::MODIFIED));
    }
    Ok(())
}

fn new_finalizers(old: &Value, new: &Value) -> Vec<FieldError> {
    if !object::deleting(old) {
        return Vec::new();
    }
    let known = object::finalizers(old);
    let added: Vec<&str> = object::finalizers(new)
        .into_iter()
        .filter(|one| !known.contains(one))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let list = json!(added).to_string();
    let list = list.trim_matches(['[', ']']).replace(',', ", ");
    vec![FieldError::forbidden(
        "metadata.finalizers",
        format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        ),
    )]
}
