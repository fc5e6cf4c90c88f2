//! The slices that a Service with a selector should have, as groups of endpoints that share their ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::jiff::Timestamp;

use super::pods;

/// Endpoints of one family that have the same ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// `IPv4` or `IPv6`.
    pub(crate) family: String,
    /// Resolved ports.
    pub(crate) ports: Vec<EndpointPort>,
    /// In the order of their addresses.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Makes the groups out of the pods that the selector matches. A family without any endpoint has one empty group,
/// so that there is a slice to see.
pub(super) fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for family in families(service) {
        let mut by_ports: BTreeMap<String, Group> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pods::is_over(pod)) {
            let Some(address) = pods::address_of(pod, &family) else {
                continue;
            };
            let ports = ports(service, pod);
            let id = ports
                .iter()
                .map(|p| format!("{:?} {:?} {:?};", p.name, p.protocol, p.port))
                .collect();
            let empty = || Group {
                family: family.clone(),
                ports,
                endpoints: Vec::new(),
            };
            by_ports
                .entry(id)
                .or_insert_with(empty)
                .endpoints
                .push(endpoint(service, pod, address, zone));
        }
        if by_ports.is_empty() {
            groups.push(Group {
                family,
                ports: Vec::new(),
                endpoints: Vec::new(),
            });
            continue;
        }
        groups.extend(by_ports.into_values());
    }
    for group in &mut groups {
        group
            .endpoints
            .sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    groups
}

/// Labels of the Service go to its slices, besides those that have a meaning there.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    for reserved in ["kubernetes.io/service-name", super::MANAGED_BY, HEADLESS] {
        labels.remove(reserved);
    }
    if service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
    {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// When the newest change of these pods happened, as far as they tell.
pub(super) fn trigger_time(pods: &[Arc<Pod>]) -> Option<Timestamp> {
    let ready = |pod: &Arc<Pod>| {
        Some(
            pods::condition(pod, "Ready")?
                .last_transition_time
                .as_ref()?
                .0,
        )
    };
    pods.iter().filter_map(ready).max()
}

const HEADLESS: &str = "service.kubernetes.io/headless";

fn families(service: &Service) -> Vec<String> {
    let spec = service.spec.as_ref();
    let given = spec
        .and_then(|spec| spec.ip_families.clone())
        .unwrap_or_default();
    match given.is_empty() {
        false => given,
        true => {
            let ip = spec
                .and_then(|spec| spec.cluster_ip.as_deref())
                .and_then(pods::family_of);
            vec![ip.unwrap_or("IPv4").to_string()]
        }
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let resolved = ports.filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
            port: Some(pods::target_port(pod, port)?),
            app_protocol: port.app_protocol.clone(),
        })
    });
    resolved.collect()
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let publish = spec
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    let (serving, terminating) = (pods::is_ready(pod), pods::is_terminating(pod));
    let node_name = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let zone = node_name.as_deref().and_then(zone);
    let ready = publish || (serving && !terminating);
    Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(
            spec.and_then(|s| s.traffic_distribution.as_deref()),
            ready,
            node_name.as_deref(),
            zone.as_deref(),
        ),
        hostname: hostname(service, pod),
        node_name,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        zone,
        deprecated_topology: None,
    }
}

/// `trafficDistribution` acts through hints (KEP-4444, KEP-3015).
fn hints(
    distribution: Option<&str>,
    ready: bool,
    node: Option<&str>,
    zone: Option<&str>,
) -> Option<EndpointHints> {
    let for_zones = || {
        zone.map(|zone| {
            vec![ForZone {
                name: zone.to_string(),
            }]
        })
    };
    let for_nodes = || {
        node.map(|node| {
            vec![ForNode {
                name: node.to_string(),
            }]
        })
    };
    let hints = match distribution.filter(|_| ready)? {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: for_nodes(),
        },
        _ => return None,
    };
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

/// Pods of a headless Service that share its name as subdomain have names of their own in DNS.
fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain.is_some() && spec.subdomain == service.metadata.name).then_some(hostname)
}
