//! Deployments: from one ReplicaSet to the next, as fast as the strategy allows.

mod conditions;
mod revision;
mod rollout;
mod template;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Resource};
use serde_json::json;

use crate::cache::Key;
use crate::endpoints::pods::is_over;
use crate::events::{Level, reference};
use crate::queue::Next;
use crate::world::{Shared, World, owner_term};
use crate::{absent, is_code};
use rollout::Scale;

const COMPONENT: &str = "deployment-controller";

/// A Deployment with its ReplicaSets, oldest first.
struct Seen {
    deployment: Arc<Deployment>,
    sets: Vec<Arc<ReplicaSet>>,
    /// Pods of old ReplicaSets that have not ended, also terminating ones.
    old_pods: bool,
}

impl Seen {
    fn of(world: &World, key: &Key) -> Option<Self> {
        let deployment = Arc::clone(world.deployments.get(key)?);
        let uid = deployment.meta().uid.as_deref().unwrap_or_default();
        let mut sets: Vec<Arc<ReplicaSet>> =
            world.replica_sets.find(&owner_term(uid)).cloned().collect();
        sets.sort_by_key(|set| {
            (
                set.metadata.creation_timestamp.as_ref().map(|t| t.0),
                set.metadata.name.clone(),
            )
        });
        let new = template::find_new(&deployment, &sets).map(|set| set.metadata.uid.clone());
        let old = sets
            .iter()
            .filter(|set| Some(&set.metadata.uid) != new.as_ref());
        let uids = old.filter_map(|set| set.metadata.uid.as_deref());
        let alive = |pod: &Arc<Pod>| !is_over(pod);
        let old_pods = uids
            .flat_map(|uid| world.pods.find(&owner_term(uid)))
            .any(alive);
        Some(Seen {
            deployment,
            sets,
            old_pods,
        })
    }

    fn new_set(&self) -> Option<&Arc<ReplicaSet>> {
        template::find_new(&self.deployment, &self.sets)
    }
}

/// Brings the ReplicaSets and the status of one Deployment one step further.
pub(crate) async fn reconcile(shared: Arc<Shared>, key: Key) -> Result<Next, kube::Error> {
    let Some(seen) = Seen::of(&shared.world(), &key) else {
        return Ok(Next::Done);
    };
    if seen.deployment.metadata.deletion_timestamp.is_none() {
        step(&shared, &key, &seen).await?;
    }
    write_status(&shared, &key, &seen).await
}

async fn step(shared: &Shared, key: &Key, seen: &Seen) -> Result<(), kube::Error> {
    let deployment = &seen.deployment;
    let new = seen.new_set();
    sync_revisions(shared, key, seen).await?;
    let paused = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.paused)
        .unwrap_or(false);
    let plan = if paused || rollout::is_scaled(deployment, &seen.sets) {
        rollout::scale(deployment, new.map(|s| &**s), &refs(&seen.sets))
    } else if rollout::is_recreate(deployment) {
        rollout::recreate(
            deployment,
            new.map(|s| &**s),
            &refs(&seen.sets),
            seen.old_pods,
        )
    } else {
        rollout::rolling(deployment, new.map(|s| &**s), &refs(&seen.sets))
    };
    for scale in &plan.scales {
        apply_scale(shared, key, seen, scale).await?;
    }
    if let Some(replicas) = plan.create.filter(|_| !paused && new.is_none()) {
        create_set(shared, key, seen, replicas).await?;
    }
    for set in revision::surplus(deployment, &seen.sets, new.map(|s| &**s)) {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        sets_api(shared, key)
            .delete(name, &DeleteParams::background())
            .await
            .map(drop)
            .or_else(|error| {
                if is_code(&error, 404) {
                    Ok(())
                } else {
                    Err(error)
                }
            })?;
    }
    Ok(())
}

fn refs(sets: &[Arc<ReplicaSet>]) -> Vec<&ReplicaSet> {
    sets.iter().map(|set| &**set).collect()
}

fn sets_api(shared: &Shared, key: &Key) -> Api<ReplicaSet> {
    Api::namespaced(shared.client.clone(), &key.namespace)
}

