//! What kube-controller-manager and kube-scheduler do for Services, and what the API server allocates for them.
//!
//! ```text
//!   watch per kind ──▶ World (caches with indexes) ──▶ Queue of keys per controller ──▶ reconcile(key) ──▶ API
//!                                                                                        │
//!                                                             a pure plan, then the writes of it
//! ```
//!
//! Everything is level-triggered: a reconcile looks at what is, not at what has happened. The API server may vanish at
//! any time; watches come back by themselves and failed keys are tried again.
//! Objects are collected with their owners by the API server, not here.

pub mod allocate;
mod cache;
mod deployment;
mod endpoints;
pub mod events;
mod nodes;
mod pending;
mod queue;
mod replicaset;
mod routes;
mod scheduler;
mod world;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::task::JoinSet;

use cache::Key;
use world::Shared;

/// What can be told to the controllers.
#[derive(Clone, Debug)]
pub struct Options {
    /// `--node-monitor-grace-period`: a node whose Lease is not renewed for this long is no longer Ready.
    pub node_grace: Duration,
    /// Pods leave a node that has not been Ready for this long (the default toleration of the NoExecute taints).
    pub eviction_after: Duration,
}

impl Default for Options {
    /// 40 s and 300 s, as upstream.
    fn default() -> Self {
        Options {
            node_grace: Duration::from_secs(40),
            eviction_after: Duration::from_secs(300),
        }
    }
}

/// Runs every controller until it is dropped.
pub async fn run(client: Client, options: Options) {
    let shared = Shared::new(client);
    let mut tasks = JoinSet::new();
    follow_all(&shared, &mut tasks);
    shared.completed().await;
    tracing::info!("controllers: every kind is listed");
    let queues = |shared: &Arc<Shared>| Arc::clone(shared);
    let s = queues(&shared);
    tasks.spawn(async move {
        s.queues
            .services
            .work("endpointslices", |key| {
                endpoints::reconcile_service(Arc::clone(&s), key)
            })
            .await;
    });
    let s = queues(&shared);
    tasks.spawn(async move {
        s.queues
            .mirrored
            .work("mirror", |key| {
                endpoints::reconcile_mirror(Arc::clone(&s), key)
            })
            .await;
    });
    let s = queues(&shared);
    tasks.spawn(async move {
        s.queues
            .replica_sets
            .work("replicasets", |key| {
                replicaset::reconcile(Arc::clone(&s), key)
            })
            .await;
    });
    let s = queues(&shared);
    tasks.spawn(async move {
        s.queues
            .deployments
            .work("deployments", |key| {
                deployment::reconcile(Arc::clone(&s), key)
            })
            .await;
    });
    let (s, assumed) = (queues(&shared), Arc::new(scheduler::Assumed::default()));
    tasks.spawn(async move {
        let act = |key: Key| scheduler::reconcile(Arc::clone(&s), Arc::clone(&assumed), key);
        s.queues.unscheduled.work("scheduler", act).await;
    });
    let (s, watched) = (queues(&shared), Arc::new(nodes::Watched::default()));
    tasks.spawn(async move {
        let act =
            |key: Key| nodes::reconcile(Arc::clone(&s), Arc::clone(&watched), options.clone(), key);
        s.queues.nodes.work("nodes", act).await;
    });
    while let Some(ended) = tasks.join_next().await {
        // No task ends by itself; a panic is a broken invariant and has been printed.
        if let Err(error) = ended {
            tracing::error!(%error, "a controller has died");
        }
    }
}

fn follow_all(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
    use k8s_openapi::api::coordination::v1::Lease;
    use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    tasks.spawn(Arc::clone(shared).follow::<Service>());
    tasks.spawn(Arc::clone(shared).follow::<Pod>());
    tasks.spawn(Arc::clone(shared).follow::<EndpointSlice>());
    tasks.spawn(Arc::clone(shared).follow::<Endpoints>());
    tasks.spawn(Arc::clone(shared).follow::<Deployment>());
    tasks.spawn(Arc::clone(shared).follow::<ReplicaSet>());
    tasks.spawn(Arc::clone(shared).follow::<Node>());
    tasks.spawn(Arc::clone(shared).follow::<Lease>());
}

/// Five characters that make no words, as the API server chooses them for `generateName`.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5)
        .map(|_| char::from(ALPHABET[fastrand::usize(0..ALPHABET.len())]))
        .collect()
}

/// That something is not there any more is what a deletion wants.
fn absent<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_code(&error, 404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the server answered with this status.
fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
