//! The variables that tell a container about the Services which existed when it started
//! (`DB_SERVICE_HOST`, `DB_PORT_5432_TCP_ADDR` …): the kubelet's rules, pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The Service that every pod hears of, whatever its namespace: (namespace, name).
const ALWAYS: (&str, &str) = ("default", "kubernetes");

/// The variables for a pod of `namespace`, Service by Service in the order of their names, and in the kubelet's order
/// within each; `links` is the pod's `enableServiceLinks`. Where two Services make the same variable (`db` with the
/// port name `port` and `db-service`), the later one counts: the kubelet takes either.
pub fn build<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut told: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services.into_iter().filter(|service| has_ip(service)) {
        let (of, name) = place(service);
        if links && of == namespace {
            // The pod's own namespace goes first: a Service `kubernetes` there hides the cluster's.
            told.insert(name, service);
        } else if (of, name) == ALWAYS {
            told.entry(name).or_insert(service);
        }
    }
    let mut variables: Vec<(String, String)> = Vec::new();
    for service in told.into_values() {
        describe(service, &mut |name, value| {
            variables.retain(|(known, _)| *known != name);
            variables.push((name, value));
        });
    }
    variables
}

fn place(service: &Service) -> (&str, &str) {
    let meta = &service.metadata;
    (
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

/// Headless Services and ExternalNames have no address, so nothing can be told of them.
fn has_ip(service: &Service) -> bool {
    cluster_ip(service).is_some()
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let ip = service.spec.as_ref()?.cluster_ip.as_deref()?;
    (!ip.is_empty() && ip != "None").then_some(ip)
}

fn describe(service: &Service, set: &mut impl FnMut(String, String)) {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    let ports = ports.unwrap_or_default();
    let (Some(ip), Some(first)) = (cluster_ip(service), ports.first()) else {
        return;
    };
    let prefix = variable_name(place(service).1);
    set(format!("{prefix}_SERVICE_HOST"), ip.to_string());
    set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let name = variable_name(name);
            set(
                format!("{prefix}_SERVICE_PORT_{name}"),
                port.port.to_string(),
            );
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().filter(|text| !text.is_empty());
        let protocol = protocol.unwrap_or("TCP");
        let url = format!("{}://{}", protocol.to_lowercase(), join(ip, port.port));
        if index == 0 {
            set(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(link.clone(), url);
        set(format!("{link}_PROTO"), protocol.to_lowercase());
        set(format!("{link}_PORT"), port.port.to_string());
        set(format!("{link}_ADDR"), ip.to_string());
    }
}

/// Address and port as in a URL.
fn join(ip: &str, port: i32) -> String {
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests;
