//! Backends of Ingresses: a Service and one of its ports, by name or by number.

use http::StatusCode;
use portolan_k8s::wire::networking::{IngressBackend, ServiceBackendPort};
use portolan_k8s::wire::{self, Service};
use portolan_model::{PortKey, Protocol};

use super::Objects;
use crate::problem::ObjectName;
use crate::route::Destination;

/// How a backend says which port it means.
pub(super) enum Port<'a> {
    /// `spec.ports[].name`.
    Name(&'a str),
    /// `spec.ports[].port`.
    Number(i64),
}

/// Why a backend is none: reason and message of a Problem.
pub(super) type Broken = (&'static str, String);

/// Where requests for `backend` go, and what is wrong with it. What is wrong answers 503, as a Service without
/// endpoints does.
pub(super) fn destination(
    objects: &Objects,
    namespace: &str,
    backend: &IngressBackend,
) -> (Destination, Option<Broken>) {
    match service_port(objects, namespace, backend) {
        Ok(key) => (Destination::Port(key), None),
        Err(broken) => {
            let to = Destination::Broken(StatusCode::SERVICE_UNAVAILABLE);
            (to, Some(broken))
        }
    }
}

fn service_port(
    objects: &Objects,
    namespace: &str,
    backend: &IngressBackend,
) -> Result<PortKey, Broken> {
    let wrong = |message: &str| Err(("InvalidBackend", message.to_owned()));
    match (&backend.service, &backend.resource) {
        (None, None) => wrong("names neither a service nor a resource; name a service"),
        (Some(_), Some(_)) => wrong("names a service and a resource; leave one of them out"),
        (None, Some(resource)) => Err((
            "ResourceBackend",
            format!(
                "is the {} {}, and the gateway sends requests to Services only; name a service",
                resource.kind, resource.name
            ),
        )),
        (Some(service), None) => {
            let name = ObjectName::new(namespace, &service.name);
            resolve(objects, &name, &port(&service.port)?)
        }
    }
}

fn port(port: &ServiceBackendPort) -> Result<Port<'_>, Broken> {
    let name = port.name.as_deref().filter(|name| !name.is_empty());
    match (name, port.number.filter(|number| *number != 0)) {
        (Some(name), None) => Ok(Port::Name(name)),
        (None, Some(number)) => Ok(Port::Number(number)),
        (None, None) => Err((
            "InvalidBackend",
            "names no port; give its name or its number".to_owned(),
        )),
        (Some(_), Some(_)) => Err((
            "InvalidBackend",
            "gives name and number of a port; leave one of them out".to_owned(),
        )),
    }
}

/// The TCP port of a Service.
pub(super) fn resolve(
    objects: &Objects,
    name: &ObjectName,
    port: &Port<'_>,
) -> Result<PortKey, Broken> {
    let Some(service) = objects.services.get(name) else {
        return Err((
            "ServiceNotFound",
            format!("is the Service {name}, which does not exist"),
        ));
    };
    if service.spec.r#type.as_deref() == Some("ExternalName") {
        let message = format!(
            "is the Service {name} of type ExternalName, which the gateway does not resolve; give it endpoints"
        );
        return Err(("ExternalName", message));
    }
    let tcp = |given: &&wire::Port| matches!(given.protocol.as_deref(), None | Some("" | "TCP"));
    let mut ports = service.spec.ports.iter().flatten().filter(tcp);
    let found = ports.find(|given| match port {
        Port::Name(name) => given.name.as_deref() == Some(name),
        Port::Number(number) => given.port == Some(*number),
    });
    let Some(found) = found else {
        return Err(("PortNotFound", no_port(name, service, port)));
    };
    Ok(PortKey {
        service: portolan_model::ServiceName {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        },
        port: found.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::Tcp,
    })
}

fn no_port(name: &ObjectName, service: &Service, port: &Port<'_>) -> String {
    let wanted = match port {
        Port::Name(name) => format!("{name:?}"),
        Port::Number(number) => number.to_string(),
    };
    let has = service.spec.ports.iter().flatten().map(|port| {
        let number = port.port.unwrap_or_default();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.name.as_deref().unwrap_or_default() {
            "" => format!("{number}/{protocol}"),
            name => format!("{name} {number}/{protocol}"),
        }
    });
    let has: Vec<String> = has.collect();
    format!(
        "is port {wanted} of the Service {name}, which has no such TCP port; it has: {}",
        match has.is_empty() {
            true => "none".to_owned(),
            false => has.join(", "),
        }
    )
}
