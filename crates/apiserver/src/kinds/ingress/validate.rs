//! Validation of Ingress (pkg/apis/networking/validation in kubernetes).

use serde_json::Value;

use super::KIND;
use crate::kind::FieldError;
use crate::kinds::check::{self, address, meta, name, port};
use crate::kinds::read::{is_empty, items, text};

/// What said who serves an Ingress before there was `ingressClassName`.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Values of `pathType`.
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

/// Everything that is wrong with the object.
pub fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, name::subdomain);
    let spec = &object["spec"];
    let (backend, rules) = (&spec["defaultBackend"], items(&spec["rules"]));
    if rules.is_empty() && backend.is_null() {
        let words = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid("spec", spec["rules"].clone(), words));
    }
    if !backend.is_null() {
        validate_backend("spec.defaultBackend", backend, &mut errors);
    }
    for (index, rule) in rules.iter().enumerate() {
        validate_rule(&format!("spec.rules[{index}]"), rule, &mut errors);
    }
    for (index, tls) in items(&spec["tls"]).iter().enumerate() {
        validate_tls(&format!("spec.tls[{index}]"), tls, &mut errors);
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        check::all(
            "spec.ingressClassName",
            class,
            name::subdomain(class),
            &mut errors,
        );
        let annotated = object["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
        if let Some(other) = annotated.filter(|other| old.is_none() && *other != class) {
            let words = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(
                format!("annotations.{CLASS_ANNOTATION}"),
                other,
                words,
            ));
        }
    }
    validate_status(&object["status"]["loadBalancer"], &mut errors);
    errors
}

fn validate_rule(field: &str, rule: &Value, errors: &mut Vec<FieldError>) {
    let host = text(&rule["host"]);
    let field_host = format!("{field}.host");
    if address::parse(host).is_some() {
        errors.push(FieldError::invalid(
            &field_host,
            host,
            "must be a DNS name, not an IP address",
        ));
    }
    if !host.is_empty() {
        check::all(&field_host, host, host_form(host), errors);
    }
    let http = &rule["http"];
    if http.is_null() {
        return;
    }
    let paths = items(&http["paths"]);
    if paths.is_empty() {
        errors.push(FieldError::required(format!("{field}.http.paths"), ""));
    }
    for (index, path) in paths.iter().enumerate() {
        validate_path(&format!("{field}.http.paths[{index}]"), path, errors);
    }
}

fn host_form(host: &str) -> Vec<String> {
    match host.contains('*') {
        true => name::wildcard(host),
        false => name::subdomain(host),
    }
}

