//! Wire objects become [`names`]: what DNS says of a cluster. One object at a time, without memory.
//!
//! What cannot be a name is left out and told as a [`Problem`], as far as it is a Service's. The rest of the object
//! keeps its names.

use std::net::IpAddr;

use portolan_k8s::{ObjectMeta, wire};
use portolan_model::names::{
    Backs, Endpoint, HostName, Import, Label, ObjectName, Owner, Pod, Port, Service, ServiceKind,
    Slice,
};
use portolan_model::{Problem, ServiceName};

use crate::address::parse_ip;

/// Labels of slices (KEP-752, KEP-1645).
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const IMPORT_NAME: &str = "multicluster.kubernetes.io/service-name";
const SOURCE_CLUSTER: &str = "multicluster.kubernetes.io/source-cluster";

/// When the change that a slice tells of was made.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The label of a namespace.
pub fn namespace(namespace: &wire::Namespace) -> Option<Label> {
    Label::new(namespace.metadata.name.as_deref()?)
}

/// Namespace and name of an object that has records of its own.
pub fn owner(metadata: &ObjectMeta) -> Option<Owner> {
    Owner::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?)
}

/// Identity of any object.
pub fn object(metadata: &ObjectMeta) -> ObjectName {
    let text = |part: &Option<String>| part.as_deref().unwrap_or_default().to_owned();
    ObjectName::new(&text(&metadata.namespace), &text(&metadata.name))
}

/// A Service; `None` when its name is no label.
pub fn service(service: &wire::Service) -> (Option<Service>, Vec<Problem>) {
    let Some(owner) = owner(&service.metadata) else {
        return (None, Vec::new());
    };
    let mut problems = Vec::new();
    let mut wrong = |reason, message| {
        problems.push(Problem {
            service: ServiceName::new(&owner.namespace, &owner.name),
            reason,
            message,
        });
    };
    let spec = &service.spec;
    let kind = kind(spec);
    if kind == ServiceKind::ExternalName(None) {
        let text = spec.external_name.as_deref().unwrap_or_default();
        let message = format!(
            "externalName {text:?} is no name that DNS can say (an IP address is none); the Service has no records. Name a host, or use a Service with an EndpointSlice of your own."
        );
        wrong("InvalidExternalName", message);
    }
    let ingress = service.status.load_balancer.ingress.iter().flatten();
    let balancers = ingress.clone().filter_map(|i| i.ip.as_deref());
    let texts = spec.external_ips.iter().flatten().map(String::as_str);
    let external_names = ingress.filter_map(|i| HostName::new(i.hostname.as_deref()?));
    let named = Service {
        kind,
        ports: ports(spec.ports.iter().flatten()),
        external: texts.chain(balancers).filter_map(parse_ip).collect(),
        external_names: external_names.collect(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        selects: spec
            .selector
            .as_ref()
            .is_some_and(|labels| !labels.is_empty()),
        owner,
    };
    (Some(named), problems)
}

fn kind(spec: &wire::ServiceSpec) -> ServiceKind {
    if spec.r#type.as_deref() == Some("ExternalName") {
        let name = spec.external_name.as_deref().and_then(HostName::new);
        return ServiceKind::ExternalName(name);
    }
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let texts: Vec<&str> = all.map(String::as_str).filter(|t| !t.is_empty()).collect();
    if texts.contains(&"None") {
        return ServiceKind::Headless;
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.into_iter().filter_map(parse_ip) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => ServiceKind::Pending,
        false => ServiceKind::ClusterIp(addresses),
    }
}

fn ports<'a>(ports: impl Iterator<Item = &'a wire::Port>) -> Vec<Port> {
    let read = |port: &wire::Port| {
        Some(Port {
            name: port.name.as_deref().and_then(Label::new),
            protocol: port.protocol.as_deref().unwrap_or_default().parse().ok()?,
            number: u16::try_from(port.port?)
                .ok()
                .filter(|number| *number > 0)?,
        })
    };
    ports.filter_map(read).collect()
}

/// An EndpointSlice.
pub fn slice(slice: &wire::EndpointSlice) -> Slice {
    let endpoints = slice.endpoints.iter().flatten();
    let ports = slice.ports.iter().flatten();
    Slice {
        object: object(&slice.metadata),
        backs: backs(slice),
        ports: ports.filter_map(slice_port).collect(),
        endpoints: endpoints.map(endpoint).collect(),
        changed_ms: changed_ms(&slice.metadata),
    }
}

fn backs(slice: &wire::EndpointSlice) -> Backs {
    let meta = &slice.metadata;
    let label = |key: &str| meta.labels.as_ref()?.get(key).map(String::as_str);
    let owner = |key: &str| Owner::new(meta.namespace.as_deref()?, label(key)?);
    if slice.address_type.as_deref() == Some("FQDN") {
        return Backs::Nobody;
    }
    let cluster = label(SOURCE_CLUSTER).and_then(Label::new);
    match (owner(IMPORT_NAME), cluster, owner(SERVICE_NAME)) {
        (Some(owner), Some(cluster), _) => Backs::Import { owner, cluster },
        (None, _, Some(owner)) => Backs::Service(owner),
        _ => Backs::Nobody,
    }
}

