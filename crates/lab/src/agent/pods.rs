//! The pods of this node: one worker for each, told of every change, until the pod is no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use portolan_k8s::watch::{Event, Filter, watch};
use serde_json::json;
use tokio::sync::watch as latest;
use tokio::task::JoinSet;

use super::context::{Context, bounded};
use super::events::Level;
use super::node::PODS_MAX;
use super::status;
use super::worker::{Desired, Worker, is_over};
use crate::dir::read_json;

/// Runs a worker for each pod that the API binds to this node, and for each that an earlier agent has left here.
/// Nothing is ended before the first full list of pods has come.
pub async fn run(context: Arc<Context>) {
    let left = left_pods(&context);
    let fields = format!("spec.nodeName={}", context.plan.name());
    let filter = Filter {
        labels: "",
        fields: &fields,
    };
    let api = Api::<Pod>::all(context.client.clone());
    let mut events = std::pin::pin!(watch(api, filter));
    let mut pods = Pods {
        context,
        desired: BTreeMap::new(),
        workers: JoinSet::new(),
    };
    let mut listed = BTreeSet::new();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Some(ended) = pods.workers.join_next() => {
                match ended {
                    Ok(uid) => drop(pods.desired.remove(&uid)),
                    // The supervisor starts a new agent, which finds everything again.
                    Err(error) => return tracing::error!(%error, "a pod's worker has failed"),
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(Event::Init) => listed.clear(),
            Some(Event::Apply(pod)) => pods.apply(pod).await,
            Some(Event::InitApply(pod)) => {
                listed.extend(pod.metadata.uid.clone());
                pods.apply(pod).await;
            }
            Some(Event::Delete(pod)) => pods.gone(pod),
            Some(Event::InitDone) => {
                let gone = left.iter().filter(|pod| !listed.contains(&uid(pod)));
                gone.for_each(|pod| pods.gone_or_left(pod));
                pods.retain(&listed);
            }
        }
    }
}

struct Pods {
    context: Arc<Context>,
    desired: BTreeMap<String, latest::Sender<Desired>>,
    workers: JoinSet<String>,
}

impl Pods {
    async fn apply(&mut self, pod: Pod) {
        let uid = uid(&pod);
        if let Some(desired) = self.desired.get(&uid) {
            desired.send_modify(|desired| desired.pod = Arc::new(pod));
        } else if self.is_one_too_many(&pod) {
            self.refuse(&pod).await;
        } else {
            self.start(pod, false);
        }
    }

    /// A pod that an earlier agent has taken is kept, and one that is over or ending needs no room.
    fn is_one_too_many(&self, pod: &Pod) -> bool {
        let is_new = !self.context.pod_dir(&uid(pod)).exists();
        let live = |desired: &&latest::Sender<Desired>| !is_over(&desired.borrow().pod);
        pod.metadata.deletion_timestamp.is_none()
            && !is_over(pod)
            && is_new
            && self.desired.values().filter(live).count() >= PODS_MAX
    }

    fn start(&mut self, pod: Pod, gone: bool) {
        let uid = uid(&pod);
        let pod = Arc::new(pod);
        let (sender, receiver) = latest::channel(Desired { pod, gone });
        self.desired.insert(uid.clone(), sender);
        let worker = Worker::new(self.context.clone(), receiver);
        self.workers.spawn(async move {
            worker.run().await;
            uid
        });
    }

    fn gone(&mut self, pod: Pod) {
        if let Some(desired) = self.desired.get(&uid(&pod)) {
            desired.send_replace(Desired {
                pod: Arc::new(pod),
                gone: true,
            });
        }
    }

    /// A pod that an earlier agent has left, and that the API has no more, gets a worker that ends it.
    fn gone_or_left(&mut self, pod: &Pod) {
        if !self.desired.contains_key(&uid(pod)) && self.context.pod_dir(&uid(pod)).exists() {
            self.start(pod.clone(), true);
        }
    }

    /// What a full list does not name is gone.
    fn retain(&mut self, listed: &BTreeSet<String>) {
        let unlisted = self
            .desired
            .iter()
            .filter(|(uid, _)| !listed.contains(*uid));
        for (_, desired) in unlisted {
            desired.send_modify(|desired| desired.gone = true);
        }
    }

    /// The kubelet's answer to more pods than the node has room for.
    async fn refuse(&self, pod: &Pod) {
        let reason = "OutOfpods";
        let message = format!(
            "Node didn't have enough resource: pods, requested: 1, used: {PODS_MAX}, capacity: {PODS_MAX}"
        );
        self.context
            .events
            .pod(pod, None, Level::Warning, reason, &message);
        let meta = &pod.metadata;
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        let refused = status::refused(reason, &message);
        let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid}, "status": refused}));
        let (name, params) = (
            meta.name.as_deref().unwrap_or_default(),
            PatchParams::default(),
        );
        if let Err(error) = bounded("refuse a pod", api.patch_status(name, &params, &patch)).await {
            tracing::warn!(%error, name, "the next change of the pod is the next try");
        }
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn left_pods(context: &Context) -> Vec<Pod> {
    let known = context.known_pods().unwrap_or_default();
    let read = |uid: String| {
        let path = context.pod_dir(&uid).join("pod.json");
        let pod = read_json::<Pod>(&path);
        pod.inspect_err(|error| tracing::warn!(%error, "can't tell whose pod this was"))
            .ok()
    };
    known.into_iter().filter_map(read).collect()
}
