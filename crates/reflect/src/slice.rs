//! One EndpointSlice as the tracker keeps it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use portolan_k8s::wire;
use portolan_model::balance::WEIGHT_DEFAULT;
use portolan_model::{Endpoint, Family, Hints, Problem, Protocol, ServiceName};

use crate::address::parse_ip;
use crate::annotation;
use crate::names::Names;

/// Label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What of a slice matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SliceFacts {
    /// Names, protocols and numbers of its ports.
    pub(crate) ports: Box<[SlicePort]>,
    /// Its endpoints with the number of the first port, sorted by address, each address once, the best of its
    /// duplicates: for a Service with one port and one slice, this is what the Snapshot holds too.
    pub(crate) endpoints: Arc<[Endpoint]>,
    /// What could not be understood.
    pub(crate) problems: Vec<Problem>,
}

/// Name, protocol and number of a port; it goes with every endpoint of the slice.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SlicePort {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) number: NonZeroU16,
}

/// The Service that a slice belongs to, if it says so.
pub(crate) fn service_of(slice: &wire::EndpointSlice) -> Option<&str> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(name.as_str()).filter(|name| !name.is_empty())
}

/// Reads a slice of `service`, as seen from the node `node`, if from any.
pub(crate) fn facts(
    service: &ServiceName,
    node: Option<&str>,
    names: &mut Names,
    slice: &wire::EndpointSlice,
) -> SliceFacts {
    let mut facts = SliceFacts::default();
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let mut wrong = |what: String| {
        facts.problems.push(Problem {
            service: service.clone(),
            reason: "InvalidEndpointSlice",
            message: format!("EndpointSlice {name}: {what}"),
        });
    };
    let family = match (family(slice), slice.address_type.as_deref()) {
        (Some(family), _) => family,
        (None, Some("FQDN")) => return SliceFacts::default(),
        (None, other) => {
            wrong(format!(
                "addressType {:?} is none of IPv4, IPv6, FQDN.",
                other.unwrap_or_default()
            ));
            return facts;
        }
    };
    let mut ports = Vec::new();
    for port in slice.ports.iter().flatten() {
        match port_of(names, port) {
            Ok(port) => ports.push(port),
            Err(what) => wrong(what),
        }
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for endpoint in slice.endpoints.iter().flatten() {
        let text = endpoint
            .addresses
            .iter()
            .flatten()
            .next()
            .map(String::as_str)
            .unwrap_or_default();
        match parse_ip(text).filter(|ip| Family::of(*ip) == family) {
            Some(ip) => {
                let endpoint = endpoint_of(node, ip, names, endpoint, endpoints.last());
                endpoints.push(endpoint);
            }
            None => wrong(format!(
                "endpoint address {text:?} is no {family:?} address; it is left out."
            )),
        }
    }
    weigh(&mut facts, &mut endpoints, service, slice);
    let number = ports.first().map_or(0, |port| port.number.get());
    let numbered = |endpoint: Endpoint| endpoint.at_port(number);
    facts.endpoints = best(endpoints.into_iter().map(numbered).collect());
    facts.ports = ports.into();
    facts
}

/// Of the addresses in a slice; `None` for names, and for what nobody knows.
pub(crate) fn family(slice: &wire::EndpointSlice) -> Option<Family> {
    match slice.address_type.as_deref() {
        Some("IPv4") => Some(Family::V4),
        Some("IPv6") => Some(Family::V6),
        _ => None,
    }
}

/// Sorted by address, each address once. Of several entries with one address (a pod's address is reused while the old
/// pod is still terminating) the best counts, of equal ones the first.
pub(crate) fn best(mut all: Vec<Endpoint>) -> Arc<[Endpoint]> {
    let worth = |e: &Endpoint| (e.ready, e.serving, e.local, !e.terminating);
    all.sort_by(|a, b| {
        let better = worth(b).cmp(&worth(a));
        a.address.cmp(&b.address).then(better)
    });
    all.dedup_by(|later, first| later.address == first.address);
    all.into()
}

/// Gives the endpoints the weights of the slice's annotation.
fn weigh(
    facts: &mut SliceFacts,
    endpoints: &mut [Endpoint],
    service: &ServiceName,
    slice: &wire::EndpointSlice,
) {
    let (weights, wrong) = annotation::weights(&slice.metadata);
    if weights.is_empty() && wrong.is_none() {
        return;
    }
    let known = endpoints.iter().map(|e| e.address.ip()).collect();
    for endpoint in endpoints {
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

fn port_of(names: &mut Names, port: &wire::EndpointPort) -> Result<SlicePort, String> {
    let name = port.name.as_deref().unwrap_or_default();
    let protocol = port.protocol.as_deref().unwrap_or_default().parse()?;
    let number = port
        .port
        .and_then(|number| u16::try_from(number).ok())
        .and_then(NonZeroU16::new);
    let number =
        number.ok_or_else(|| format!("port {name:?} has no number between 1 and 65535."))?;
    Ok(SlicePort {
        name: names.share(name),
        protocol,
        number,
    })
}

fn endpoint_of(
    node: Option<&str>,
    ip: IpAddr,
    names: &mut Names,
    endpoint: &wire::Endpoint,
    before: Option<&Endpoint>,
) -> Endpoint {
    let conditions = &endpoint.conditions;
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint
        .hints
        .as_ref()
        .and_then(|hints| hints_of(names, hints));
    // As a rule many endpoints have the same hints.
    let shared = before.and_then(|before| before.hints.clone());
    let hints = if hints.as_ref() == shared.as_deref() {
        shared
    } else {
        hints.map(Arc::new)
    };
    Endpoint {
        address: SocketAddr::new(ip, 0),
        local: node.is_some() && endpoint.node_name.as_deref() == node,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        weight: WEIGHT_DEFAULT,
        ejected: false,
        hints,
    }
}

fn hints_of(names: &mut Names, hints: &wire::Hints) -> Option<Hints> {
    let mut shared = |list: &Option<Vec<wire::ForName>>| -> Vec<Arc<str>> {
        let list = list.iter().flatten();
        list.map(|entry| names.share(&entry.name)).collect()
    };
    let hints = Hints {
        zones: shared(&hints.for_zones),
        nodes: shared(&hints.for_nodes),
    };
    (!hints.zones.is_empty() || !hints.nodes.is_empty()).then_some(hints)
}
