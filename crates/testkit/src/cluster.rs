//! The objects of a cluster as a test has them, and the Snapshot that one node makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use portolan_k8s::wire;
use portolan_model::{
    Affinity, Endpoint, Family, NodeFacts, PortKey, ServicePort, Snapshot, TrafficPolicy,
};
use serde_json::Value;

use crate::scenario::{ObjectName, Objects, Step};

/// The objects that stand at one moment.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    objects: Objects,
}

impl Cluster {
    /// Carries out the changes of a step.
    pub fn take(&mut self, step: &Step) {
        step.apply.iter().for_each(|object| {
            self.objects.insert(name_of(object), object.clone());
        });
        step.delete.iter().for_each(|name| {
            self.objects.remove(name);
        });
    }

    /// What `node` sees.
    pub fn snapshot(&self, node: &NodeFacts) -> Snapshot {
        bridge(node, &self.objects)
    }
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

fn bridge(node: &NodeFacts, objects: &Objects) -> Snapshot {
    let mut snapshot = Snapshot::new(node.clone());
    let slices: Vec<(String, wire::EndpointSlice)> = objects
        .iter()
        .filter(|(name, _)| name.kind == "EndpointSlice")
        .map(|(name, o)| {
            (
                name.namespace.clone(),
                serde_json::from_value(o.clone()).unwrap_or_default(),
            )
        })
        .collect();
    for (name, object) in objects.iter().filter(|(name, _)| name.kind == "Service") {
        let service: wire::Service = serde_json::from_value(object.clone()).unwrap_or_default();
        let labels = service.metadata.labels.clone().unwrap_or_default();
        let foreign = labels.contains_key("service.kubernetes.io/service-proxy-name");
        let spec = &service.spec;
        if foreign
            || spec.cluster_ip.as_deref() == Some("None")
            || spec.r#type.as_deref() == Some("ExternalName")
        {
            continue;
        }
        let ips = |list: &Option<Vec<String>>| -> Vec<IpAddr> {
            list.iter()
                .flatten()
                .filter_map(|ip| ip.parse().ok())
                .collect()
        };
        for port in spec.ports.iter().flatten() {
            let protocol = port
                .protocol
                .clone()
                .unwrap_or_default()
                .parse()
                .expect("invariant: known protocol");
            let port_name = port.name.clone().unwrap_or_default();
            let key = PortKey::new(&name.namespace, &name.name, &port_name, protocol);
            let number = |n: Option<i64>| n.and_then(|n| NonZeroU16::new(n as u16));
            let mut made = ServicePort::new(key, number(port.port).expect("invariant: a port"));
            made.created = service
                .metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |t| t.0.as_second());
            made.cluster_ips = ips(&spec.cluster_ips);
            made.external_ips = ips(&spec.external_ips);
            made.load_balancer_ips = service
                .status
                .load_balancer
                .ingress
                .iter()
                .flatten()
                .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
                .filter_map(|i| i.ip.as_ref()?.parse().ok())
                .collect();
            made.node_port = number(port.node_port);
            made.families = spec
                .ip_families
                .iter()
                .flatten()
                .map(|f| if f == "IPv6" { Family::V6 } else { Family::V4 })
                .collect::<BTreeSet<_>>();
            made.source_ranges = spec
                .load_balancer_source_ranges
                .iter()
                .flatten()
                .filter_map(|r| r.trim().parse().ok())
                .collect();
            if spec.session_affinity.as_deref() == Some("ClientIP") {
                let seconds = spec
                    .session_affinity_config
                    .as_ref()
                    .and_then(|c| c.client_ip.as_ref()?.timeout_seconds)
                    .unwrap_or(10800);
                made.affinity = Some(Affinity {
                    timeout: Duration::from_secs(seconds as u64),
                });
            }
            let policy = |p: &Option<String>| {
                if p.as_deref() == Some("Local") {
                    TrafficPolicy::Local
                } else {
                    TrafficPolicy::Cluster
                }
            };
            made.internal_policy = policy(&spec.internal_traffic_policy);
            made.external_policy = policy(&spec.external_traffic_policy);
            let mut endpoints: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
            for (namespace, slice) in &slices {
                let of = slice
                    .metadata
                    .labels
                    .as_ref()
                    .and_then(|l| l.get("kubernetes.io/service-name"));
                if *namespace != name.namespace || of != Some(&name.name) {
                    continue;
                }
                for slice_port in slice.ports.iter().flatten().filter(|p| {
                    p.name.clone().unwrap_or_default() == port_name
                        && p.protocol.clone().unwrap_or("TCP".into()) == protocol.as_str()
                }) {
                    for e in slice.endpoints.iter().flatten() {
                        for a in e.addresses.iter().flatten() {
                            let Ok(ip) = a.parse::<IpAddr>() else {
                                continue;
                            };
                            let mut made = Endpoint::ready(SocketAddr::new(
                                ip,
                                slice_port.port.unwrap_or(0) as u16,
                            ));
                            made.local = e.node_name.as_deref() == Some(&node.name);
                            let c = e.conditions.clone();
                            made.ready = c.ready.unwrap_or(true);
                            made.serving = c.serving.unwrap_or(made.ready);
                            made.terminating = c.terminating.unwrap_or(false);
                            let h = e.hints.clone().unwrap_or_default();
                            let names = |l: &Option<Vec<wire::ForName>>| -> Arc<[Arc<str>]> {
                                l.iter()
                                    .flatten()
                                    .map(|f| Arc::from(f.name.as_str()))
                                    .collect()
                            };
                            made.zones = names(&h.for_zones);
                            made.nodes = names(&h.for_nodes);
                            let old = endpoints.get(&made.address);
                            if old.is_none_or(|old| !old.ready) {
                                endpoints.insert(made.address, made);
                            }
                        }
                    }
                }
            }
            made.endpoints = endpoints.into_values().collect();
            snapshot.set(made);
        }
    }
    snapshot
}
