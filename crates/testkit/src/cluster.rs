//! The objects of a cluster as a test has them, and the Snapshot that a node makes of them through `reflect`.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use portolan_k8s::watch::{Event, PROXIED};
use portolan_k8s::{Selector, wire};
use portolan_model::{Listener, LocalPods, NodeFacts, Overlay, Snapshot};
use portolan_reflect::{DetectLocal, NodeOptions, NodePortAddresses, Tracker};
use serde_json::{Value, json};

use crate::scenario::{ObjectName, Step};

/// A node's view of a cluster that changes step by step, as its watches would tell it.
#[derive(Debug)]
pub struct Cluster {
    tracker: Tracker,
    /// What a watch has shown of each object; one that its selector leaves out is not here.
    shown: BTreeMap<ObjectName, Value>,
    /// Endpoints that do not answer, whether they are listed or not.
    silent: BTreeSet<Listener>,
    overlay: Overlay,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is there, or is there in another form.
    Apply(Value),
    /// An object is gone; its last form.
    Delete(Value),
}

impl Change {
    /// The object that it is about.
    pub fn object(&self) -> &Value {
        let (Change::Apply(object) | Change::Delete(object)) = self;
        object
    }
}

impl Cluster {
    /// An empty cluster as `node` sees it, listed completely.
    pub fn new(node: &NodeFacts) -> Self {
        let mut tracker = Tracker::new(options(node), node.addresses.clone());
        tracker.service(Event::InitDone);
        tracker.slice(Event::InitDone);
        tracker.node(Event::Init);
        tracker.node(Event::InitApply(node_object(node)));
        tracker.node(Event::InitDone);
        let mut cluster = Cluster {
            tracker,
            shown: BTreeMap::new(),
            silent: BTreeSet::new(),
            overlay: Overlay::default(),
        };
        cluster.reflect();
        cluster
    }

    /// Carries out the changes of a step.
    pub fn take(&mut self, step: &Step) {
        for change in self.changes(step) {
            self.feed(change);
        }
        let mut silent = self.silent.clone();
        silent.extend(&step.eject);
        silent.retain(|listener| !step.readmit.contains(listener));
        self.set_silent(silent);
        self.reflect();
    }

    /// Endpoints that do not answer, whether they are listed yet or not; [`Cluster::reflect`] makes it count.
    pub fn set_silent(&mut self, silent: BTreeSet<Listener>) {
        self.silent = silent;
    }

    /// The endpoints that do not answer.
    pub fn silent(&self) -> &BTreeSet<Listener> {
        &self.silent
    }

    /// The events that a watch sends for the changes of a step.
    pub fn changes(&mut self, step: &Step) -> Vec<Change> {
        let watched = Selector::parse(PROXIED).expect("invariant: our own selector is well formed");
        let mut changes = Vec::new();
        for object in &step.apply {
            if watched.matches_object(object) {
                self.shown.insert(name_of(object), object.clone());
                changes.push(Change::Apply(object.clone()));
            } else if let Some(before) = self.shown.remove(&name_of(object)) {
                changes.push(Change::Delete(before));
            }
        }
        let deleted = step
            .delete
            .iter()
            .filter_map(|name| self.shown.remove(name));
        changes.extend(deleted.map(Change::Delete));
        changes
    }

    /// The objects that the watches have shown.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.shown.keys()
    }

    /// Feeds one event; [`Cluster::reflect`] makes it count.
    pub fn feed(&mut self, change: Change) {
        let (object, gone) = match change {
            Change::Apply(object) => (object, false),
            Change::Delete(object) => (object, true),
        };
        match name_of(&object).kind.as_str() {
            "Service" => {
                let service: wire::Service = read(object);
                self.tracker.service(if gone {
                    Event::Delete(service)
                } else {
                    Event::Apply(service)
                });
            }
            "EndpointSlice" => {
                let slice: wire::EndpointSlice = read(object);
                self.tracker.slice(if gone {
                    Event::Delete(slice)
                } else {
                    Event::Apply(slice)
                });
            }
            kind => panic!("a scenario has Services and EndpointSlices, not {kind:?}"),
        }
    }

    /// Takes over what the tracker has to tell, and who answers.
    pub fn reflect(&mut self) {
        if let Some(reflection) = self.tracker.reflect() {
            self.overlay
                .on_snapshot(reflection.snapshot.as_ref().clone());
        }
        let back = |listener: &&Listener| !self.silent.contains(listener);
        let back: Vec<Listener> = self
            .overlay
            .ejected()
            .keys()
            .filter(back)
            .copied()
            .collect();
        for listener in back {
            self.overlay.readmit(listener);
        }
        for listener in &self.silent {
            self.overlay.eject(*listener);
        }
    }

    /// What the node sees.
    pub fn snapshot(&self) -> &Snapshot {
        self.overlay.snapshot()
    }
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap_or_else(|e| panic!("an object of a scenario: {e}"))
}

/// Kind, namespace and name of an object; missing parts are empty.
pub fn name_of(object: &Value) -> ObjectName {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    ObjectName {
        kind: text("/kind"),
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
    }
}

/// The options with which the tracker comes to these facts.
fn options(node: &NodeFacts) -> NodeOptions {
    NodeOptions {
        name: node.name.to_string(),
        primary_address: None,
        detect_local: match &node.local_pods {
            LocalPods::Unknown => DetectLocal::ClusterCidr(Vec::new()),
            LocalPods::Cidrs(cidrs) => DetectLocal::ClusterCidr(cidrs.clone()),
            LocalPods::Interface(name) => DetectLocal::BridgeInterface(name.to_string()),
            LocalPods::InterfacePrefix(prefix) => {
                DetectLocal::InterfaceNamePrefix(prefix.to_string())
            }
        },
        node_port_addresses: NodePortAddresses::within(
            node.node_port_addresses
                .iter()
                .copied()
                .map(IpNet::from)
                .collect(),
        ),
        masquerade_all: node.masquerade_all,
        service_cidrs: node.service_cidrs.clone(),
    }
}

fn node_object(node: &NodeFacts) -> wire::Node {
    let mut object = json!({"metadata": {"name": &*node.name, "labels": {}}});
    if let Some(zone) = &node.zone {
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(&**zone);
    }
    read(object)
}
