//! Follows Services, EndpointSlices and the own Node, and keeps a Snapshot of them.
//!
//! An event marks the Services that it touches; they are rebuilt when the next Snapshot is asked for, each once,
//! however many events there were. Nothing is said before every kind has been listed fully, and what a new listing
//! does not name is gone (law 9).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use portolan_k8s::watch::Event;
use portolan_k8s::{Timestamp, wire};
use portolan_model::{
    Endpoint, Family, PortKey, Problem, ServiceName, ServicePort, Snapshot, packed,
};

use crate::names::Names;
use crate::node::{self, NodeOptions};
use crate::problems::Problems;
use crate::service;
use crate::slice::{self, SliceFacts, SlicePort};

/// Annotation with the time of the oldest change that a slice tells of (an SLI of Kubernetes).
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What the tracker has to tell.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// All Service ports with their endpoints.
    pub snapshot: Arc<Snapshot>,
    /// What is wrong with Services as they are written.
    pub problems: Problems,
    /// Oldest trigger time among the slices of each family that came since the last Reflection.
    pub triggered: BTreeMap<Family, Timestamp>,
    /// When the oldest of the events that led to it was received, if somebody has looked at the clock.
    pub received: Option<Instant>,
    /// Whether load balancers may send traffic to this node (KEP-3836): it is not about to be removed.
    pub node_eligible: bool,
}

/// Wire objects in, [`Reflection`]s out; synchronous and pure.
#[derive(Debug)]
pub struct Tracker {
    /// The node whose view it is; `None` for somebody who stands nowhere in particular.
    options: Option<NodeOptions>,
    interfaces: BTreeSet<IpAddr>,
    node: Option<wire::Node>,
    names: Names,
    services: HashMap<ServiceName, Tracked>,
    /// The name of the Service that each slice (by namespace and name) belongs to.
    slices: HashMap<ServiceName, Arc<str>>,
    snapshot: Snapshot,
    problems: Problems,
    triggered: BTreeMap<Family, Timestamp>,
    dirty: HashSet<ServiceName>,
    dirty_node: bool,
    listing: [Listing; 3],
}

/// A Service and its slices; either may come first.
#[derive(Debug, Default)]
struct Tracked {
    /// The ports of the Service, if it is there; the Snapshot has the same ones, once they are rebuilt.
    ports: Option<Box<[Arc<ServicePort>]>>,
    /// What could not be understood of the Service.
    problems: Vec<Problem>,
    /// By name, in order.
    slices: Vec<(Arc<str>, SliceFacts)>,
}