/// The revision of the new ReplicaSet is one more than that of all others, and the Deployment shows it.
async fn sync_revisions(shared: &Shared, key: &Key, seen: &Seen) -> Result<(), kube::Error> {
    let Some(new) = seen.new_set() else {
        return Ok(());
    };
    if let Some(patch) = revision::patch_set(&seen.deployment, new, &seen.sets) {
        let name = new.metadata.name.as_deref().unwrap_or_default();
        sets_api(shared, key)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    let revision = revision::wanted(new, &seen.sets).to_string();
    if revision::of(&seen.deployment.metadata) != revision::wanted(new, &seen.sets) {
        let patch = json!({"metadata": {"annotations": {revision::REVISION: revision}}});
        let api: Api<Deployment> = Api::namespaced(shared.client.clone(), &key.namespace);
        api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Ok(())
}

async fn apply_scale(
    shared: &Shared,
    key: &Key,
    seen: &Seen,
    scale: &Scale,
) -> Result<(), kube::Error> {
    let Some(set) = seen
        .sets
        .iter()
        .find(|set| set.metadata.name.as_deref() == Some(&scale.name))
    else {
        return Ok(());
    };
    let patch = json!({
        "metadata": {
            "resourceVersion": set.metadata.resource_version,
            "annotations": rollout::size_annotations(&seen.deployment),
        },
        "spec": {"replicas": scale.to},
    });
    sets_api(shared, key)
        .patch(&scale.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    if scale.from != scale.to {
        tell_scaled(shared, seen, scale).await;
    }
    Ok(())
}

async fn tell_scaled(shared: &Shared, seen: &Seen, scale: &Scale) {
    let direction = if scale.to > scale.from { "up" } else { "down" };
    let message = format!(
        "Scaled {direction} replica set {} from {} to {}",
        scale.name, scale.from, scale.to
    );
    let object = reference(&*seen.deployment);
    shared
        .recorder
        .tell(
            COMPONENT,
            object,
            Level::Normal,
            "ScalingReplicaSet",
            &message,
        )
        .await;
}

async fn create_set(
    shared: &Shared,
    key: &Key,
    seen: &Seen,
    replicas: i32,
) -> Result<(), kube::Error> {
    let mut set = template::new_set(&seen.deployment, replicas);
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(
        revision::REVISION.into(),
        (revision::last(&seen.sets) + 1).to_string(),
    );
    annotations.extend(rollout::size_annotations(&seen.deployment));
    let name = set.metadata.name.clone().unwrap_or_default();
    match sets_api(shared, key)
        .create(&PostParams::default(), &set)
        .await
    {
        Ok(_) => {}
        Err(error) if is_code(&error, 409) => {
            return collision(shared, key, seen, &set, error).await;
        }
        Err(error) => return Err(error),
    }
    if replicas > 0 {
        tell_scaled(
            shared,
            seen,
            &Scale {
                name: name.clone(),
                from: 0,
                to: replicas,
            },
        )
        .await;
    }
    let api: Api<Deployment> = Api::namespaced(shared.client.clone(), &key.namespace);
    let status = conditions::created(&seen.deployment, &name, Timestamp::now());
    let revision = (revision::last(&seen.sets) + 1).to_string();
    let patch = json!({"metadata": {"annotations": {revision::REVISION: revision}}});
    api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    api.patch_status(
        &key.name,
        &PatchParams::default(),
        &Patch::Merge(json!({"status": status})),
    )
    .await
    .map(drop)
}

/// The name is taken: by the very ReplicaSet, which the cache does not show yet, or by another one with the same hash.
async fn collision(
    shared: &Shared,
    key: &Key,
    seen: &Seen,
    wanted: &ReplicaSet,
    error: kube::Error,
) -> Result<(), kube::Error> {
    let name = wanted.metadata.name.as_deref().unwrap_or_default();
    let there = absent(sets_api(shared, key).get(name).await)?;
    let uid = |set: &ReplicaSet| {
        crate::world::controller_of(&set.metadata).map(|owner| owner.uid.clone())
    };
    let own = there.as_ref().is_some_and(|set| {
        uid(set) == seen.deployment.metadata.uid && template::same(&seen.deployment, set)
    });
    if there.is_some() && !own {
        let count = seen
            .deployment
            .status
            .as_ref()
            .and_then(|s| s.collision_count)
            .unwrap_or(0)
            + 1;
        let api: Api<Deployment> = Api::namespaced(shared.client.clone(), &key.namespace);
        let patch = json!({"status": {"collisionCount": count}});
        api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
    }
    Err(error)
}

async fn write_status(shared: &Shared, key: &Key, seen: &Seen) -> Result<Next, kube::Error> {
    // What has just been written comes back as an event; until then the status speaks of what was seen.
    let now = Timestamp::now();
    let new = seen.new_set().map(|set| &**set);
    let (status, soon) = conditions::status(&seen.deployment, new, &refs(&seen.sets), now);
    if Some(&status) != seen.deployment.status.as_ref() {
        let api: Api<Deployment> = Api::namespaced(shared.client.clone(), &key.namespace);
        // The whole object, not a patch: a count that has become 0 is left out, and must not stay as it was.
        let mut changed = seen.deployment.as_ref().clone();
        changed.status = Some(status);
        match absent(
            api.replace_status(&key.name, &PostParams::default(), &changed)
                .await,
        ) {
            // It was changed by this very reconcile or by somebody else: the event of that comes.
            Err(error) if is_code(&error, 409) => return Ok(Next::Done),
            other => other?,
        };
    }
    Ok(soon.map_or(Next::Done, Next::After))
}
