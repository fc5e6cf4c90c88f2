//! The Endpoints object of a Service with a selector: what old clients read. One family only, and at most 1000 entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pods;

/// Entries of one Endpoints object; the rest is cut off, and an annotation says so.
pub(super) const ADDRESSES_MAX: usize = 1000;
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// One write of an Endpoints object.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    Create(Endpoints),
    Update(Endpoints),
    Delete,
}

/// What becomes of the Endpoints of a Service that is gone; one that old leader elections use is left alone.
pub(super) fn for_lost_service(existing: Option<&Arc<Endpoints>>) -> Option<Write> {
    let leads = |e: &Arc<Endpoints>| {
        e.metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(LEADER))
    };
    existing
        .filter(|endpoints| !leads(endpoints))
        .map(|_| Write::Delete)
}

/// What must be written for a Service with a selector, if anything.
pub(super) fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    existing: Option<&Endpoints>,
) -> Option<Write> {
    let (subsets, cut) = subsets(service, pods);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), "endpoint-controller".into());
    if service
        .spec
        .as_ref()
        .and_then(|spec| spec.cluster_ip.as_deref())
        == Some("None")
    {
        labels.insert("service.kubernetes.io/headless".into(), String::new());
    }
    let annotations =
        cut.then(|| BTreeMap::from([(OVER_CAPACITY.to_string(), "truncated".to_string())]));
    let mut wanted = existing.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    wanted.metadata.labels = Some(labels);
    match annotations {
        Some(annotations) => wanted
            .metadata
            .annotations
            .get_or_insert_default()
            .extend(annotations),
        None => drop(
            wanted
                .metadata
                .annotations
                .as_mut()
                .and_then(|a| a.remove(OVER_CAPACITY)),
        ),
    }
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    match existing {
        None => Some(Write::Create(wanted)),
        Some(existing) => {
            let same = existing.subsets.as_deref().unwrap_or_default()
                == wanted.subsets.as_deref().unwrap_or_default()
                && existing.metadata == wanted.metadata;
            (!same).then_some(Write::Update(wanted))
        }
    }
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.clone().unwrap_or_default();
    let family = spec
        .ip_families
        .as_ref()
        .and_then(|families| families.first().cloned());
    let family = family.unwrap_or_else(|| "IPv4".into());
    let publish = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let mut count = 0;
    let mut cut = false;
    for pod in pods
        .iter()
        .filter(|pod| !pods::is_over(pod) && (publish || !pods::is_terminating(pod)))
    {
        let Some(ip) = pods::address_of(pod, &family) else {
            continue;
        };
        if count == ADDRESSES_MAX {
            cut = true;
            break;
        }
        count += 1;
        let ports: Vec<EndpointPort> = spec
            .ports
            .iter()
            .flatten()
            .filter_map(|port| {
                Some(EndpointPort {
                    name: port.name.clone(),
                    port: pods::target_port(pod, port)?,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                    app_protocol: port.app_protocol.clone(),
                })
            })
            .collect();
        let id = ports
            .iter()
            .map(|p| format!("{:?} {:?} {};", p.name, p.protocol, p.port))
            .collect();
        let subset = groups.entry(id).or_insert_with(|| EndpointSubset {
            ports: Some(ports).filter(|ports| !ports.is_empty()),
            ..EndpointSubset::default()
        });
        let list = match publish || pods::is_ready(pod) {
            true => subset.addresses.get_or_insert_default(),
            false => subset.not_ready_addresses.get_or_insert_default(),
        };
        list.push(address(pod, ip));
    }
    let mut subsets: Vec<EndpointSubset> = groups.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses]
            .into_iter()
            .flatten()
        {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    (subsets, cut)
}

fn address(pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_string(),
        hostname: None,
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    }
}
