//! What a pod is to a Service: whether it counts, where it listens, in which condition it is.

use k8s_openapi::api::core::v1::{Pod, PodCondition, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The condition of this type.
pub(crate) fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// Whether the pod says that it is ready; a pod without the condition is not.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether the pod has ended and will not come back.
pub(crate) fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether the pod is on its way out.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The addresses of the pod: one per family, none before it has its network.
pub(crate) fn addresses(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    match status.pod_ips.as_deref() {
        None | Some([]) => status
            .pod_ip
            .as_deref()
            .filter(|ip| !ip.is_empty())
            .into_iter()
            .collect(),
        Some(ips) => ips.iter().map(|entry| entry.ip.as_str()).collect(),
    }
}

/// The first address of a family.
pub(crate) fn address_of<'a>(pod: &'a Pod, family: &str) -> Option<&'a str> {
    addresses(pod)
        .into_iter()
        .find(|ip| family_of(ip) == Some(family))
}

/// `IPv4` or `IPv6`.
pub(crate) fn family_of(ip: &str) -> Option<&'static str> {
    match ip.parse().ok()? {
        std::net::IpAddr::V4(_) => Some("IPv4"),
        std::net::IpAddr::V6(_) => Some("IPv6"),
    }
}

/// The number that `targetPort` means in this pod: a name is looked up in its containers.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let mut named = ports.filter(|p| {
        p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
    });
    named.next().map(|port| port.container_port)
}
