//! EndpointSlices become the addresses that requests for a Service port go to.
//!
//! They are read as they are, not through the view that a node has of its Services: a request that comes from outside
//! may go to any endpoint, so that traffic policies, hints and affinity mean nothing here, and a headless Service is as
//! good as any.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_k8s::wire::{Endpoint, EndpointSlice};
use portolan_model::{PortKey, Protocol, ServiceName};

use crate::problem::ObjectName;

/// Label of a slice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Who stands behind one Service port: ready ones, and those that still serve while they terminate.
#[derive(Debug, Default)]
struct Standing {
    ready: Vec<SocketAddr>,
    /// They get requests only when nobody is ready (KEP-1669).
    leaving: Vec<SocketAddr>,
}

/// The addresses behind each TCP Service port, sorted, each once. What is no address or has no port is passed over: the
/// API has checked them.
pub fn endpoints(
    slices: &BTreeMap<ObjectName, Arc<EndpointSlice>>,
) -> HashMap<PortKey, Arc<[SocketAddr]>> {
    let mut all: HashMap<PortKey, Standing> = HashMap::new();
    for (name, slice) in slices {
        take(&mut all, name, slice);
    }
    let chosen = all.into_iter().map(|(key, standing)| {
        let mut addresses = match standing.ready.is_empty() {
            true => standing.leaving,
            false => standing.ready,
        };
        addresses.sort_unstable();
        addresses.dedup();
        (key, addresses.into())
    });
    chosen.collect()
}

fn take(all: &mut HashMap<PortKey, Standing>, name: &ObjectName, slice: &EndpointSlice) {
    let labels = slice.metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
        return;
    };
    for port in slice.ports.iter().flatten() {
        let is_tcp = matches!(port.protocol.as_deref(), None | Some("" | "TCP"));
        let Some(number) = port
            .port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|_| is_tcp)
        else {
            continue;
        };
        let key = PortKey {
            service: ServiceName {
                namespace: name.namespace.clone(),
                name: service.as_str().into(),
            },
            port: port.name.as_deref().unwrap_or_default().into(),
            protocol: Protocol::Tcp,
        };
        let standing = all.entry(key).or_default();
        for endpoint in slice.endpoints.iter().flatten() {
            stand(standing, endpoint, number);
        }
    }
}

fn stand(standing: &mut Standing, endpoint: &Endpoint, port: u16) {
    let first = endpoint.addresses.iter().flatten().next();
    let Some(ip) = first.and_then(|address| address.parse().ok()) else {
        return;
    };
    let address = SocketAddr::new(ip, port);
    let conditions = &endpoint.conditions;
    let is_ready = conditions.ready.unwrap_or(true);
    if is_ready {
        standing.ready.push(address);
    } else if conditions.serving.unwrap_or(is_ready) && conditions.terminating == Some(true) {
        standing.leaving.push(address);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, ports: Value, endpoints: Value) -> (ObjectName, Arc<EndpointSlice>) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": name, "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        }))
        .unwrap();
        (ObjectName::new("shop", name), Arc::new(slice))
    }

    fn of(slices: Vec<(ObjectName, Arc<EndpointSlice>)>, port: &str) -> Vec<String> {
        let all = endpoints(&slices.into_iter().collect());
        let key = PortKey::new("shop", "web", port, Protocol::Tcp);
        let found = all
            .get(&key)
            .into_iter()
            .flat_map(|addresses| addresses.iter());
        found.map(ToString::to_string).collect()
    }

    #[test]
    fn the_ready_ones_of_all_slices_each_once() {
        let ports = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "x"}]);
        let first = json!([{"addresses": ["10.1.0.3"]}, {"addresses": ["10.1.0.2", "10.1.0.9"], "conditions": {"ready": true}},
            {"addresses": ["10.1.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["x"]}, {}]);
        let slices = || {
            vec![
                slice("a", ports.clone(), first.clone()),
                slice(
                    "b",
                    ports.clone(),
                    json!([{"addresses": ["10.1.0.3"]}, {"addresses": ["fd00:10:1::2"]}]),
                ),
            ]
        };
        assert_eq!(
            of(slices(), "http"),
            ["10.1.0.2:8080", "10.1.0.3:8080", "[fd00:10:1::2]:8080"]
        );
        assert!(of(slices(), "dns").is_empty() && of(slices(), "x").is_empty());
    }

    #[test]
    fn leaving_ones_serve_when_nobody_else_does() {
        let conditions = |ready: bool, serving: bool, terminating: bool| json!({"ready": ready, "serving": serving, "terminating": terminating});
        let endpoints = json!([
            {"addresses": ["10.1.0.2"], "conditions": conditions(false, true, true)},
            {"addresses": ["10.1.0.3"], "conditions": conditions(false, false, true)},
            {"addresses": ["10.1.0.4"], "conditions": conditions(false, true, false)},
            {"addresses": ["10.1.0.5"], "conditions": {"ready": false, "terminating": true}},
        ]);
        assert_eq!(
            of(vec![slice("a", json!([{"port": 80}]), endpoints)], ""),
            ["10.1.0.2:80"]
        );
    }
}