fn validate_path(field: &str, path: &Value, errors: &mut Vec<FieldError>) {
    let given = text(&path["path"]);
    let field_path = format!("{field}.path");
    let mut wrong = |words: &str| errors.push(FieldError::invalid(&field_path, given, words));
    let kind = text(&path["pathType"]);
    match kind {
        "" => {
            errors.push(FieldError::required(
                format!("{field}.pathType"),
                "pathType must be specified",
            ));
            return;
        }
        "Exact" | "Prefix" => {
            if !given.starts_with('/') {
                wrong("must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if given.contains(part) {
                    wrong(&format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if given.ends_with(end) {
                    wrong(&format!("cannot end with '{end}'"));
                }
            }
        }
        "ImplementationSpecific" if !given.is_empty() && !given.starts_with('/') => {
            wrong("must be an absolute path");
        }
        "ImplementationSpecific" => {}
        _ => errors.push(FieldError::not_supported(
            format!("{field}.pathType"),
            kind,
            PATH_TYPES,
        )),
    }
    validate_backend(&format!("{field}.backend"), &path["backend"], errors);
}

fn validate_backend(field: &str, backend: &Value, errors: &mut Vec<FieldError>) {
    let (service, resource) = (&backend["service"], &backend["resource"]);
    match (service.is_null(), resource.is_null()) {
        (false, false) => {
            let words = "cannot set both resource and service backends";
            errors.push(FieldError::invalid(field, "", words));
        }
        (true, false) => validate_reference(&format!("{field}.resource"), resource, errors),
        (false, true) => validate_service(field, service, errors),
        (true, true) => {
            let words = "resource or service backend is required";
            errors.push(FieldError::invalid(field, "", words));
        }
    }
}

fn validate_service(field: &str, service: &Value, errors: &mut Vec<FieldError>) {
    let field_name = format!("{field}.service.name");
    match text(&service["name"]) {
        "" => errors.push(FieldError::required(field_name, "")),
        given => check::all(&field_name, given, name::label_1035(given), errors),
    }
    let (port_name, number) = (text(&service["port"]["name"]), &service["port"]["number"]);
    match (port_name.is_empty(), is_empty(number)) {
        (false, false) => {
            let words = "cannot set both port name & port number";
            errors.push(FieldError::invalid(field, "", words));
        }
        (false, true) => {
            let field = format!("{field}.service.port.name");
            check::all(&field, port_name, name::port_name(port_name), errors);
        }
        (true, false) => port::number(&format!("{field}.service.port.number"), number, errors),
        (true, true) => errors.push(FieldError::required(
            field,
            "port name or number is required",
        )),
    }
}

/// A reference to an object of any kind: `TypedLocalObjectReference`, and what is alike in the parameters of a class.
pub fn validate_reference(field: &str, reference: &Value, errors: &mut Vec<FieldError>) {
    if let Some(group) = reference["apiGroup"].as_str() {
        check::all(
            &format!("{field}.apiGroup"),
            group,
            name::subdomain(group),
            errors,
        );
    }
    for part in ["kind", "name"] {
        let field = format!("{field}.{part}");
        match text(&reference[part]) {
            "" => errors.push(FieldError::required(field, "")),
            given => check::all(&field, given, name::path_segment(given), errors),
        }
    }
}

fn validate_tls(field: &str, tls: &Value, errors: &mut Vec<FieldError>) {
    for (index, host) in items(&tls["hosts"]).iter().map(text).enumerate() {
        check::all(
            &format!("{field}.hosts[{index}]"),
            host,
            host_form(host),
            errors,
        );
    }
    let secret = text(&tls["secretName"]);
    if !secret.is_empty() {
        check::all(
            &format!("{field}.secretName"),
            secret,
            name::subdomain(secret),
            errors,
        );
    }
}

fn validate_status(load_balancer: &Value, errors: &mut Vec<FieldError>) {
    for (index, ingress) in items(&load_balancer["ingress"]).iter().enumerate() {
        let field = |part: &str| format!("status.loadBalancer.ingress[{index}].{part}");
        let (ip, hostname) = (text(&ingress["ip"]), text(&ingress["hostname"]));
        if !ip.is_empty() {
            address::ip(&field("ip"), ip, errors);
        }
        if !hostname.is_empty() {
            let field = field("hostname");
            check::all(&field, hostname, name::subdomain(hostname), errors);
            if address::parse(hostname).is_some() {
                let words = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(field, hostname, words));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::check::tests::{changed, created};

    fn web() -> Value {
        json!({"service": {"name": "web", "port": {"number": 80}}})
    }

    fn with_path(path: &str, kind: &str) -> Value {
        let path = json!({"path": path, "pathType": kind, "backend": web()});
        json!({"spec": {"rules": [{"http": {"paths": [path]}}]}})
    }

    #[test]
    fn good_ones_pass() {
        let rules = json!([
            {"host": "a.com", "http": {"paths": [{"path": "/a", "pathType": "Exact", "backend": web()}]}},
            {"host": "*.a.com"},
            {"http": {"paths": [{"pathType": "ImplementationSpecific",
                "backend": {"resource": {"apiGroup": "k8s.example.com", "kind": "Bucket", "name": "b"}}}]}},
        ]);
        let named = json!({"service": {"name": "web", "port": {"name": "http"}}});
        let tls = json!([{"hosts": ["a.com", "*.a.com"], "secretName": "cert"}, {}]);
        let spec = json!({"rules": rules, "defaultBackend": named, "tls": tls, "ingressClassName": "ours"});
        let annotations = json!({CLASS_ANNOTATION: "ours"});
        let errors = created(
            &KIND,
            json!({"metadata": {"annotations": annotations}, "spec": spec}),
        );
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn something_must_be_served() {
        assert_eq!(
            created(&KIND, json!({"spec": {}})),
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]
        );
        assert_eq!(
            created(&KIND, json!({"spec": {"rules": [{"http": {"paths": []}}]}})),
            ["spec.rules[0].http.paths: Required value"]
        );
    }

    #[test]
    fn paths_have_their_forms() {
        let field = "spec.rules[0].http.paths[0].path";
        let cases = [
            ("a", "Exact", "must be an absolute path"),
            ("", "Prefix", "must be an absolute path"),
            ("a", "ImplementationSpecific", "must be an absolute path"),
            ("/a//b", "Prefix", "must not contain '//'"),
            ("/a/./b", "Prefix", "must not contain '/./'"),
            ("/a/../b", "Exact", "must not contain '/../'"),
            ("/a%2fb", "Exact", "must not contain '%2f'"),
            ("/a%2Fb", "Exact", "must not contain '%2F'"),
            ("/a/..", "Prefix", "cannot end with '/..'"),
            ("/a/.", "Prefix", "cannot end with '/.'"),
        ];
        for (path, kind, words) in cases {
            let expected = format!("{field}: Invalid value: {path:?}: {words}");
            assert_eq!(created(&KIND, with_path(path, kind)), [expected]);
        }
        assert!(created(&KIND, with_path("", "ImplementationSpecific")).is_empty());
        assert_eq!(
            created(&KIND, with_path("/", "Suffix")),
            [
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"Suffix\": supported values: \"Exact\", \
              \"ImplementationSpecific\", \"Prefix\""
            ]
        );
        assert_eq!(
            created(&KIND, with_path("/", "")),
            ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified"]
        );
    }

    #[test]
    fn backends_are_one_thing() {
        let of = |backend: Value| created(&KIND, json!({"spec": {"defaultBackend": backend}}));
        let service = |port: Value| json!({"service": {"name": "web", "port": port}});
        assert_eq!(
            of(json!({})),
            ["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"]
        );
        assert_eq!(
            of(json!({"service": {}, "resource": {}})),
            [
                "spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"
            ]
        );
        assert_eq!(
            of(json!({"service": {}})),
            [
                "spec.defaultBackend.service.name: Required value",
                "spec.defaultBackend: Required value: port name or number is required"
            ]
        );
        assert_eq!(
            of(service(json!({"name": "a", "number": 1}))),
            ["spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"]
        );
        assert_eq!(
            of(service(json!({"number": 70000}))),
            [
                "spec.defaultBackend.service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive"
            ]
        );
        assert_eq!(
            of(service(json!({"name": "80"}))),
            [
                "spec.defaultBackend.service.port.name: Invalid value: \"80\": must contain at least one letter (a-z)"
            ]
        );
        assert!(
            of(json!({"service": {"name": "9", "port": {"number": 1}}}))[0]
                .contains("DNS-1035 label")
        );
        assert_eq!(
            of(json!({"resource": {"name": "a/b"}})),
            [
                "spec.defaultBackend.resource.kind: Required value",
                "spec.defaultBackend.resource.name: Invalid value: \"a/b\": may not contain '/'"
            ]
        );
    }

    #[test]
    fn hosts_are_names() {
        let of = |host: &str| {
            created(
                &KIND,
                json!({"spec": {"rules": [{"host": host}], "defaultBackend": web()}}),
            )
        };
        assert_eq!(
            of("10.1.0.2"),
            [
                "spec.rules[0].host: Invalid value: \"10.1.0.2\": must be a DNS name, not an IP address"
            ]
        );
        assert!(of("a.com:80")[0].contains("RFC 1123 subdomain"));
        for host in ["*", "*a.com", "a.*.com", "*.*.com"] {
            assert_eq!(
                of(host),
                [format!(
                    "spec.rules[0].host: Invalid value: {host:?}: a wildcard DNS-1123 subdomain must start with '*.', \
                     followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' \
                     or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is \
                     '\\\\*\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
                ).replace("\\\\", "\\")]
            );
        }
        let tls = json!([{"hosts": ["A.com"], "secretName": "-"}]);
        let errors = created(
            &KIND,
            json!({"spec": {"defaultBackend": web(), "tls": tls}}),
        );
        assert!(
            errors[0].starts_with(
                "spec.tls[0].hosts[0]: Invalid value: \"A.com\": a lowercase RFC 1123"
            )
        );
        assert!(
            errors[1]
                .starts_with("spec.tls[0].secretName: Invalid value: \"-\": a lowercase RFC 1123")
        );
    }

    #[test]
    fn class_and_annotation_agree_in_new_ones() {
        let object = |class: &str| {
            let annotations = json!({CLASS_ANNOTATION: "theirs"});
            json!({"metadata": {"annotations": annotations}, "spec": {"defaultBackend": web(), "ingressClassName": class}})
        };
        assert_eq!(
            created(&KIND, object("ours")),
            [
                "annotations.kubernetes.io/ingress.class: Invalid value: \"theirs\": must match `ingressClassName` when \
              both are specified"
            ]
        );
        assert!(created(&KIND, object("theirs")).is_empty());
        let errors = changed(&KIND, json!({"spec": {"defaultBackend": web()}}), |new| {
            new["spec"]["ingressClassName"] = json!("ours");
            new["metadata"]["annotations"] = json!({CLASS_ANNOTATION: "theirs"});
        });
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn addresses_of_the_status_are_checked() {
        let mut ingress = json!({"metadata": {"name": "x", "namespace": "default"}, "spec": {"defaultBackend": web()}});
        ingress["status"] = json!({"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.1.0.2"}, {"ip": "10.1.0.2"}]}});
        let errors: Vec<String> = validate(&ingress, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [
            "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
            "status.loadBalancer.ingress[1].hostname: Invalid value: \"10.1.0.2\": must be a DNS name, not an IP address",
        ];
        assert_eq!(errors, expected);
    }
}
