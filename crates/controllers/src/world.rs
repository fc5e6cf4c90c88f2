//! The shared view of the cluster, and which work an event causes.
//!
//! ```text
//!   watch per kind ──▶ Cache (indexed) ──▶ keys ──▶ Queue per controller ──▶ reconcile ──▶ API
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Api, Client, Resource};
use portolan_k8s::Selector;
use portolan_k8s::watch::{Filter, watch};
use serde::de::DeserializeOwned;

use crate::cache::{Cache, Change, Key};
use crate::events::Recorder;
use crate::pending::Pending;
use crate::queue::Queue;

/// Every watched object.
#[derive(Debug)]
pub struct World {
    pub(crate) services: Cache<Service>,
    pub(crate) pods: Cache<Pod>,
    pub(crate) slices: Cache<EndpointSlice>,
    pub(crate) endpoints: Cache<Endpoints>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) leases: Cache<Lease>,
}

/// What waits for each controller.
#[derive(Debug, Default)]
pub struct Queues {
    pub(crate) services: Queue,
    pub(crate) mirrored: Queue,
    pub(crate) deployments: Queue,
    pub(crate) replica_sets: Queue,
    pub(crate) unscheduled: Queue,
    pub(crate) nodes: Queue,
}

/// What all controllers share.
pub struct Shared {
    pub(crate) client: Client,
    pub(crate) queues: Queues,
    pub(crate) pending: Pending,
    pub(crate) recorder: Recorder,
    world: RwLock<World>,
    complete: tokio::sync::watch::Sender<bool>,
}

/// A kind that is kept in the [`World`].
pub(crate) trait Kept:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
    /// Where it is kept.
    fn cache(world: &mut World) -> &mut Cache<Self>;
    /// Queues the keys that a change concerns.
    fn touch(shared: &Shared, world: &World, change: &Change<Self>);
}

impl Shared {
    /// Nothing is known yet.
    pub(crate) fn new(client: Client) -> Arc<Self> {
        let world = World {
            services: Cache::new(index_service),
            pods: Cache::new(index_pod),
            slices: Cache::new(index_slice),
            endpoints: Cache::new(|_| Vec::new()),
            deployments: Cache::new(|_| Vec::new()),
            replica_sets: Cache::new(index_replica_set),
            nodes: Cache::new(|_| Vec::new()),
            leases: Cache::new(|_| Vec::new()),
        };
        Arc::new(Shared {
            recorder: Recorder::new(client.clone()),
            client,
            queues: Queues::default(),
            pending: Pending::default(),
            world: RwLock::new(world),
            complete: tokio::sync::watch::Sender::new(false),
        })
    }

    /// The world as it is known now. Not to be held across an await.
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once every kind has been listed fully.
    pub(crate) async fn completed(&self) {
        let mut complete = self.complete.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = complete.wait_for(|complete| *complete).await;
    }

    /// Follows one kind for ever.
    pub(crate) async fn follow<K: Kept>(self: Arc<Self>) {
        let mut events = Box::pin(watch(Api::<K>::all(self.client.clone()), Filter::default()));
        while let Some(event) = events.next().await {
            let mut world = self.world.write().unwrap_or_else(PoisonError::into_inner);
            for change in K::cache(&mut world).take(event) {
                K::touch(&self, &world, &change);
            }
            if !*self.complete.borrow() && world.is_complete() {
                self.complete.send_replace(true);
            }
        }
    }
}

impl World {
    fn is_complete(&self) -> bool {
        self.services.is_complete()
            && self.pods.is_complete()
            && self.slices.is_complete()
            && self.endpoints.is_complete()
            && self.deployments.is_complete()
            && self.replica_sets.is_complete()
            && self.nodes.is_complete()
            && self.leases.is_complete()
    }

    /// The pods of a namespace that a selector matches, found by the rarest label that it names.
    pub(crate) fn pods_matching(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Pod>> {
        let equal =
            selector
                .requirements()
                .iter()
                .filter_map(|r| match (r.operator, &r.values[..]) {
                    (portolan_k8s::selector::Operator::In, [value]) => {
                        Some(label_term(namespace, &r.key, value))
                    }
                    _ => None,
                });
        let rarest = equal
            .min_by_key(|term| self.pods.count(term))
            .unwrap_or_else(|| namespace_term(namespace));
        let matching = |pod: &&Arc<Pod>| selector.matches(pod.metadata.labels.as_ref());
        self.pods.find(&rarest).filter(matching).cloned().collect()
    }

    /// The Services that select a pod with these labels.
    pub(crate) fn services_selecting(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Vec<Key> {
        let terms = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| label_term(namespace, key, value));
        let services =
            terms.flat_map(|term| self.services.find(&term).cloned().collect::<Vec<_>>());
        let selects =
            |service: &Arc<Service>| service_selector(service).is_some_and(|s| s.matches(labels));
        services
            .filter(selects)
            .map(|service| Key::of(&*service))
            .collect()
    }
}

/// The selector of a Service, if it has one.
pub(crate) fn service_selector(service: &Service) -> Option<Selector> {
    let pairs = service
        .spec
        .as_ref()?
        .selector
        .as_ref()
        .filter(|pairs| !pairs.is_empty())?;
    Some(Selector::equality(pairs.clone()))
}

/// The owner that controls an object, if there is one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// The Service that a slice belongs to.
pub(crate) fn service_of_slice(slice: &EndpointSlice) -> Option<Key> {
    let name = slice
        .metadata
        .labels
        .as_ref()?
        .get("kubernetes.io/service-name")?;
    Some(Key::new(
        slice.metadata.namespace.as_deref().unwrap_or_default(),
        name,
    ))
}

pub(crate) fn label_term(namespace: &str, key: &str, value: &str) -> String {
    format!("label {namespace} {key}={value}")
}

pub(crate) fn namespace_term(namespace: &str) -> String {
    format!("namespace {namespace}")
}

pub(crate) fn owner_term(uid: &str) -> String {
    format!("owner {uid}")
}

pub(crate) fn node_term(node: &str) -> String {
    format!("node {node}")
}

pub(crate) fn slice_term(service: &Key) -> String {
    format!("service {service}")
}

/// Term of pods that wait for a node.
pub(crate) const UNSCHEDULED: &str = "unscheduled";

fn index_pod(pod: &Pod) -> Vec<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.iter().flatten();
    let mut terms: Vec<String> = labels
        .map(|(key, value)| label_term(namespace, key, value))
        .collect();
    terms.push(namespace_term(namespace));
    terms.extend(controller_of(&pod.metadata).map(|owner| owner_term(&owner.uid)));
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .filter(|node| !node.is_empty());
    terms.push(node.map_or_else(|| UNSCHEDULED.to_string(), node_term));
    terms
}

/// A Service is found by one of the labels it selects: whoever matches has that one.
fn index_service(service: &Service) -> Vec<String> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    let first = selector.and_then(|pairs| pairs.iter().next());
    first
        .map(|(key, value)| label_term(namespace, key, value))
        .into_iter()
        .collect()
}

fn index_slice(slice: &EndpointSlice) -> Vec<String> {
    service_of_slice(slice).iter().map(slice_term).collect()
}

fn index_replica_set(set: &ReplicaSet) -> Vec<String> {
    let namespace = namespace_term(set.metadata.namespace.as_deref().unwrap_or_default());
    let owner = controller_of(&set.metadata).map(|owner| owner_term(&owner.uid));
    [namespace].into_iter().chain(owner).collect()
}
