//! The scheduler: gives every pod a node. Few rules, but those with upstream's meaning and words.

mod choose;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod, PodCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::cache::Key;
use crate::endpoints::pods::{condition, is_over, is_terminating};
use crate::events::{Level, reference};
use crate::queue::Next;
use crate::world::{Shared, World, controller_of, node_term, owner_term};
use crate::{absent, is_code};
use choose::Candidate;
pub(crate) use choose::covers;

const COMPONENT: &str = "default-scheduler";

/// Pods that were bound and are not seen so yet, with their nodes.
#[derive(Debug, Default)]
pub(crate) struct Assumed(Mutex<HashMap<Key, (String, Option<String>)>>);

/// What the scheduler looks at in a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeFacts {
    ready: bool,
    unschedulable: bool,
    taints: Vec<Taint>,
    labels: std::collections::BTreeMap<String, String>,
}

/// Reads a node.
pub(crate) fn facts(node: &Node) -> NodeFacts {
    let spec = node.spec.clone().unwrap_or_default();
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .filter(|c| c.type_ == "Ready")
        .any(|c| c.status == "True");
    NodeFacts {
        ready,
        unschedulable: spec.unschedulable.unwrap_or(false),
        taints: spec.taints.unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
    }
}

/// Binds one pod, or says why it cannot be bound.
pub(crate) async fn reconcile(
    shared: Arc<Shared>,
    assumed: Arc<Assumed>,
    key: Key,
) -> Result<Next, kube::Error> {
    let (pod, chosen) = {
        let world = shared.world();
        let Some(pod) = world.pods.get(&key).filter(|pod| waits(pod)) else {
            assumed.lock().remove(&key);
            return Ok(Next::Done);
        };
        if assumed.lock().contains_key(&key) {
            return Ok(Next::Done);
        }
        (
            Arc::clone(pod),
            choose::choose(pod, candidates(&world, &assumed, pod)),
        )
    };
    match chosen {
        Ok(node) => bind(&shared, &assumed, &key, &pod, node).await,
        Err(words) => refuse(&shared, &key, &pod, words).await,
    }
}

fn waits(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ours = spec
        .and_then(|spec| spec.scheduler_name.as_deref())
        .is_none_or(|name| name == COMPONENT);
    let bound = spec
        .and_then(|spec| spec.node_name.as_deref())
        .is_some_and(|node| !node.is_empty());
    let gated = spec
        .and_then(|spec| spec.scheduling_gates.as_ref())
        .is_some_and(|gates| !gates.is_empty());
    ours && !bound && !gated && !is_terminating(pod) && !is_over(pod)
}

impl Assumed {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, (String, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn owner_of(pod: &Pod) -> Option<String> {
    controller_of(&pod.metadata).map(|owner| owner.uid.clone())
}

/// Every node with how many pods it has, of all and of the same owner.
fn candidates(world: &World, assumed: &Assumed, pod: &Pod) -> Vec<Candidate> {
    let owner = owner_of(pod);
    let mut assumed = assumed.lock();
    let unseen = |key: &Key| world.pods.get(key).is_some_and(|pod| waits(pod));
    assumed.retain(|key, _| unseen(key));
    let mut candidates: Vec<Candidate> = Vec::new();
    for node in world.nodes.all() {
        let name = node.metadata.name.clone().unwrap_or_default();
        let here = |entry: &&(String, Option<String>)| entry.0 == name;
        let siblings = owner.as_deref().map(owner_term);
        let siblings = siblings.iter().flat_map(|term| world.pods.find(term));
        let on_node =
            |pod: &&Arc<Pod>| pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) == Some(&name);
        let alive = |pod: &&Arc<Pod>| !is_over(pod) && !is_terminating(pod);
        let same = siblings.filter(on_node).filter(alive).count()
            + assumed
                .values()
                .filter(here)
                .filter(|entry| owner.is_some() && entry.1 == owner)
                .count();
        let pods = world.pods.count(&node_term(&name)) + assumed.values().filter(here).count();
        candidates.push(Candidate {
            name,
            facts: facts(node),
            same_owner: same,
            pods,
        });
    }
    candidates
}

async fn bind(
    shared: &Shared,
    assumed: &Assumed,
    key: &Key,
    pod: &Pod,
    node: String,
) -> Result<Next, kube::Error> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".into()),
            name: Some(node.clone()),
            ..ObjectReference::default()
        },
    };
    assumed
        .lock()
        .insert(key.clone(), (node.clone(), owner_of(pod)));
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &key.namespace);
    let bound: Result<serde_json::Value, _> = api
        .create_subresource("binding", &key.name, &PostParams::default(), &binding)
        .await;
    if let Err(error) = bound {
        assumed.lock().remove(key);
        // Gone, or bound by somebody else: the watch tells.
        return if is_code(&error, 404) || is_code(&error, 409) {
            Ok(Next::Done)
        } else {
            Err(error)
        };
    }
    let message = format!("Successfully assigned {key} to {node}");
    shared
        .recorder
        .tell(
            COMPONENT,
            reference(pod),
            Level::Normal,
            "Scheduled",
            &message,
        )
        .await;
    Ok(Next::Done)
}

async fn refuse(shared: &Shared, key: &Key, pod: &Pod, words: String) -> Result<Next, kube::Error> {
    let told =
        condition(pod, "PodScheduled").and_then(|c| c.message.as_deref()) == Some(words.as_str());
    if !told {
        let api: Api<Pod> = Api::namespaced(shared.client.clone(), &key.namespace);
        let now = Timestamp::now();
        let scheduled = PodCondition {
            type_: "PodScheduled".into(),
            status: "False".into(),
            reason: Some("Unschedulable".into()),
            message: Some(words.clone()),
            last_transition_time: Some(Time(
                Timestamp::from_second(now.as_second()).unwrap_or(now),
            )),
            ..PodCondition::default()
        };
        let patch = json!({"status": {"conditions": [scheduled]}});
        absent(
            api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch))
                .await,
        )?;
        shared
            .recorder
            .tell(
                COMPONENT,
                reference(pod),
                Level::Warning,
                "FailedScheduling",
                &words,
            )
            .await;
    }
    // A change of a node brings it back at once.
    Ok(Next::Done)
}
