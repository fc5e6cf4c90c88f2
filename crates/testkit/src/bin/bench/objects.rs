//! The cluster that is measured: its Services, EndpointSlices and addresses, as JSON for the API.
//!
//! ```text
//!   Service i            172.16.0.0/12, port 80      more room than the plan's range, which ends before 100,000 do
//!   its first endpoints  10.16.0.0/12, port 8080     pods of other nodes; all of them are one server
//!   replaced endpoints   10.128.0.0/9, port 8080     every change brings an address that never was there before
//! ```

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// The port of every Service.
pub const SERVICE_PORT: u16 = 80;
/// The port of every endpoint.
pub const ENDPOINT_PORT: u16 = 8080;
/// Range of the ClusterIPs, for the API server.
pub const SERVICE_RANGE: &str = "172.16.0.0/12";
/// Ranges of all endpoints.
pub const ENDPOINT_RANGES: [&str; 2] = ["10.16.0.0/12", "10.128.0.0/9"];
/// Nodes over which the endpoints are spread, besides the one that is measured.
const NODES: u32 = 50;

/// How many Services with how many endpoints each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Services.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.services, self.endpoints)
    }
}

impl Shape {
    /// The address of an endpoint that was there from the beginning.
    pub fn endpoint(self, service: u32, slot: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a10_0000 + service * self.endpoints + slot)
    }

    /// The EndpointSlice of a Service; `first` stands in the place of its first endpoint.
    pub fn slice(self, service: u32, first: Option<Ipv4Addr>) -> Value {
        let name = name(service);
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": slice_name(service),
                "namespace": "default",
                "labels": {
                    "endpointslice.kubernetes.io/managed-by": "bench.portolan.dev",
                    "kubernetes.io/service-name": name,
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": ENDPOINT_PORT}],
            "endpoints": self.endpoints_of(service, first),
        })
    }

    /// What a change of one endpoint sends: the whole list, as the EndpointSlice controller does.
    pub fn patch(self, service: u32, first: Ipv4Addr) -> Value {
        json!({"endpoints": self.endpoints_of(service, Some(first))})
    }

    fn endpoints_of(self, service: u32, first: Option<Ipv4Addr>) -> Vec<Value> {
        let endpoint = |slot: u32| {
            let own = self.endpoint(service, slot);
            let address = first.filter(|_| slot == 0).unwrap_or(own);
            let node = 2 + (service + slot) % NODES;
            let zone = ["east", "west", "north"][node as usize % 3];
            json!({
                "addresses": [address.to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("n{node}"),
                "zone": zone,
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("{}-{slot}", name(service))},
            })
        };
        (0..self.endpoints).map(endpoint).collect()
    }
}

/// The name of a Service.
pub fn name(service: u32) -> String {
    format!("s{service:06}")
}

/// The name of its EndpointSlice.
pub fn slice_name(service: u32) -> String {
    format!("s{service:06}-1")
}

/// Its ClusterIP. The first addresses of the range belong to the API's own Service.
pub fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(0xac10_0100 + service)
}

/// A Service without a selector, so that no controller writes its endpoints.
pub fn service(service: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name(service), "namespace": "default"},
        "spec": {
            "clusterIP": cluster_ip(service).to_string(),
            "ports": [{"name": "http", "protocol": "TCP", "port": SERVICE_PORT, "targetPort": ENDPOINT_PORT}],
        },
    })
}

/// The address that the `round`th change brings; none comes twice.
pub fn replacement(round: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a80_0001 + round)
}

/// The node on which the proxies run.
pub fn node(address: std::net::IpAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "east"}},
        "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": address.to_string()}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_has_two_roles() {
        let largest = Shape {
            services: 100_000,
            endpoints: 10,
        };
        let within = |range: &str, address: Ipv4Addr| {
            range.parse::<ipnet::Ipv4Net>().unwrap().contains(&address)
        };
        assert!(within(ENDPOINT_RANGES[0], largest.endpoint(0, 0)));
        assert!(within(ENDPOINT_RANGES[0], largest.endpoint(99_999, 9)));
        assert!(within(ENDPOINT_RANGES[1], replacement(0)));
        assert!(within(ENDPOINT_RANGES[1], replacement(1_000_000)));
        assert!(within(SERVICE_RANGE, cluster_ip(100_000)));
    }

    #[test]
    fn a_change_replaces_the_first_endpoint_and_keeps_the_others() {
        let shape = Shape {
            services: 10,
            endpoints: 2,
        };
        let patch = shape.patch(3, replacement(0));
        assert_eq!(patch["endpoints"][0]["addresses"][0], "10.128.0.1");
        assert_eq!(patch["endpoints"][1], shape.slice(3, None)["endpoints"][1]);
    }
}
