//! Everything that a Service can get wrong, in the order in which the real API server tells it.

use serde_json::{Value, json};

use super::clusterip;
use crate::kind::FieldError;
use crate::kinds::check::{self, address, label, meta, name, port};
use crate::kinds::read::{is_empty, items, number, text};

/// Longest affinity timeout: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
/// Port of the kubelet, which no load balancer may expose.
const KUBELET_PORT: i64 = 10_250;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// Checks a Service.
pub fn validate(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = old {
        clusterip::validate_change(&service["spec"], &old["spec"], &mut errors);
        load_balancer_class_stays(&service["spec"], &old["spec"], &mut errors);
    }
    errors.extend(meta::validate(&super::KIND, service, name::label_1035));
    let spec = &service["spec"];
    type_and_ports(spec, &mut errors);
    let ports = items(&spec["ports"]);
    let mut names = Vec::new();
    for (index, given) in ports.iter().enumerate() {
        service_port(
            &format!("spec.ports[{index}]"),
            given,
            ports.len() > 1,
            &mut names,
            &mut errors,
        );
    }
    label::labels("spec.selector", &spec["selector"], &mut errors);
    session_affinity(spec, &mut errors);
    clusterip::validate(spec, &mut errors);
    for (index, given) in items(&spec["externalIPs"]).iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        if let Some(ip) = address::ip(&field, text(given), &mut errors) {
            address::not_special(&field, text(given), ip, &mut errors);
        }
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    check::one_of("spec.type", &spec["type"], &types, &mut errors);
    node_ports(spec, &mut errors);
    duplicate_ports(ports, &mut errors);
    load_balancer(spec, &mut errors);
    traffic(spec, &mut errors);
    if is_load_balancer(spec) || !items(&service["status"]["loadBalancer"]["ingress"]).is_empty() {
        ingress(service, &mut errors);
    }
    errors
}

fn is(spec: &Value, kind: &str) -> bool {
    text(&spec["type"]) == kind
}

fn is_load_balancer(spec: &Value) -> bool {
    is(spec, "LoadBalancer")
}

fn type_and_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let headless = clusterip::is_headless(spec);
    let ports = items(&spec["ports"]);
    if ports.is_empty() && !headless && !is(spec, "ExternalName") {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match text(&spec["type"]) {
        "LoadBalancer" => {
            for (index, given) in ports.iter().enumerate() {
                if number(&given["port"]) == KUBELET_PORT {
                    errors.push(FieldError::invalid(
                        format!("spec.ports[{index}]"),
                        KUBELET_PORT,
                        format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet"),
                    ));
                }
            }
            headless_type(headless, "LoadBalancer", errors);
        }
        "NodePort" => headless_type(headless, "NodePort", errors),
        "ExternalName" => external_name(spec, errors),
        _ => {}
    }
}

fn headless_type(headless: bool, kind: &str, errors: &mut Vec<FieldError>) {
    if headless {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
    }
}

fn external_name(spec: &Value, errors: &mut Vec<FieldError>) {
    for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !is_empty(&spec[key]) {
            errors.push(FieldError::forbidden(
                format!("spec.{key}"),
                "may not be set for ExternalName services",
            ));
        }
    }
    // The name may end with a dot, as DNS has it.
    let given = text(&spec["externalName"]);
    match given.strip_suffix('.').unwrap_or(given) {
        "" => errors.push(FieldError::required("spec.externalName", "")),
        host => check::all("spec.externalName", host, name::subdomain(host), errors),
    }
}

fn service_port<'a>(
    field: &str,
    given: &'a Value,
    name_required: bool,
    names: &mut Vec<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    match text(&given["name"]) {
        "" if name_required => errors.push(FieldError::required(format!("{field}.name"), "")),
        "" => {}
        name => {
            check::all(&format!("{field}.name"), name, name::label(name), errors);
            if names.contains(&name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), name));
            }
            names.push(name);
        }
    }
    port::number(&format!("{field}.port"), &given["port"], errors);
    check::one_of(
        &format!("{field}.protocol"),
        &given["protocol"],
        port::PROTOCOLS,
        errors,
    );
    port::number_or_name(&format!("{field}.targetPort"), &given["targetPort"], errors);
    let application = text(&given["appProtocol"]);
    if !given["appProtocol"].is_null() {
        check::all(
            &format!("{field}.appProtocol"),
            application,
            name::qualified(application),
            errors,
        );
    }
}

fn session_affinity(spec: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.sessionAffinityConfig";
    check::one_of(
        "spec.sessionAffinity",
        &spec["sessionAffinity"],
        &["ClientIP", "None"],
        errors,
    );
    let config = &spec["sessionAffinityConfig"];
    match text(&spec["sessionAffinity"]) {
        "None" if !config.is_null() => {
            errors.push(FieldError::forbidden(
                FIELD,
                "must not be set when session affinity is None",
            ));
        }
        "ClientIP" => {
            let required =
                |field: &str| FieldError::required(field, "when session affinity type is ClientIP");
            let seconds = &config["clientIP"]["timeoutSeconds"];
            let field = format!("{FIELD}.clientIP.timeoutSeconds");
            if config.is_null() {
                errors.push(required(FIELD));
            } else if config["clientIP"].is_null() {
                errors.push(required("spec.sessionAffinityConfig.clientIP"));
            } else if seconds.is_null() {
                errors.push(required(&field));
            } else if !(1..=AFFINITY_SECONDS_MAX).contains(&number(seconds)) {
                let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                errors.push(FieldError::invalid(field, seconds.clone(), detail));
            }
        }
        _ => {}
    }
}

