//! ReplicaSets: as many pods of a template as asked for.

mod plan;

use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource};
use portolan_k8s::Selector;
use serde_json::{json, to_value};

use crate::cache::Key;
use crate::endpoints::owner_reference;
use crate::events::{Level, reference};
use crate::pending::Awaited;
use crate::queue::Next;
use crate::world::{Shared, World, owner_term};
use crate::{absent, random_suffix};
use plan::Plan;

const COMPONENT: &str = "replicaset-controller";

/// Whether the selector of a ReplicaSet matches a pod.
pub(crate) fn selects(set: &ReplicaSet, pod: &Pod) -> bool {
    selector(set).is_some_and(|selector| {
        !selector.is_everything() && selector.matches(pod.metadata.labels.as_ref())
    })
}

fn selector(set: &ReplicaSet) -> Option<Selector> {
    let selector = to_value(&set.spec.as_ref()?.selector).ok()?;
    Selector::from_label_selector(&selector).ok()
}

/// Brings the pods and the status of one ReplicaSet up to date.
pub(crate) async fn reconcile(shared: Arc<Shared>, key: Key) -> Result<Next, kube::Error> {
    let Some((set, pods, related)) = look(&shared.world(), &key) else {
        return Ok(Next::Done);
    };
    let waiting = shared.pending.open(&key);
    let plan = plan::plan(&set, &pods, &related);
    if waiting.is_none() && set.metadata.deletion_timestamp.is_none() {
        carry_out(&shared, &key, &set, &plan).await?;
    }
    let (status, soon) = plan::status(&set, &pods, Timestamp::now());
    if Some(&status) != set.status.as_ref() {
        let api: Api<ReplicaSet> = Api::namespaced(shared.client.clone(), &key.namespace);
        // The whole object, not a patch: a count that has become 0 is left out, and must not stay as it was.
        let mut changed = set.as_ref().clone();
        changed.status = Some(status);
        absent(
            api.replace_status(&key.name, &PostParams::default(), &changed)
                .await,
        )?;
    }
    Ok([waiting, soon]
        .into_iter()
        .flatten()
        .min()
        .map_or(Next::Done, Next::After))
}

type Seen = (Arc<ReplicaSet>, Vec<Arc<Pod>>, Vec<Arc<Pod>>);

/// The ReplicaSet, its own pods and those it could adopt, and the pods of all ReplicaSets with the same owner.
fn look(world: &World, key: &Key) -> Option<Seen> {
    let set = world.replica_sets.get(key)?;
    let uid = set.meta().uid.as_deref().unwrap_or_default();
    let mut pods: Vec<Arc<Pod>> = world.pods.find(&owner_term(uid)).cloned().collect();
    let matching = selector(set)
        .filter(|s| !s.is_everything())
        .map(|s| world.pods_matching(&key.namespace, &s));
    let free = |pod: &Arc<Pod>| crate::world::controller_of(&pod.metadata).is_none();
    pods.extend(matching.into_iter().flatten().filter(free));
    let siblings = crate::world::controller_of(&set.metadata).map(|owner| owner_term(&owner.uid));
    let siblings = siblings
        .iter()
        .flat_map(|term| world.replica_sets.find(term));
    let uids = siblings.filter_map(|sibling| sibling.metadata.uid.as_deref());
    let related = uids
        .flat_map(|uid| world.pods.find(&owner_term(uid)))
        .cloned()
        .collect();
    Some((Arc::clone(set), pods, related))
}

async fn carry_out(
    shared: &Shared,
    key: &Key,
    set: &ReplicaSet,
    plan: &Plan,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &key.namespace);
    for pod in &plan.adopt {
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": [owner_reference(set)]}});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        absent(
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )?;
    }
    for pod in &plan.release {
        let others = pod
            .metadata
            .owner_references
            .iter()
            .flatten()
            .filter(|o| Some(&o.uid) != set.metadata.uid.as_ref());
        let patch = json!({"metadata": {"uid": pod.metadata.uid, "ownerReferences": others.collect::<Vec<_>>()}});
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        absent(
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )?;
    }
    let mut left = plan.create;
    let mut batch = 1;
    // Slow start: when the API refuses the first pod it is not asked a hundred times more.
    while left > 0 {
        let now = batch.min(left);
        let results = join_all((0..now).map(|_| create_pod(shared, &api, key, set))).await;
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        left -= now;
        batch *= 2;
    }
    let results = join_all(
        plan.delete
            .iter()
            .map(|pod| delete_pod(shared, &api, key, set, pod)),
    )
    .await;
    results
        .into_iter()
        .collect::<Result<Vec<()>, _>>()
        .map(drop)
}

async fn create_pod(
    shared: &Shared,
    api: &Api<Pod>,
    key: &Key,
    set: &ReplicaSet,
) -> Result<(), kube::Error> {
    let name = format!("{}-{}", key.name, random_suffix());
    let pod = plan::pod(set, &name);
    let object = Key::new(&key.namespace, &name);
    shared.pending.expect(key, object.clone(), Awaited::Created);
    match api.create(&PostParams::default(), &pod).await {
        Ok(_) => {
            let message = format!("Created pod: {name}");
            shared
                .recorder
                .tell(
                    COMPONENT,
                    reference(set),
                    Level::Normal,
                    "SuccessfulCreate",
                    &message,
                )
                .await;
            Ok(())
        }
        Err(error) => {
            if matches!(error, kube::Error::Api(_)) {
                shared.pending.cancel(key, &object);
                let message = format!("Error creating: {error}");
                shared
                    .recorder
                    .tell(
                        COMPONENT,
                        reference(set),
                        Level::Warning,
                        "FailedCreate",
                        &message,
                    )
                    .await;
            }
            Err(error)
        }
    }
}

async fn delete_pod(
    shared: &Shared,
    api: &Api<Pod>,
    key: &Key,
    set: &ReplicaSet,
    pod: &Pod,
) -> Result<(), kube::Error> {
    let object = Key::of(pod);
    shared.pending.expect(key, object.clone(), Awaited::Deleted);
    let uid = Preconditions {
        uid: pod.metadata.uid.clone(),
        resource_version: None,
    };
    let how = DeleteParams {
        preconditions: Some(uid),
        ..DeleteParams::default()
    };
    let result = absent(api.delete(&object.name, &how).await);
    if matches!(result, Err(kube::Error::Api(_)) | Ok(None)) {
        shared.pending.cancel(key, &object);
    }
    if result?.is_some() {
        let message = format!("Deleted pod: {}", object.name);
        shared
            .recorder
            .tell(
                COMPONENT,
                reference(set),
                Level::Normal,
                "SuccessfulDelete",
                &message,
            )
            .await;
    }
    Ok(())
}