impl Tracked {
    fn find(&self, slice: &str) -> Result<usize, usize> {
        self.slices
            .binary_search_by(|(name, _)| (**name).cmp(slice))
    }
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
        let options = Some(options);
        Tracker {
            options,
            interfaces,
            node: None,
            names: Names::default(),
            services: HashMap::new(),
            slices: HashMap::new(),
            snapshot: Snapshot::default(),
            problems: Problems::default(),
            triggered: BTreeMap::new(),
            dirty: HashSet::new(),
            dirty_node: true,
            listing: Default::default(),
        }
    }

    /// For somebody who sends requests to Services from nowhere in particular, such as the gateway: no endpoint is
    /// local, no Node is waited for, and headless Services are there, too, with endpoints and without addresses.
    pub fn of_no_node() -> Self {
        let listing = [
            Listing::default(),
            Listing::default(),
            Listing {
                complete: true,
                named: None,
            },
        ];
        Tracker {
            options: None,
            interfaces: BTreeSet::new(),
            node: None,
            names: Names::default(),
            services: HashMap::new(),
            slices: HashMap::new(),
            snapshot: Snapshot::default(),
            problems: Problems::default(),
            triggered: BTreeMap::new(),
            dirty: HashSet::new(),
            dirty_node: true,
            listing,
        }
    }

    /// The addresses of the node's interfaces have changed.
    pub fn set_interfaces(&mut self, interfaces: BTreeSet<IpAddr>) {
        self.dirty_node |= self.interfaces != interfaces;
        self.interfaces = interfaces;
    }

    /// The operator has decided anew; the node's name stays.
    pub fn set_options(&mut self, options: NodeOptions) {
        let options = Some(options);
        self.dirty_node |= self.options != options;
        self.options = options;
    }

    /// Takes in an event about Services.
    pub fn service(&mut self, event: Event<wire::Service>) {
        match event {
            Event::Init => self.begin(SERVICES),
            Event::Apply(service) | Event::InitApply(service) => self.put_service(&service),
            Event::Delete(service) => {
                let name = name_of(&mut self.names, &service.metadata);
                self.remove_service(&name);
            }
            Event::InitDone => {
                let gone = self.finish(SERVICES);
                let has =
                    |name: &ServiceName| self.services.get(name).is_some_and(|t| t.ports.is_some());
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
            Event::Delete(slice) => {
                let name = name_of(&mut self.names, &slice.metadata);
                self.remove_slice(&name);
            }
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
                if self.is_own(&node) {
                    let name = name_of(&mut self.names, &node.metadata);
                    self.listing[NODES].name(&name);
                    self.set_node(Some(node));
                }
            }
            Event::Delete(node) => {
                if self.is_own(&node) {
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
            if let Some(options) = &self.options {
                let facts = node::facts(options, self.node.as_ref(), &self.interfaces)?;
                self.snapshot.set_node(facts);
            }
            self.dirty_node = false;
        }
        let mut dirty: Vec<ServiceName> = std::mem::take(&mut self.dirty).into_iter().collect();
        dirty.sort_unstable();
        packed(dirty).for_each(|name| self.rebuild(&name));
        Some(Reflection {
            snapshot: Arc::new(self.snapshot.clone()),
            problems: self.problems.clone(),
            triggered: std::mem::take(&mut self.triggered),
            received: None,
            node_eligible: self.node.as_ref().is_none_or(node::is_eligible),
        })
    }

    fn is_own(&self, node: &wire::Node) -> bool {
        let own = self.options.as_ref().map(|options| options.name.as_str());
        own.is_some() && node.metadata.name.as_deref() == own
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
        let name = name_of(&mut self.names, &service.metadata);
        let name = self.known(name);
        self.listing[SERVICES].name(&name);
        let facts = service::facts(&name, &mut self.names, service, self.options.is_none());
        let tracked = self.services.entry(name.clone()).or_default();
        let before = tracked.ports.as_deref();
        if before.is_some_and(|before| same(before, &facts.ports))
            && tracked.problems == facts.problems
        {
            return;
        }
        let gone = |port: &&Arc<ServicePort>| !facts.ports.iter().any(|new| new.key == port.key);
        let before = before.unwrap_or_default().iter();
        before
            .filter(gone)
            .for_each(|port| self.snapshot.remove(&port.key));
        tracked.ports = Some(facts.ports.into_iter().map(Arc::new).collect());
        tracked.problems = facts.problems;
        self.dirty.insert(name);
    }

    fn remove_service(&mut self, name: &ServiceName) {
        if let Some(tracked) = self.services.get_mut(name)
            && let Some(ports) = tracked.ports.take()
        {
            ports
                .iter()
                .for_each(|port| self.snapshot.remove(&port.key));
            tracked.problems.clear();
            self.dirty.insert(name.clone());
        }
    }

    fn put_slice(&mut self, slice: &wire::EndpointSlice) {
        let slice_name = name_of(&mut self.names, &slice.metadata);
        let Some(service) = slice::service_of(slice) else {
            return self.remove_slice(&slice_name);
        };
        let service = self.known(ServiceName {
            namespace: Arc::clone(&slice_name.namespace),
            name: service.into(),
        });
        self.listing[SLICES].name(&slice_name);
        let before = self.slices.get(&slice_name);
        if before.is_some_and(|before| *before != service.name) {
            self.remove_slice(&slice_name);
        }
        self.note_trigger(slice);
        let node = self.options.as_ref().map(|options| options.name.as_str());
        let facts = slice::facts(&service, node, &mut self.names, slice);
        let tracked = self.services.entry(service.clone()).or_default();
        match tracked.find(&slice_name.name) {
            Ok(at) if tracked.slices[at].1 == facts => return,
            Ok(at) => tracked.slices[at].1 = facts,
            Err(at) => {
                // Most Services have one slice.
                tracked.slices.reserve_exact(1);
                tracked
                    .slices
                    .insert(at, (Arc::clone(&slice_name.name), facts));
                self.slices.insert(slice_name, Arc::clone(&service.name));
            }
        }
        self.dirty.insert(service);
    }

    fn remove_slice(&mut self, slice_name: &ServiceName) {
        let Some(service) = self.slices.remove(slice_name) else {
            return;
        };
        let service = ServiceName {
            namespace: Arc::clone(&slice_name.namespace),
            name: service,
        };
        if let Some(tracked) = self.services.get_mut(&service)
            && let Ok(at) = tracked.find(&slice_name.name)
        {
            tracked.slices.remove(at);
            self.dirty.insert(service);
        }
    }

    /// The same name; if it is known, the copy of it that is kept.
    fn known(&self, name: ServiceName) -> ServiceName {
        match self.services.get_key_value(&name) {
            Some((known, _)) => known.clone(),
            None => name,
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
        let is_news = self.listing[SLICES].complete && self.listing[SLICES].named.is_none();
        if let (true, Some(time), Some(family)) = (is_news, time, slice::family(slice)) {
            let oldest = self.triggered.entry(family).or_insert(time);
            *oldest = time.min(*oldest);
        }
    }

    fn rebuild(&mut self, name: &ServiceName) {
        let Some(tracked) = self.services.get_mut(name) else {
            return;
        };
        for port in tracked.ports.iter_mut().flatten() {
            let endpoints = endpoints_of(&port.key, &tracked.slices);
            if port.endpoints != endpoints {
                Arc::make_mut(port).endpoints = endpoints;
            }
            self.snapshot.set(Arc::clone(port));
        }
        let of_slices = tracked.slices.iter().flat_map(|(_, slice)| &slice.problems);
        let problems: Vec<Problem> = match tracked.ports {
            Some(_) => tracked.problems.iter().chain(of_slices).cloned().collect(),
            None => Vec::new(),
        };
        self.problems.set(name, problems);
        if tracked.ports.is_none() && tracked.slices.is_empty() {
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

/// Whether the ports of a Service are the same but for what the tracker itself adds to them.
fn same(before: &[Arc<ServicePort>], now: &[ServicePort]) -> bool {
    let same = |(before, now): (&Arc<ServicePort>, &ServicePort)| {
        let now = ServicePort {
            endpoints: Arc::clone(&before.endpoints),
            ..now.clone()
        };
        now == **before
    };
    before.len() == now.len() && before.iter().zip(now).all(same)
}

/// The endpoints of one port out of all slices: each address once, the best of its duplicates.
fn endpoints_of(key: &PortKey, slices: &[(Arc<str>, SliceFacts)]) -> Arc<[Endpoint]> {
    let mine = |port: &&SlicePort| port.name == key.port && port.protocol == key.protocol;
    // As a rule there is one slice with one port, and the slice has it all.
    if let [(_, slice)] = slices
        && let [port] = &*slice.ports
        && mine(&port)
    {
        return Arc::clone(&slice.endpoints);
    }
    let mut all = Vec::new();
    for (_, slice) in slices {
        for port in slice.ports.iter().filter(mine) {
            let numbered = |endpoint: &Endpoint| endpoint.clone().at_port(port.number.get());
            all.extend(slice.endpoints.iter().map(numbered));
        }
    }
    slice::best(all)
}

fn name_of(names: &mut Names, metadata: &portolan_k8s::ObjectMeta) -> ServiceName {
    ServiceName {
        namespace: names.share(metadata.namespace.as_deref().unwrap_or_default()),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    }
}

#[cfg(test)]
mod tests;