fn node_ports(spec: &Value, errors: &mut Vec<FieldError>) {
    let mut taken = Vec::new();
    for (index, given) in items(&spec["ports"]).iter().enumerate() {
        let node_port = number(&given["nodePort"]);
        if node_port == 0 {
            continue;
        }
        let field = format!("spec.ports[{index}].nodePort");
        if is(spec, "ClusterIP") {
            errors.push(FieldError::forbidden(
                &field,
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
        let key = (text(&given["protocol"]), node_port);
        if taken.contains(&key) {
            errors.push(FieldError::duplicate(field, node_port));
        }
        taken.push(key);
    }
}

fn duplicate_ports(ports: &[Value], errors: &mut Vec<FieldError>) {
    let mut taken = Vec::new();
    for (index, given) in ports.iter().enumerate() {
        let key = (text(&given["protocol"]), number(&given["port"]));
        if taken.contains(&key) {
            let value = json!({"protocol": key.0, "port": key.1, "targetPort": 0});
            errors.push(FieldError::duplicate(format!("spec.ports[{index}]"), value));
        }
        taken.push(key);
    }
}

fn load_balancer(spec: &Value, errors: &mut Vec<FieldError>) {
    let ours = is_load_balancer(spec);
    let ranges = items(&spec["loadBalancerSourceRanges"]);
    if !ranges.is_empty() && !ours {
        errors.push(FieldError::forbidden(
            "spec.loadBalancerSourceRanges",
            ONLY_LOAD_BALANCER,
        ));
    }
    for (index, range) in ranges.iter().enumerate() {
        address::cidr(
            &format!("spec.loadBalancerSourceRanges[{index}]"),
            text(range).trim(),
            errors,
        );
    }
    let allocate = &spec["allocateLoadBalancerNodePorts"];
    if ours && allocate.is_null() {
        errors.push(FieldError::required(
            "spec.allocateLoadBalancerNodePorts",
            "",
        ));
    } else if !ours && !allocate.is_null() {
        errors.push(FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_LOAD_BALANCER,
        ));
    }
    let class = &spec["loadBalancerClass"];
    if !class.is_null() {
        check::all(
            "spec.loadBalancerClass",
            text(class),
            name::qualified(text(class)),
            errors,
        );
        if !ours {
            errors.push(FieldError::forbidden(
                "spec.loadBalancerClass",
                ONLY_LOAD_BALANCER,
            ));
        }
    }
}

fn load_balancer_class_stays(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if is_load_balancer(spec)
        && is_load_balancer(old)
        && spec["loadBalancerClass"] != old["loadBalancerClass"]
    {
        let class = spec["loadBalancerClass"].clone();
        errors.push(FieldError::invalid(
            "spec.loadBalancerClass",
            class,
            "may not change once set",
        ));
    }
}

fn traffic(spec: &Value, errors: &mut Vec<FieldError>) {
    let policies = ["Cluster", "Local"];
    let needs_internal = matches!(
        text(&spec["type"]),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    );
    if needs_internal || !spec["internalTrafficPolicy"].is_null() {
        check::one_of(
            "spec.internalTrafficPolicy",
            &spec["internalTrafficPolicy"],
            &policies,
            errors,
        );
    }
    let external = &spec["externalTrafficPolicy"];
    let accessible = is_load_balancer(spec)
        || is(spec, "NodePort")
        || (is(spec, "ClusterIP") && !items(&spec["externalIPs"]).is_empty());
    if accessible {
        check::one_of("spec.externalTrafficPolicy", external, &policies, errors);
    } else if !text(external).is_empty() {
        let detail = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid(
            "spec.externalTrafficPolicy",
            text(external),
            detail,
        ));
    }
    let health = &spec["healthCheckNodePort"];
    if number(health) != 0 {
        if is_load_balancer(spec) && external == "Local" {
            port::number("spec.healthCheckNodePort", health, errors);
        } else {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(FieldError::invalid(
                "spec.healthCheckNodePort",
                health.clone(),
                detail,
            ));
        }
    }
    if !spec["trafficDistribution"].is_null() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        check::one_of(
            "spec.trafficDistribution",
            &spec["trafficDistribution"],
            &known,
            errors,
        );
    }
}

fn ingress(service: &Value, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "status.loadBalancer.ingress";
    if !is_load_balancer(&service["spec"]) {
        errors.push(FieldError::forbidden(
            FIELD,
            "may only be used when `spec.type` is \"LoadBalancer\"",
        ));
        return;
    }
    for (index, given) in items(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .enumerate()
    {
        let field = format!("{FIELD}[{index}]");
        let (ip, host, mode) = (
            text(&given["ip"]),
            text(&given["hostname"]),
            &given["ipMode"],
        );
        if ip.is_empty() {
            if !mode.is_null() {
                errors.push(FieldError::forbidden(
                    format!("{field}.ipMode"),
                    "may not be specified when `ip` is not set",
                ));
            }
        } else {
            address::ip(&format!("{field}.ip"), ip, errors);
            if mode.is_null() {
                errors.push(FieldError::required(
                    format!("{field}.ipMode"),
                    "must be specified when `ip` is set",
                ));
            } else {
                check::one_of(&format!("{field}.ipMode"), mode, &["Proxy", "VIP"], errors);
            }
        }
        if !host.is_empty() {
            check::all(
                &format!("{field}.hostname"),
                host,
                name::subdomain(host),
                errors,
            );
            if address::parse(host).is_some() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(
                    format!("{field}.hostname"),
                    host,
                    detail,
                ));
            }
        }
    }
}
