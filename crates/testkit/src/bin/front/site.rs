//! What is served: hosts with their paths, a Service behind each path, and endpoints whose addresses say whose they are.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

/// Where the gateway serves.
pub const GATEWAY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// The port of endpoints.
pub const PORT: u16 = 8080;
/// The range of their addresses: `10.(16 + Service).x.y`.
pub const RANGE: &str = "10.16.0.0/12";
/// As many as have a place in the range.
pub const SERVICES: u32 = 10;
/// Endpoints of each.
pub const ENDPOINTS: u32 = 3;
/// Hosts, with a path for each Service.
pub const HOSTS: u32 = 5;

const SERVICE_PATH: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";

/// The address of an endpoint; no number comes twice.
pub fn endpoint(service: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a10_0001 + (service << 16) + number)
}

/// Whose an address is.
pub fn service_of(address: Ipv4Addr) -> u32 {
    (u32::from(address) - 0x0a10_0000) >> 16
}

/// The name of a host.
pub fn host(number: u32) -> String {
    format!("h{number}.example.com")
}

/// The path of a host that leads to a Service.
pub fn path(service: u32) -> String {
    format!("/s{service}")
}

/// The path that a change of routes brings, and the Service behind it.
pub fn changed(round: u32) -> (String, u32) {
    (format!("/c{round}"), round % SERVICES)
}

fn name(service: u32) -> String {
    format!("s{service}")
}

/// The EndpointSlice with the endpoints that follow on `first`: where it is, and what makes it so.
pub fn endpoints(service: u32, first: u32) -> (String, Value) {
    let all = (first..first + ENDPOINTS).map(|number| {
        let ready = json!({"ready": true, "serving": true, "terminating": false});
        json!({"addresses": [endpoint(service, number).to_string()], "conditions": ready})
    });
    let all: Vec<Value> = all.collect();
    (
        format!("{SLICES}/{}-1", name(service)),
        json!({"endpoints": all}),
    )
}

/// The Ingress of a host, with the path of a change if there was one: where it is, and what makes it so.
pub fn rules(number: u32, round: Option<u32>) -> (String, Value) {
    let own = (0..SERVICES).map(|service| (path(service), service));
    let paths = own.chain(round.map(changed)).map(|(path, service)| {
        let service = json!({"name": name(service), "port": {"number": 80}});
        json!({"path": path, "pathType": "Prefix", "backend": {"service": service}})
    });
    let paths: Vec<Value> = paths.collect();
    let rules = json!([{"host": host(number), "http": {"paths": paths}}]);
    (
        format!("{INGRESSES}/h{number}"),
        json!({"spec": {"rules": rules}}),
    )
}

/// Everything for the API.
pub fn objects() -> impl Iterator<Item = (String, Value)> {
    let services = (0..SERVICES).flat_map(|service| {
        let port = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": PORT});
        let (_, endpoints) = endpoints(service, 0);
        [
            (
                SERVICE_PATH,
                json!({
                    "apiVersion": "v1", "kind": "Service",
                    "metadata": {"name": name(service), "namespace": "default"},
                    "spec": {"ports": [port]},
                }),
            ),
            (
                SLICES,
                json!({
                    "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                    "metadata": {
                        "name": format!("{}-1", name(service)), "namespace": "default",
                        "labels": {"kubernetes.io/service-name": name(service)},
                    },
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "protocol": "TCP", "port": PORT}],
                    "endpoints": endpoints["endpoints"],
                }),
            ),
        ]
    });
    let ingresses = (0..HOSTS).map(|number| {
        let (_, rules) = rules(number, None);
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": format!("h{number}"), "namespace": "default"},
            "spec": rules["spec"],
        });
        (INGRESSES, object)
    });
    let all = services.chain(ingresses);
    all.map(|(path, object)| (path.to_owned(), object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_say_whose_they_are() {
        let range: ipnet::Ipv4Net = RANGE.parse().unwrap();
        for service in [0, SERVICES - 1] {
            for number in [0, 60_000] {
                let address = endpoint(service, number);
                assert!(range.contains(&address));
                assert_eq!(service_of(address), service, "{address}");
            }
        }
    }

    #[test]
    fn a_change_of_routes_keeps_the_others() {
        let (_, before) = rules(1, None);
        let (_, after) = rules(1, Some(12));
        let paths = |rules: &Value| {
            let paths = &rules["spec"]["rules"][0]["http"]["paths"];
            paths.as_array().unwrap().clone()
        };
        assert_eq!(paths(&before)[..], paths(&after)[..SERVICES as usize]);
        assert_eq!(paths(&after)[SERVICES as usize]["path"], "/c12");
    }
}
