//! Watches the pods of a test and holds every state that it sees against limits.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use portolan_k8s::watch::{Event, Filter, watch};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Sees every pod of the default namespace until dropped.
pub struct Observer {
    seen: Arc<Mutex<Seen>>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    pods: BTreeMap<String, Pod>,
    listing: Option<BTreeMap<String, Pod>>,
    available_min: usize,
    total_max: usize,
    breaches: Vec<String>,
}

impl Observer {
    /// Starts, and returns once the first list is there.
    pub async fn start(client: Client) -> Observer {
        let seen = Arc::new(Mutex::new(Seen {
            total_max: usize::MAX,
            ..Seen::default()
        }));
        let (listed, first) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(run(client, Arc::clone(&seen), listed));
        first.await.unwrap();
        Observer { seen, _task: task }
    }

    /// From now on at least so many pods must be available, and at most so many exist.
    pub fn demand(&self, available_min: usize, total_max: usize) {
        let mut seen = self.seen.lock().unwrap();
        (seen.available_min, seen.total_max) = (available_min, total_max);
        seen.check();
    }

    /// Fails if a limit was ever broken.
    pub fn judge(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(seen.breaches.is_empty(), "{:#?}", seen.breaches);
    }

    /// Images of the pods that are there and not on their way out, sorted.
    pub fn images(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let mut images: Vec<String> = seen.active().map(image).collect();
        images.sort();
        images
    }

    /// Names of the pods that are there and not on their way out.
    pub fn names(&self) -> BTreeSet<String> {
        let seen = self.seen.lock().unwrap();
        let names = seen.active().filter_map(|pod| pod.metadata.name.clone());
        names.collect()
    }

    /// Number of nodes that have pods.
    pub fn nodes(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        let nodes = seen
            .active()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.clone());
        nodes.collect::<BTreeSet<_>>().len()
    }
}

async fn run(client: Client, seen: Arc<Mutex<Seen>>, listed: oneshot::Sender<()>) {
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let mut events = pin!(watch(pods, Filter::default()));
    let mut listed = Some(listed);
    while let Some(event) = events.next().await {
        let done = matches!(event, Event::InitDone);
        seen.lock().unwrap().take(event);
        if let Some(listed) = listed.take_if(|_| done) {
            listed.send(()).unwrap();
        }
    }
}

impl Seen {
    fn take(&mut self, event: Event<Pod>) {
        let name = |pod: &Pod| pod.metadata.name.clone().unwrap();
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(pod) => {
                let listing = self.listing.get_or_insert_default();
                listing.insert(name(&pod), pod);
                return;
            }
            Event::InitDone => self.pods = self.listing.take().unwrap_or_default(),
            Event::Apply(pod) => drop(self.pods.insert(name(&pod), pod)),
            Event::Delete(pod) => drop(self.pods.remove(&name(&pod))),
        }
        self.check();
    }

    fn active(&self) -> impl Iterator<Item = &Pod> {
        let pods = self.pods.values();
        pods.filter(|pod| pod.metadata.deletion_timestamp.is_none())
    }

    fn check(&mut self) {
        let total = self.active().count();
        let available = self.active().filter(|pod| is_ready(pod)).count();
        if total > self.total_max {
            let limit = self.total_max;
            self.breaches
                .push(format!("{total} pods exist, at most {limit} may"));
        }
        if available < self.available_min {
            let limit = self.available_min;
            self.breaches
                .push(format!("{available} pods are available, {limit} must be"));
        }
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn image(pod: &Pod) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut images = containers.filter_map(|container| container.image.clone());
    images.next().unwrap_or_default()
}
