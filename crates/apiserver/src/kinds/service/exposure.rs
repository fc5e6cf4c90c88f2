//! How a Service is reached from outside: load balancers, traffic policies, the addresses it is given.

use serde_json::Value;

use super::validate::{is, is_load_balancer};
use crate::kind::FieldError;
use crate::kinds::check::{self, address, name, port};
use crate::kinds::read::{items, number, text};

const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// Checks the fields of load balancers.
pub fn load_balancer(spec: &Value, errors: &mut Vec<FieldError>) {
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

/// The class of a load balancer is chosen once.
pub fn load_balancer_class_stays(spec: &Value, old: &Value, errors: &mut Vec<FieldError>) {
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

/// Checks the traffic policies.
pub fn traffic(spec: &Value, errors: &mut Vec<FieldError>) {
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

/// Checks the addresses that a load balancer has.
pub fn ingress(service: &Value, errors: &mut Vec<FieldError>) {
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
