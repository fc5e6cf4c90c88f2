//! The end of a namespace: first everything in it goes, then the namespace.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::kind::{Scope, Subresource};
use crate::object;
use crate::status::Failure;
use crate::store::{Key, Snapshot, Txn};
use crate::verbs::delete::{Options, Propagation, delete};
use crate::verbs::update::{Place, update_in};

/// The entry in `spec.finalizers` that stands for a namespace's contents.
const FINALIZER: &str = "kubernetes";

/// How long to wait before a namespace is looked at again that could not be emptied.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Empties namespaces until the server stops.
pub(crate) async fn run(api: Arc<Api>) {
    let Some(index) = api.find("", "namespaces") else {
        return;
    };
    let mut wake = api.store.wake_any();
    loop {
        wake.mark_unchanged();
        let snapshot = api.store.snapshot();
        let mut retry = false;
        for (key, object) in snapshot.list(index, None, None) {
            if !object::deleting(object)
                || !object::strings(&object["spec"]["finalizers"]).contains(&FINALIZER)
            {
                continue;
            }
            if let Err(failure) = empty(&api, &snapshot, key).await {
                tracing::warn!(namespace = %key.name, %failure, "a namespace could not be emptied yet");
                retry = true;
            }
        }
        tokio::select! {
            () = api.stopping.cancelled() => return,
            changed = wake.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_DELAY), if retry => {}
        }
    }
}

/// Deletes what is in a namespace, or lets the namespace go when nothing is.
async fn empty(api: &Arc<Api>, snapshot: &Snapshot, namespace: &Key) -> Result<(), Failure> {
    let contents = contents(api, snapshot, &namespace.name);
    if contents.is_empty() {
        let (shared, namespace) = (Arc::clone(api), namespace.clone());
        return api
            .store
            .write(false, move |txn| let_go(&shared, txn, &namespace))
            .await;
    }
    let doomed = contents
        .into_iter()
        .filter(|(_, deleting)| !deleting)
        .map(|(key, _)| {
            let options = Options {
                propagation: Some(Propagation::Background),
                ..Options::default()
            };
            delete(api, key, options)
        });
    for result in futures::future::join_all(doomed).await {
        match result {
            Ok(_) => {}
            // Somebody else deleted it.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Every object in a namespace, and whether its deletion has begun.
fn contents(api: &Api, snapshot: &Snapshot, namespace: &str) -> Vec<(Key, bool)> {
    let namespaced =
        (0..api.kinds.len()).filter(|kind| api.kinds[*kind].scope == Scope::Namespaced);
    namespaced
        .flat_map(|kind| snapshot.list(kind, Some(namespace), None))
        .map(|(key, object)| (key.clone(), object::deleting(object)))
        .collect()
}

fn let_go(api: &Api, txn: &mut Txn<'_>, namespace: &Key) -> Result<(), Failure> {
    // Nothing new can have come since deletion began, but this is cheap and certain.
    if txn.get(namespace).is_none() || !contents(api, &txn.snapshot(), &namespace.name).is_empty() {
        return Ok(());
    }
    let place = Place {
        key: namespace.clone(),
        subresource: Some(Subresource::Finalize),
        dry_run: false,
    };
    let change = |old: &Value| {
        let mut object = old.clone();
        let left: Vec<&str> = object::strings(&old["spec"]["finalizers"])
            .into_iter()
            .filter(|one| *one != FINALIZER)
            .collect();
        object["spec"]["finalizers"] = json!(left);
        Ok(object)
    };
    update_in(api, txn, &place, change).map(drop)
}
