//! Endpoints written by hand, for a Service without selector, as slices: data planes read slices only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};

use super::desired::Group;
use super::diff::SliceOwner;
use super::{MANAGED_BY, MIRRORING_CONTROLLER, TRIGGER_TIME, owner_reference, pods};
use crate::cache::Key;

/// Addresses of one subset that are mirrored (`--mirroring-max-endpoints-per-subset`).
const ADDRESSES_MAX: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Whether these Endpoints are to be mirrored: there is a Service, it has no selector, and nobody objects.
pub(super) fn wanted(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let selects = |service: &Service| {
        service
            .spec
            .as_ref()
            .is_some_and(|spec| spec.selector.is_some())
    };
    let label = |key: &str| {
        endpoints
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
    };
    let leader = endpoints
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(LEADER));
    service.is_some_and(|service| !selects(service))
        && label(SKIP).map(String::as_str) != Some("true")
        && !leader
}

/// The Endpoints object owns its mirror.
pub(super) fn owner(key: &Key, endpoints: &Endpoints) -> SliceOwner {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.remove(MANAGED_BY);
    let trigger = endpoints
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(TRIGGER_TIME));
    SliceOwner {
        namespace: key.namespace.clone(),
        service: key.name.clone(),
        labels,
        owner: owner_reference(endpoints),
        managed_by: MIRRORING_CONTROLLER,
        trigger: trigger.and_then(|text| text.parse().ok()),
    }
}

/// The groups of the mirror: each subset by family; subsets with the same ports come together.
pub(super) fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let id: String = ports
            .iter()
            .map(|p| format!("{:?} {:?} {:?};", p.name, p.protocol, p.port))
            .collect();
        let all = [
            (&subset.addresses, true),
            (&subset.not_ready_addresses, false),
        ];
        let all = all
            .into_iter()
            .flat_map(|(list, ready)| list.iter().flatten().map(move |a| (a, ready)));
        for (address, ready) in all.take(ADDRESSES_MAX) {
            let Some(family) = pods::family_of(&address.ip) else {
                continue;
            };
            let group = groups
                .entry((family.to_string(), id.clone()))
                .or_insert_with(|| Group {
                    family: family.to_string(),
                    ports: ports.clone(),
                    endpoints: Vec::new(),
                });
            if !group
                .endpoints
                .iter()
                .any(|known| known.addresses.first() == Some(&address.ip))
            {
                group.endpoints.push(endpoint(address, ready));
            }
        }
    }
    groups.into_values().collect()
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: None,
            terminating: None,
        }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
