//! Follows Services, EndpointSlices and the own Node, and keeps a Snapshot of them.
//!
//! An event marks the Services that it touches; they are rebuilt when the next Snapshot is asked for, each once,
//! however many events there were. Nothing is said before every kind has been listed fully, and what a new listing
//! does not name is gone (law 9).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_k8s::watch::Event;
use portolan_k8s::{Timestamp, wire};
use portolan_model::{Endpoint, PortKey, Problem, ServiceName, ServicePort, Snapshot};

use crate::node::{self, NodeOptions};
use crate::service::{self, ServiceFacts};
use crate::slice::{self, SliceFacts};

/// Annotation with the time of the oldest change that a slice tells of (an SLI of Kubernetes).
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What the tracker has to tell.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// All Service ports with their endpoints.
    pub snapshot: Arc<Snapshot>,
    /// What is wrong, for each Service with which something is.
    pub problems: Arc<BTreeMap<ServiceName, Vec<Problem>>>,
    /// Oldest trigger time among the slices that came since the last Reflection.
    pub triggered: Option<Timestamp>,
    /// Whether load balancers may send traffic to this node (KEP-3836): it is not about to be removed.
    pub node_eligible: bool,
}

/// Wire objects in, [`Reflection`]s out; synchronous and pure.
#[derive(Debug)]
pub struct Tracker {
    options: NodeOptions,
    interfaces: BTreeSet<IpAddr>,
    node: Option<wire::Node>,
    services: HashMap<ServiceName, Tracked>,
    /// Which Service each slice (by namespace and name) belongs to.
    slices: HashMap<ServiceName, ServiceName>,
    snapshot: Snapshot,
    problems: Arc<BTreeMap<ServiceName, Vec<Problem>>>,
    triggered: Option<Timestamp>,
    dirty: HashSet<ServiceName>,
    dirty_node: bool,
    listing: [Listing; 3],
}

/// A Service and its slices; either may come first.
#[derive(Debug, Default)]
struct Tracked {
    service: Option<ServiceFacts>,
    slices: BTreeMap<Arc<str>, SliceFacts>,
    /// What stands in the Snapshot.
    published: Vec<PortKey>,
}

/// How far the listing of one kind is.
#[derive(Debug, Default)]
struct Listing {
    complete: bool,
    /// What the listing that is under way has named.
    named: Option<HashSet<ServiceName>>,
}

const SERVICES: usize = 0;
const SLICES: usize = 1;
const NODES: usize = 2;

impl Tracker {
    /// Knows nothing yet. `interfaces` may be empty: then the Node object says which addresses the node has.
    pub fn new(options: NodeOptions, interfaces: BTreeSet<IpAddr>) -> Self {
        Tracker {
            options,
            interfaces,
            node: None,
            services: HashMap::new(),
            slices: HashMap::new(),
            snapshot: Snapshot::default(),
            problems: Arc::default(),
            triggered: None,
            dirty: HashSet::new(),
            dirty_node: true,
            listing: Default::default(),
        }
    }

    /// The addresses of the node's interfaces have changed.
    pub fn set_interfaces(&mut self, interfaces: BTreeSet<IpAddr>) {
        self.dirty_node |= self.interfaces != interfaces;
        self.interfaces = interfaces;
    }

    /// Takes in an event about Services.
    pub fn service(&mut self, event: Event<wire::Service>) {
        match event {
            Event::Init => self.begin(SERVICES),
            Event::Apply(service) | Event::InitApply(service) => self.put_service(&service),
            Event::Delete(service) => self.remove_service(&name_of(&service.metadata)),
            Event::InitDone => {
                let gone = self.finish(SERVICES);
                let has = |name: &ServiceName| {
                    self.services.get(name).is_some_and(|t| t.service.is_some())
                };
                let stale: Vec<ServiceName> = self
                    .services
                    .keys()
                    .filter(|name| has(name) && !gone.contains(*name))
                    .cloned()
                    .collect();
                stale.iter().for_each(|name| self.remove_service(name));
            }
        }
    }

