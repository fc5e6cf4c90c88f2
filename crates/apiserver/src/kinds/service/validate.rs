//! Everything that a Service can get wrong, in the order in which the real API server tells it.

use serde_json::{Value, json};

use super::{clusterip, exposure};
use crate::kind::FieldError;
use crate::kinds::check::{self, address, label, meta, name, port};
use crate::kinds::read::{is_empty, items, number, text};

/// Longest affinity timeout: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;
/// Port of the kubelet, which no load balancer may expose.
const KUBELET_PORT: i64 = 10_250;

/// Checks a Service.
pub fn validate(service: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(old) = old {
        clusterip::validate_change(&service["spec"], &old["spec"], &mut errors);
        exposure::load_balancer_class_stays(&service["spec"], &old["spec"], &mut errors);
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
    exposure::load_balancer(spec, &mut errors);
    exposure::traffic(spec, &mut errors);
    if is_load_balancer(spec) || !items(&service["status"]["loadBalancer"]["ingress"]).is_empty() {
        exposure::ingress(service, &mut errors);
    }
    errors
}

/// Whether a Service is of a type.
pub fn is(spec: &Value, kind: &str) -> bool {
    text(&spec["type"]) == kind
}

/// Whether a Service is of type LoadBalancer.
pub fn is_load_balancer(spec: &Value) -> bool {
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
