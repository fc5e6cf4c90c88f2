//! The variables that tell a container about the Services which existed when it started
//! (`DB_SERVICE_HOST`, `DB_PORT_5432_TCP_ADDR` …): the kubelet's rules, pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

/// The Service that every pod hears of, whatever its namespace: (namespace, name).
const ALWAYS: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod of `namespace`; `links` is the pod's `enableServiceLinks`.
pub fn build<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut master = None;
    for service in services {
        let place = (
            service.metadata.namespace.as_deref().unwrap_or_default(),
            service.metadata.name.as_deref().unwrap_or_default(),
        );
        if place == ALWAYS {
            master = Some(service);
        } else if links && place.0 == namespace {
            describe(service, &mut variables);
        }
    }
    // A Service of the pod's own namespace with the same name goes first.
    let own = variables.clone();
    if let Some(master) = master {
        describe(master, &mut variables);
    }
    variables.extend(own);
    variables
}

fn describe(service: &Service, variables: &mut BTreeMap<String, String>) {
    let spec = service.spec.as_ref();
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let Some(ip) = spec
        .and_then(|spec| spec.cluster_ip.as_deref())
        .and_then(|ip| ip.parse::<IpAddr>().ok())
    else {
        return;
    };
    let ports = spec
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let prefix = variable_name(name);
    let mut set = |name: String, value: String| drop(variables.insert(name, value));
    set(format!("{prefix}_SERVICE_HOST"), ip.to_string());
    set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(
                format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name)),
                port.port.to_string(),
            );
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let host = if ip.is_ipv6() {
            format!("[{ip}]")
        } else {
            ip.to_string()
        };
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            set(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(format!("{link}_PROTO"), protocol.to_lowercase());
        set(format!("{link}_PORT"), port.port.to_string());
        set(format!("{link}_ADDR"), ip.to_string());
        set(link, url);
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        let spec = json!({"clusterIP": ip, "ports": [{"name": "http-main", "port": 80}, {"port": 53, "protocol": "UDP"}]});
        serde_json::from_value(
            json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn a_service_has_short_and_link_variables() {
        let got = build([&service("shop", "my-db", "172.30.0.9")], "shop", true);
        let want = [
            ("MY_DB_PORT", "tcp://172.30.0.9:80"),
            ("MY_DB_PORT_53_UDP", "udp://172.30.0.9:53"),
            ("MY_DB_PORT_53_UDP_ADDR", "172.30.0.9"),
            ("MY_DB_PORT_53_UDP_PORT", "53"),
            ("MY_DB_PORT_53_UDP_PROTO", "udp"),
            ("MY_DB_PORT_80_TCP", "tcp://172.30.0.9:80"),
            ("MY_DB_PORT_80_TCP_ADDR", "172.30.0.9"),
            ("MY_DB_PORT_80_TCP_PORT", "80"),
            ("MY_DB_PORT_80_TCP_PROTO", "tcp"),
            ("MY_DB_SERVICE_HOST", "172.30.0.9"),
            ("MY_DB_SERVICE_PORT", "80"),
            ("MY_DB_SERVICE_PORT_HTTP_MAIN", "80"),
        ];
        assert_eq!(
            got.iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect::<Vec<_>>(),
            want
        );
    }

    #[test]
    fn other_namespaces_and_headless_services_are_not_told_but_kubernetes_always_is() {
        let services = [
            service("other", "a", "172.30.0.2"),
            service("shop", "b", "None"),
            service("default", "kubernetes", "172.30.0.1"),
        ];
        for links in [true, false] {
            let got = build(&services, "shop", links);
            assert_eq!(got["KUBERNETES_SERVICE_HOST"], "172.30.0.1");
            assert!(
                got.keys().all(|name| name.starts_with("KUBERNETES_")),
                "{got:?}"
            );
        }
    }
}