    /// Takes in an event about EndpointSlices.
    pub fn slice(&mut self, event: Event<wire::EndpointSlice>) {
        match event {
            Event::Init => self.begin(SLICES),
            Event::Apply(slice) | Event::InitApply(slice) => self.put_slice(&slice),
            Event::Delete(slice) => self.remove_slice(&name_of(&slice.metadata)),
            Event::InitDone => {
                let named = self.finish(SLICES);
                let stale: Vec<ServiceName> = self
                    .slices
                    .keys()
                    .filter(|name| !named.contains(*name))
                    .cloned()
                    .collect();
                stale.iter().for_each(|name| self.remove_slice(name));
            }
        }
    }

    /// Takes in an event about Nodes; those of others are passed over.
    pub fn node(&mut self, event: Event<wire::Node>) {
        match event {
            Event::Init => self.begin(NODES),
            Event::Apply(node) | Event::InitApply(node) => {
                if node.metadata.name.as_deref() == Some(self.options.name.as_str()) {
                    self.listing[NODES].name(&name_of(&node.metadata));
                    self.set_node(Some(node));
                }
            }
            Event::Delete(node) => {
                if node.metadata.name.as_deref() == Some(self.options.name.as_str()) {
                    self.set_node(None);
                }
            }
            Event::InitDone => {
                if self.finish(NODES).is_empty() {
                    self.set_node(None);
                }
            }
        }
    }

    /// What there is to tell, once: `None` when nothing has changed since the last call, or when not everything that
    /// is needed has been seen yet.
    pub fn reflect(&mut self) -> Option<Reflection> {
        let complete = self.listing.iter().all(|listing| listing.complete);
        if !complete || (self.dirty.is_empty() && !self.dirty_node) {
            return None;
        }
        if self.dirty_node {
            let facts = node::facts(&self.options, self.node.as_ref(), &self.interfaces)?;
            self.snapshot.set_node(facts);
            self.dirty_node = false;
        }
        for name in std::mem::take(&mut self.dirty) {
            self.rebuild(&name);
        }
        Some(Reflection {
            snapshot: Arc::new(self.snapshot.clone()),
            problems: Arc::clone(&self.problems),
            triggered: self.triggered.take(),
            node_eligible: self.node.as_ref().is_none_or(node::is_eligible),
        })
    }

    fn begin(&mut self, kind: usize) {
        self.listing[kind].named = Some(HashSet::new());
    }

    fn finish(&mut self, kind: usize) -> HashSet<ServiceName> {
        // The first complete listing is news even when it is empty.
        self.dirty_node |= !self.listing[kind].complete;
        self.listing[kind].complete = true;
        self.listing[kind].named.take().unwrap_or_default()
    }

    fn set_node(&mut self, node: Option<wire::Node>) {
        self.node = node;
        self.dirty_node = true;
    }

    fn put_service(&mut self, service: &wire::Service) {
        let name = name_of(&service.metadata);
        self.listing[SERVICES].name(&name);
        let facts = service::facts(&name, service);
        let tracked = self.services.entry(name.clone()).or_default();
        if tracked.service.as_ref() != Some(&facts) {
            tracked.service = Some(facts);
            self.dirty.insert(name);
        }
    }

    fn remove_service(&mut self, name: &ServiceName) {
        if let Some(tracked) = self.services.get_mut(name)
            && tracked.service.take().is_some()
        {
            self.dirty.insert(name.clone());
        }
    }

    fn put_slice(&mut self, slice: &wire::EndpointSlice) {
        let slice_name = name_of(&slice.metadata);
        let Some(service) = slice::service_of(slice) else {
            return self.remove_slice(&slice_name);
        };
        self.listing[SLICES].name(&slice_name);
        if self
            .slices
            .get(&slice_name)
            .is_some_and(|before| *before != service)
        {
            self.remove_slice(&slice_name);
        }
        self.note_trigger(slice);
        let facts = slice::facts(&service, &self.options.name, slice);
        let tracked = self.services.entry(service.clone()).or_default();
        if tracked.slices.get(&slice_name.name) != Some(&facts) {
            tracked.slices.insert(slice_name.name.clone(), facts);
            self.dirty.insert(service.clone());
        }
        self.slices.insert(slice_name, service);
    }

