//! DELETE of an object or of a collection.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{Admitted, Api};
use crate::http::query::Query;
use crate::kind::{Kind, Operation};
use crate::object;
use crate::selector::Selector;
use crate::status::{self, Failure, bad_request};
use crate::store::{Key, Txn};
use crate::verbs::update::finished;

/// Finalizer that holds an owner until its dependents have forgotten it.
pub const ORPHAN: &str = "orphan";
/// Finalizer that holds an owner until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";

/// Seconds that a Pod gets when neither it nor the request says.
const POD_GRACE_SECONDS: i64 = 30;

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without this owner.
    Orphan,
    /// The collector deletes them afterwards.
    Background,
    /// They go first.
    Foreground,
}

/// meta.k8s.io/v1 DeleteOptions.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Seconds for a graceful end.
    pub grace: Option<i64>,
    /// Dependents.
    pub propagation: Option<Propagation>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this version.
    pub version: Option<String>,
    /// Nothing is stored.
    pub dry_run: bool,
}

impl Options {
    /// Reads the body if there is one, else the query.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<Options, Failure> {
        let mut options = Options {
            dry_run: query.dry_run()?,
            ..Options::default()
        };
        options.grace = query.number("gracePeriodSeconds")?;
        let mut policy = query.text("propagationPolicy").to_owned();
        let mut orphan = query.optional_flag("orphanDependents");
        if let Some(body) = body {
            options.grace = body["gracePeriodSeconds"].as_i64().or(options.grace);
            policy = body["propagationPolicy"]
                .as_str()
                .map_or(policy, str::to_owned);
            orphan = body["orphanDependents"].as_bool().or(orphan);
            options.uid = body["preconditions"]["uid"].as_str().map(str::to_owned);
            options.version = body["preconditions"]["resourceVersion"]
                .as_str()
                .map(str::to_owned);
            match object::strings(&body["dryRun"]).as_slice() {
                [] => {}
                ["All"] => options.dry_run = true,
                other => {
                    return Err(bad_request(format!(
                        "Invalid value: {other:?}: dryRun supports only All"
                    )));
                }
            }
        }
        options.propagation = match (policy.as_str(), orphan) {
            ("Orphan", _) | ("", Some(true)) => Some(Propagation::Orphan),
            ("Background", _) | ("", Some(false)) => Some(Propagation::Background),
            ("Foreground", _) => Some(Propagation::Foreground),
            ("", None) => None,
            (other, _) => {
                return Err(bad_request(format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}: \
                     supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                )));
            }
        };
        Ok(options)
    }
}

/// What a delete came to.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; this is what it was.
    Gone(Arc<Value>),
    /// It stays until its finalizers or its node let go.
    Pending(Arc<Value>),
}

impl Deleted {
    /// The object.
    pub fn object(&self) -> &Arc<Value> {
        match self {
            Deleted::Gone(object) | Deleted::Pending(object) => object,
        }
    }
}

/// Deletes one object.
pub async fn delete(api: &Arc<Api>, key: Key, options: Options) -> Result<Deleted, Failure> {
    let shared = Arc::clone(api);
    api.store
        .write(options.dry_run, move |txn| {
            delete_in(&shared, txn, &key, &options)
        })
        .await
}