fn slice_port(port: &wire::EndpointPort) -> Option<Port> {
    Some(Port {
        name: port.name.as_deref().and_then(Label::new),
        protocol: port.protocol.as_deref().unwrap_or_default().parse().ok()?,
        number: u16::try_from(port.port?)
            .ok()
            .filter(|number| *number > 0)?,
    })
}

fn endpoint(endpoint: &wire::Endpoint) -> Endpoint {
    let addresses = endpoint.addresses.iter().flatten();
    let target = endpoint.target_ref.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    Endpoint {
        addresses: addresses.filter_map(|text| parse_ip(text)).collect(),
        hostname: endpoint.hostname.as_deref().and_then(Label::new),
        pod: pod.and_then(|pod| Label::new(pod.name.as_deref()?)),
        ready: endpoint.conditions.ready.unwrap_or(true),
        zone: endpoint
            .zone
            .as_deref()
            .map(|zone| zone.to_ascii_lowercase().into()),
    }
}

fn changed_ms(metadata: &ObjectMeta) -> Option<u64> {
    let text = metadata.annotations.as_ref()?.get(TRIGGER_TIME)?;
    let time: portolan_k8s::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// A pod.
pub fn pod(pod: &wire::Pod) -> Pod {
    let status = &pod.status;
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let texts = all.chain([&status.pod_ip]).flatten();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in texts.filter_map(|text| parse_ip(text)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Pod {
        object: object(&pod.metadata),
        addresses,
        live: !matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        host_network: pod.spec.host_network.unwrap_or(false),
    }
}

/// A ServiceImport; `None` when its name is no label.
pub fn import(import: &wire::ServiceImport) -> Option<Import> {
    let spec = &import.spec;
    let texts = spec.ips.iter().flatten();
    let headless = spec.r#type.as_deref() == Some("Headless");
    Some(Import {
        owner: owner(&import.metadata)?,
        addresses: (!headless).then(|| texts.filter_map(|text| parse_ip(text)).collect()),
        ports: ports(spec.ports.iter().flatten()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_name_is_a_problem_and_the_rest_stays() {
        let read = |spec| {
            let meta = json!({"name": "db", "namespace": "ns"});
            let wire = serde_json::from_value(json!({"metadata": meta, "spec": spec}));
            service(&wire.unwrap())
        };
        let (named, problems) =
            read(json!({"type": "ExternalName", "externalName": "192.168.0.1"}));
        assert_eq!(named.unwrap().kind, ServiceKind::ExternalName(None));
        assert_eq!(problems[0].reason, "InvalidExternalName");
        let (named, problems) = read(json!({
            "clusterIP": "172.30.0.1", "clusterIPs": ["172.30.0.1", "fd00::1"], "selector": {"a": "b"},
            "ports": [{"name": "web", "port": 80}, {"port": 0}, {"port": 53, "protocol": "QUIC"}]
        }));
        let named = named.unwrap();
        let addresses = ["172.30.0.1", "fd00::1"].map(|text| text.parse().unwrap());
        assert_eq!(named.kind, ServiceKind::ClusterIp(addresses.to_vec()));
        assert_eq!((named.ports.len(), named.selects), (1, true));
        assert!(problems.is_empty());
    }

    #[test]
    fn a_slice_says_whose_it_is_and_when_it_changed() {
        let read =
            |labels, kind: &str| {
                slice(&serde_json::from_value(json!({
                "metadata": {"name": "db-x1", "namespace": "ns", "labels": labels,
                    "annotations": {TRIGGER_TIME: "2026-01-01T00:00:01.5Z"}},
                "addressType": kind,
                "endpoints": [{"addresses": ["10.0.0.1"], "hostname": "db-0", "zone": "Z-1"},
                    {"addresses": ["10.0.0.2"], "conditions": {"ready": false},
                     "targetRef": {"kind": "Pod", "name": "db-1"}}]
            })).unwrap())
            };
        let of_service = read(json!({SERVICE_NAME: "db"}), "IPv4");
        let owner = || Owner::new("ns", "db").unwrap();
        assert_eq!(of_service.backs, Backs::Service(owner()));
        assert_eq!(of_service.changed_ms, Some(1_767_225_601_500));
        assert_eq!(of_service.endpoints[0].zone.as_deref(), Some("z-1"));
        assert_eq!(of_service.endpoints[1].pod.as_deref(), Some("db-1"));
        assert!(of_service.endpoints[0].ready && !of_service.endpoints[1].ready);
        assert_eq!(
            read(json!({SERVICE_NAME: "db"}), "FQDN").backs,
            Backs::Nobody
        );
        let both = json!({IMPORT_NAME: "db", SOURCE_CLUSTER: "c1"});
        let cluster = Label::new("c1").unwrap();
        assert_eq!(
            read(both, "IPv4").backs,
            Backs::Import {
                owner: owner(),
                cluster
            }
        );
        assert_eq!(
            read(json!({IMPORT_NAME: "db"}), "IPv4").backs,
            Backs::Nobody
        );
    }

    #[test]
    fn a_pod_that_has_ended_gives_up_its_addresses() {
        let read = |phase: &str| {
            let status =
                json!({"phase": phase, "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}]});
            let meta = json!({"name": "a", "namespace": "ns"});
            pod(&serde_json::from_value(json!({"metadata": meta, "status": status})).unwrap())
        };
        assert!(read("Running").live && !read("Succeeded").live && !read("Failed").live);
        assert_eq!(read("Running").addresses.len(), 1);
    }
}
