//! The defaults of Services. Addresses, node ports and IP families are the allocator's.

use serde_json::{Value, json};

use crate::kinds::read::{items, items_mut, number, set_default, text};

/// How long a client stays with its endpoint, in seconds, if nothing else is said.
const AFFINITY_TIMEOUT_SECONDS: i64 = 10_800;

/// Fills in what a Service leaves open.
pub fn default(service: &mut Value) {
    let Some(spec) = service.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    set_default(spec, "sessionAffinity", "None");
    affinity(spec);
    set_default(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let open = matches!(&port["targetPort"], Value::Null)
            || port["targetPort"] == 0
            || port["targetPort"] == "";
        if open && port.is_object() {
            port["targetPort"] = port["port"].clone();
        }
    }
    let kind = text(&spec["type"]).to_owned();
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || has_external_ips(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for ingress in service
        .get_mut("status")
        .and_then(|status| status.get_mut("loadBalancer"))
        .map_or(&mut [][..], |balancer| items_mut(balancer, "ingress"))
    {
        if kind == "LoadBalancer" && !text(&ingress["ip"]).is_empty() {
            set_default(ingress, "ipMode", "VIP");
        }
    }
}

fn affinity(spec: &mut Value) {
    match text(&spec["sessionAffinity"]) {
        "None" => {
            if let Some(spec) = spec.as_object_mut() {
                spec.shift_remove("sessionAffinityConfig");
            }
        }
        "ClientIP" if number(&spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]) == 0 => {
            let given = !spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null();
            if !given {
                spec["sessionAffinityConfig"] =
                    json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT_SECONDS}});
            }
        }
        _ => {}
    }
}

fn has_external_ips(spec: &Value) -> bool {
    items(&spec["externalIPs"])
        .iter()
        .any(|ip| !text(ip).is_empty())
}