/// Deletes every object of a collection that matches; what they were.
pub async fn delete_collection(
    api: &Arc<Api>,
    index: usize,
    namespace: Option<&str>,
    selector: &Selector,
    options: &Options,
) -> Result<Vec<Arc<Value>>, Failure> {
    let snapshot = api.store.snapshot();
    let keys: Vec<Key> = snapshot
        .list(index, namespace, None)
        .filter(|(_, object)| selector.matches(object))
        .map(|(key, _)| key.clone())
        .collect();
    let mut deleted = Vec::new();
    for result in futures::future::join_all(
        keys.into_iter()
            .map(|key| delete(api, key, options.clone())),
    )
    .await
    {
        match result {
            Ok(done) => deleted.push(Arc::clone(done.object())),
            // Somebody else was faster.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(deleted)
}

/// Deletes one object inside a write.
pub fn delete_in(
    api: &Api,
    txn: &mut Txn<'_>,
    key: &Key,
    options: &Options,
) -> Result<Deleted, Failure> {
    let kind = api.kinds[key.kind];
    let old = txn
        .get(key)
        .ok_or_else(|| status::not_found(kind, &key.name))?;
    check_preconditions(kind, &old, options)?;
    if kind.group.is_empty() && kind.kind == "Namespace" && PROTECTED.contains(&&*key.name) {
        return Err(status::forbidden(
            kind,
            &key.name,
            "this namespace may not be deleted",
        ));
    }
    let mut object = Value::clone(&old);
    set_finalizers(&mut object, options.propagation);
    let grace = grace_seconds(kind, &old, options);
    let before = old["metadata"]["deletionGracePeriodSeconds"].as_i64();
    if !object::deleting(&old) || before.is_some_and(|before| grace < before) {
        let at = Timestamp::now() + SignedDuration::from_secs(grace);
        object::set_meta(
            &mut object,
            "deletionTimestamp",
            json!(object::timestamp(at)),
        );
        object::set_meta(&mut object, "deletionGracePeriodSeconds", json!(grace));
        if let Some(generation) = object["metadata"]["generation"].as_i64() {
            object::set_meta(&mut object, "generation", json!(generation + 1));
        }
        if kind.group.is_empty() && kind.kind == "Namespace" {
            object["status"]["phase"] = json!("Terminating");
        }
    }
    if finished(&object) {
        let write = Admitted {
            index: key.kind,
            subresource: None,
            operation: Operation::Delete,
            dry_run: options.dry_run,
            old: Some(&old),
            object: &mut object,
        };
        api.admit(txn, write)?;
        txn.remove(key.clone());
        return Ok(Deleted::Gone(old));
    }
    if object == *old {
        return Ok(Deleted::Pending(old));
    }
    Ok(Deleted::Pending(txn.put(key.clone(), object)))
}

/// Namespaces that the cluster cannot be without.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];

fn check_preconditions(kind: &Kind, old: &Value, options: &Options) -> Result<(), Failure> {
    let pairs = [
        ("UID", &options.uid, object::uid(old)),
        (
            "ResourceVersion",
            &options.version,
            object::meta(old, "resourceVersion"),
        ),
    ];
    for (what, asked, is) in pairs {
        if let Some(asked) = asked.as_deref().filter(|asked| *asked != is) {
            let why = format!(
                "Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}"
            );
            return Err(status::conflict(kind, object::name(old), &why));
        }
    }
    Ok(())
}

fn set_finalizers(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else {
        return;
    };
    let mut finalizers: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|one| ![ORPHAN, FOREGROUND].contains(one))
        .map(str::to_owned)
        .collect();
    match propagation {
        Propagation::Orphan => finalizers.push(ORPHAN.to_owned()),
        Propagation::Foreground => finalizers.push(FOREGROUND.to_owned()),
        Propagation::Background => {}
    }
    let value = if finalizers.is_empty() {
        Value::Null
    } else {
        json!(finalizers)
    };
    object::set_meta(object, "finalizers", value);
}

/// Only a Pod on a node has a graceful end; its node deletes it with grace 0 when its processes are gone.
fn grace_seconds(kind: &Kind, object: &Value, options: &Options) -> i64 {
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let unbound = object["spec"]["nodeName"]
        .as_str()
        .unwrap_or_default()
        .is_empty();
    if !kind.group.is_empty()
        || kind.kind != "Pod"
        || unbound
        || ["Succeeded", "Failed"].contains(&phase)
    {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"]
        .as_i64()
        .unwrap_or(POD_GRACE_SECONDS);
    let seconds = options.grace.unwrap_or(own);
    // A negative period means at once, but not without the node: the real server takes one second.
    if seconds < 0 { 1 } else { seconds }
}