    fn remove_slice(&mut self, slice_name: &ServiceName) {
        if let Some(service) = self.slices.remove(slice_name)
            && let Some(tracked) = self.services.get_mut(&service)
        {
            tracked.slices.remove(&slice_name.name);
            self.dirty.insert(service);
        }
    }

    fn note_trigger(&mut self, slice: &wire::EndpointSlice) {
        let text = slice
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(TRIGGER_TIME));
        let time = text.and_then(|text| text.parse::<Timestamp>().ok());
        // During a listing the times are old news.
        if self.listing[SLICES].complete && self.listing[SLICES].named.is_none() {
            self.triggered = [self.triggered, time].into_iter().flatten().min();
        }
    }

    fn rebuild(&mut self, name: &ServiceName) {
        let Some(tracked) = self.services.get_mut(name) else {
            return;
        };
        let wanted: &[ServicePort] = tracked
            .service
            .as_ref()
            .map(|facts| &*facts.ports)
            .unwrap_or_default();
        for key in &tracked.published {
            if !wanted.iter().any(|port| port.key == *key) {
                self.snapshot.remove(key);
            }
        }
        for port in wanted {
            let endpoints = endpoints_of(&port.key, tracked.slices.values());
            self.snapshot.set(ServicePort {
                endpoints,
                ..port.clone()
            });
        }
        tracked.published = wanted.iter().map(|port| port.key.clone()).collect();
        let problems = match &tracked.service {
            Some(facts) => facts
                .problems
                .iter()
                .chain(tracked.slices.values().flat_map(|s| &s.problems))
                .cloned()
                .collect(),
            None => Vec::new(),
        };
        if self
            .problems
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
            != problems
        {
            let all = Arc::make_mut(&mut self.problems);
            match problems.is_empty() {
                true => all.remove(name),
                false => all.insert(name.clone(), problems),
            };
        }
        if tracked.service.is_none() && tracked.slices.is_empty() {
            self.services.remove(name);
        }
    }
}

impl Listing {
    fn name(&mut self, name: &ServiceName) {
        if let Some(named) = &mut self.named {
            named.insert(name.clone());
        }
    }
}

/// The endpoints of one port out of all slices: each address once, the best of its duplicates.
fn endpoints_of<'a>(
    key: &PortKey,
    slices: impl Iterator<Item = &'a SliceFacts>,
) -> Arc<[Endpoint]> {
    let mut all: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
    for slice in slices {
        let mine = slice
            .ports
            .iter()
            .filter(|(name, protocol, _)| *name == key.port && *protocol == key.protocol);
        for (_, _, number) in mine {
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address.ip(), number.get());
                if all
                    .get(&address)
                    .is_none_or(|other| worth(endpoint) > worth(other))
                {
                    all.insert(
                        address,
                        Endpoint {
                            address,
                            ..endpoint.clone()
                        },
                    );
                }
            }
        }
    }
    all.into_values().collect()
}

/// Of two entries with one address (a pod's address is reused while the old pod is still terminating) this one counts.
fn worth(endpoint: &Endpoint) -> (bool, bool, bool, bool) {
    (
        endpoint.ready,
        endpoint.serving,
        endpoint.local,
        !endpoint.terminating,
    )
}

fn name_of(metadata: &portolan_k8s::ObjectMeta) -> ServiceName {
    let text = |field: &Option<String>| Arc::from(field.as_deref().unwrap_or_default());
    ServiceName {
        namespace: text(&metadata.namespace),
        name: text(&metadata.name),
    }
}

#[cfg(test)]
mod tests;
