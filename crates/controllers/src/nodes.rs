//! Node lifecycle: a node that does not report any more is not Ready, its pods are no endpoints, and after a while
//! they are replaced elsewhere.

mod verdict;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::cache::Key;
use crate::endpoints::pods::{is_ready, is_terminating};
use crate::events::{Level, reference};
use crate::queue::Next;
use crate::world::{Shared, World, node_term};
use crate::{Options, absent};
use verdict::Health;

const COMPONENT: &str = "node-controller";
/// Pods of a node that was deleted are deleted after this while (it may only be registering anew).
const ORPHANS_AFTER: Duration = Duration::from_secs(40);

/// When each node was last seen to report, by our own clock: clocks of nodes may differ.
#[derive(Debug, Default)]
pub(crate) struct Watched(Mutex<HashMap<Key, Seen>>);

#[derive(Clone, Debug)]
struct Seen {
    lease: Option<String>,
    since: Instant,
    unready_since: Option<Instant>,
}

impl Watched {
    /// How long the node has been silent, and how long it has not been Ready.
    fn note(&self, key: &Key, lease: Option<String>, ready: bool) -> (Duration, Option<Duration>) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let fresh = || Seen {
            lease: lease.clone(),
            since: now,
            unready_since: None,
        };
        let seen = map.entry(key.clone()).or_insert_with(fresh);
        if seen.lease != lease {
            seen.lease = lease;
            seen.since = now;
        }
        match ready {
            true => seen.unready_since = None,
            false => drop(seen.unready_since.get_or_insert(now)),
        }
        (
            now - seen.since,
            seen.unready_since.map(|since| now - since),
        )
    }
}

/// Judges one node, and does what follows.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    watched: Arc<Watched>,
    options: Options,
    key: Key,
) -> Result<Next, kube::Error> {
    let (node, lease, pods) = look(&shared.world(), &key);
    let Some(node) = node else {
        return orphans(&shared, &watched, &key, pods).await;
    };
    let health = verdict::health(&node);
    let (silent, unready) = watched.note(&key, lease, health == Health::Ready);
    let lost = silent >= options.node_grace;
    let health = if lost { Health::Unknown } else { health };
    if let Some(patch) = verdict::status_patch(&node, health, Timestamp::now()) {
        let api: Api<Node> = Api::all(shared.client.clone());
        absent(
            api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await,
        )?;
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        shared
            .recorder
            .tell(
                COMPONENT,
                reference(&*node),
                Level::Normal,
                "NodeNotReady",
                &message,
            )
            .await;
    }
    if let Some(taints) = verdict::taints(&node, health, Timestamp::now()) {
        let api: Api<Node> = Api::all(shared.client.clone());
        let patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints}});
        absent(
            api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch))
                .await,
        )?;
    }
    if health != Health::Ready {
        mark_unready(&shared, &pods).await?;
    }
    if unready.is_some_and(|since| since >= options.eviction_after) {
        evict(&shared, &pods).await?;
    }
    let next = options.node_grace.saturating_sub(silent);
    let evict_in = unready.map(|since| options.eviction_after.saturating_sub(since));
    let next = [Some(next), evict_in]
        .into_iter()
        .flatten()
        .filter(|wait| !wait.is_zero())
        .min();
    Ok(next.map_or(Next::Done, Next::After))
}

fn look(world: &World, key: &Key) -> (Option<Arc<Node>>, Option<String>, Vec<Arc<Pod>>) {
    let lease = world.leases.get(&Key::new("kube-node-lease", &key.name));
    let renewed = lease.and_then(|lease| {
        lease
            .spec
            .as_ref()?
            .renew_time
            .as_ref()
            .map(|time| time.0.to_string())
    });
    let pods = world.pods.find(&node_term(&key.name)).cloned().collect();
    (world.nodes.get(key).cloned(), renewed, pods)
}

/// Nobody will ever end the pods of a node that is gone.
async fn orphans(
    shared: &Shared,
    watched: &Watched,
    key: &Key,
    pods: Vec<Arc<Pod>>,
) -> Result<Next, kube::Error> {
    if pods.is_empty() {
        watched
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
        return Ok(Next::Done);
    }
    let (_, gone) = watched.note(key, None, false);
    let left = ORPHANS_AFTER.saturating_sub(gone.unwrap_or_default());
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    for pod in pods {
        let api = pods_api(shared, &pod);
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::default()
        };
        absent(api.delete(&Key::of(&*pod).name, &now).await)?;
    }
    Ok(Next::Done)
}

fn pods_api(shared: &Shared, pod: &Pod) -> Api<Pod> {
    Api::namespaced(
        shared.client.clone(),
        pod.metadata.namespace.as_deref().unwrap_or_default(),
    )
}

/// Nobody can say that these pods are ready: they take no more connections.
async fn mark_unready(shared: &Shared, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
    for pod in pods.iter().filter(|pod| is_ready(pod)) {
        let patch = verdict::unready_patch(Timestamp::now());
        let api = pods_api(shared, pod);
        absent(
            api.patch_status(
                &Key::of(&**pod).name,
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await,
        )?;
        shared
            .recorder
            .tell(
                COMPONENT,
                reference(&**pod),
                Level::Warning,
                "NodeNotReady",
                "Node is not ready",
            )
            .await;
    }
    Ok(())
}

async fn evict(shared: &Shared, pods: &[Arc<Pod>]) -> Result<(), kube::Error> {
    for pod in pods
        .iter()
        .filter(|pod| !is_terminating(pod) && !verdict::stays(pod))
    {
        let message = format!("Marking for deletion Pod {}", Key::of(&**pod));
        shared
            .recorder
            .tell(
                "taint-eviction-controller",
                reference(&**pod),
                Level::Normal,
                "TaintManagerEviction",
                &message,
            )
            .await;
        absent(
            pods_api(shared, pod)
                .delete(&Key::of(&**pod).name, &DeleteParams::default())
                .await,
        )?;
    }
    Ok(())
}
