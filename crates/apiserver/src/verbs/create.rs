//! POST to a collection.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{Admitted, Api};
use crate::kind::{FieldError, Kind, Operation, Scope};
use crate::object;
use crate::status::{self, Failure};
use crate::store::{Key, Txn};

/// Names tried for one `generateName`, as in a real API server; each collides once in some millions.
const NAME_TRIES_MAX: usize = 8;

/// Longest prefix that `generateName` can give, so that the whole fits a label (63).
const PREFIX_MAX: usize = 58;

/// Checks that a body is what its path says: kind, version, namespace.
pub fn check_body(kind: &Kind, namespace: Option<&str>, value: &mut Value) -> Result<(), Failure> {
    let group_version = group_version(kind);
    match value["apiVersion"].as_str().unwrap_or_default() {
        "" => value["apiVersion"] = json!(group_version),
        given if given == group_version => {}
        given => {
            return Err(status::bad_request(format!(
                "the API version in the data ({given}) does not match the expected API version ({group_version})"
            )));
        }
    }
    match value["kind"].as_str().unwrap_or_default() {
        "" => value["kind"] = json!(kind.kind),
        given if given == kind.kind => {}
        given => {
            return Err(status::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: expected kind {:?}, got {given:?}",
                kind.kind, kind.version, kind.kind, kind.kind
            )));
        }
    }
    if !matches!(value["metadata"], Value::Null | Value::Object(_)) {
        return Err(status::bad_request(
            "json: cannot unmarshal the field metadata: it must be an object",
        ));
    }
    match (kind.scope, object::namespace(value)) {
        (Scope::Cluster, _) => object::set_meta(value, "namespace", Value::Null),
        (Scope::Namespaced, "") => {
            object::set_meta(value, "namespace", json!(namespace.unwrap_or("default")));
        }
        (Scope::Namespaced, given) if Some(given) == namespace => {}
        (Scope::Namespaced, _) => {
            return Err(status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
    }
    Ok(())
}

/// `apps/v1`, or `v1` in the core group.
pub fn group_version(kind: &Kind) -> String {
    if kind.group.is_empty() {
        kind.version.to_owned()
    } else {
        format!("{}/{}", kind.group, kind.version)
    }
}

/// Stores a new object.
pub async fn create(
    api: &Arc<Api>,
    index: usize,
    object: Value,
    dry_run: bool,
) -> Result<Arc<Value>, Failure> {
    let shared = Arc::clone(api);
    api.store
        .write(dry_run, move |txn| {
            create_in(&shared, txn, index, object, dry_run)
        })
        .await
}

/// Stores a new object whose body was checked.
pub fn create_in(
    api: &Api,
    txn: &mut Txn<'_>,
    index: usize,
    mut object: Value,
    dry_run: bool,
) -> Result<Arc<Value>, Failure> {
    let kind = api.kinds[index];
    if !object::meta(&object, "resourceVersion").is_empty() {
        return Err(status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    name_it(txn, index, kind, &mut object)?;
    namespace_lifecycle(api, txn, kind, &object)?;
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
        "generation",
    ] {
        object::set_meta(&mut object, field, Value::Null);
    }
    object::set_meta(&mut object, "uid", json!(uuid::Uuid::new_v4().to_string()));
    object::set_meta(&mut object, "creationTimestamp", json!(object::now()));
    (kind.default)(&mut object);
    (kind.prepare)(&mut object, None);
    let write = Admitted {
        index,
        subresource: None,
        operation: Operation::Create,
        dry_run,
        old: None,
        object: &mut object,
    };
    api.admit(txn, write)?;
    let errors = (kind.validate)(&object, None);
    if !errors.is_empty() {
        return Err(status::invalid(kind, object::name(&object), &errors));
    }
    let key = Key::new(index, object::namespace(&object), object::name(&object));
    if txn.get(&key).is_some() {
        return Err(status::already_exists(kind, &key.name));
    }
    Ok(txn.put(key, object))
}

/// Gives the object its generated name; refuses one without any.
fn name_it(txn: &Txn<'_>, index: usize, kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    if !object::name(object).is_empty() {
        return Ok(());
    }
    let prefix: String = object::meta(object, "generateName")
        .chars()
        .take(PREFIX_MAX)
        .collect();
    if prefix.is_empty() {
        let error = FieldError::required("metadata.name", "name or generateName is required");
        return Err(status::invalid(kind, "", &[error]));
    }
    let namespace = object::namespace(object).to_owned();
    for _ in 0..NAME_TRIES_MAX {
        let name = format!("{prefix}{}", object::random_suffix());
        if txn.get(&Key::new(index, &namespace, &name)).is_none() {
            object::set_meta(object, "name", json!(name));
            return Ok(());
        }
    }
    let mut failure = status::already_exists(kind, &prefix);
    failure
        .message
        .push_str(", the server was not able to generate a unique name for the object");
    Err(failure)
}

/// Nothing is created in a namespace that is not there or is going away.
fn namespace_lifecycle(
    api: &Api,
    txn: &Txn<'_>,
    kind: &Kind,
    object: &Value,
) -> Result<(), Failure> {
    let namespace = object::namespace(object);
    let Some(index) = api
        .find("", "namespaces")
        .filter(|_| kind.scope == Scope::Namespaced)
    else {
        return Ok(());
    };
    match txn.get(&Key::new(index, "", namespace)) {
        None => Err(status::not_found(api.kinds[index], namespace)),
        Some(found) if object::deleting(&found) => Err(status::namespace_terminating(
            kind,
            object::name(object),
            namespace,
        )),
        Some(_) => Ok(()),
    }
}
