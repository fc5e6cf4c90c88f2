//! One EndpointSlice as the tracker keeps it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use portolan_k8s::wire;
use portolan_model::balance::WEIGHT_DEFAULT;
use portolan_model::{Endpoint, Family, Problem, Protocol, ServiceName};

use crate::address::parse_ip;
use crate::annotation;

/// Label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What of a slice matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SliceFacts {
    /// Names, protocols and numbers of its ports.
    pub(crate) ports: Vec<(Arc<str>, Protocol, NonZeroU16)>,
    /// Its endpoints, with port 0.
    pub(crate) endpoints: Vec<Endpoint>,
    /// What could not be understood.
    pub(crate) problems: Vec<Problem>,
}

/// The Service that a slice belongs to, if it says so.
pub(crate) fn service_of(slice: &wire::EndpointSlice) -> Option<ServiceName> {
    let name = slice
        .metadata
        .labels
        .as_ref()?
        .get(SERVICE_NAME)
        .filter(|name| !name.is_empty())?;
    Some(ServiceName::new(
        slice.metadata.namespace.as_deref().unwrap_or_default(),
        name,
    ))
}

/// Reads a slice of `service`, as seen from the node `node`.
pub(crate) fn facts(service: &ServiceName, node: &str, slice: &wire::EndpointSlice) -> SliceFacts {
    let mut facts = SliceFacts::default();
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let mut wrong = |what: String| {
        facts.problems.push(Problem {
            service: service.clone(),
            reason: "InvalidEndpointSlice",
            message: format!("EndpointSlice {name}: {what}"),
        });
    };
    let family = match slice.address_type.as_deref() {
        Some("IPv4") => Family::V4,
        Some("IPv6") => Family::V6,
        Some("FQDN") => return SliceFacts::default(),
        other => {
            wrong(format!(
                "addressType {:?} is none of IPv4, IPv6, FQDN.",
                other.unwrap_or_default()
            ));
            return facts;
        }
    };
    for port in slice.ports.iter().flatten() {
        match port_of(port) {
            Ok(port) => facts.ports.push(port),
            Err(what) => wrong(what),
        }
    }
    for endpoint in slice.endpoints.iter().flatten() {
        let text = endpoint
            .addresses
            .iter()
            .flatten()
            .next()
            .map(String::as_str)
            .unwrap_or_default();
        match parse_ip(text).filter(|ip| Family::of(*ip) == family) {
            Some(ip) => facts.endpoints.push(endpoint_of(node, ip, endpoint)),
            None => wrong(format!(
                "endpoint address {text:?} is no {family:?} address; it is left out."
            )),
        }
    }
    weigh(&mut facts, service, slice);
    facts
}

/// Gives the endpoints the weights of the slice's annotation.
fn weigh(facts: &mut SliceFacts, service: &ServiceName, slice: &wire::EndpointSlice) {
    let (weights, wrong) = annotation::weights(&slice.metadata);
    if weights.is_empty() && wrong.is_none() {
        return;
    }
    let known = facts.endpoints.iter().map(|e| e.address.ip()).collect();
    for endpoint in &mut facts.endpoints {
        if let Some(weight) = weights.get(&endpoint.address.ip()) {
            endpoint.weight = *weight;
        }
    }
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let wrong = [wrong, annotation::strangers(&weights, &known)];
    facts
        .problems
        .extend(wrong.into_iter().flatten().map(|what| Problem {
            service: service.clone(),
            reason: "InvalidAnnotation",
            message: format!("EndpointSlice {name}: {what}"),
        }));
}

fn port_of(port: &wire::EndpointPort) -> Result<(Arc<str>, Protocol, NonZeroU16), String> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or_default().parse()?;
    let number = port
        .port
        .and_then(|number| u16::try_from(number).ok())
        .and_then(NonZeroU16::new);
    let number =
        number.ok_or_else(|| format!("port {name:?} has no number between 1 and 65535."))?;
    Ok((name.into(), protocol, number))
}

fn endpoint_of(node: &str, ip: IpAddr, endpoint: &wire::Endpoint) -> Endpoint {
    let conditions = &endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.as_ref();
    Endpoint {
        address: SocketAddr::new(ip, 0),
        local: endpoint.node_name.as_deref() == Some(node),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        weight: WEIGHT_DEFAULT,
        zones: names(hints.and_then(|hints| hints.for_zones.as_deref())),
        nodes: names(hints.and_then(|hints| hints.for_nodes.as_deref())),
    }
}

fn names(list: Option<&[wire::ForName]>) -> Arc<[Arc<str>]> {
    match list {
        None | Some([]) => Arc::default(),
        Some(list) => list
            .iter()
            .map(|entry| Arc::from(entry.name.as_str()))
            .collect(),
    }
}
