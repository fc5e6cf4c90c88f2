//! What a container can get wrong.

use serde_json::Value;

use crate::kind::FieldError;
use crate::kinds::check::quantity::amount;
use crate::kinds::check::{self, name, port};
use crate::kinds::read::{entries, items, number, text};

/// Checks one container of a pod with these volumes.
pub fn validate(
    field: &str,
    container: &Value,
    volumes: &[&str],
    init: bool,
    errors: &mut Vec<FieldError>,
) {
    let given = text(&container["name"]);
    if given.is_empty() {
        errors.push(FieldError::required(format!("{field}.name"), ""));
    } else {
        check::all(&format!("{field}.name"), given, name::label(given), errors);
    }
    let image = text(&container["image"]);
    if image.is_empty() {
        errors.push(FieldError::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{field}.image"), image, detail));
    }
    let policies = ["Always", "IfNotPresent", "Never"];
    check::one_of(
        &format!("{field}.imagePullPolicy"),
        &container["imagePullPolicy"],
        &policies,
        errors,
    );
    ports(&format!("{field}.ports"), &container["ports"], errors);
    for (index, variable) in items(&container["env"]).iter().enumerate() {
        environment(&format!("{field}.env[{index}]"), variable, errors);
    }
    mounts(
        &format!("{field}.volumeMounts"),
        &container["volumeMounts"],
        volumes,
        errors,
    );
    resources(
        &format!("{field}.resources"),
        &container["resources"],
        errors,
    );
    let sidecar = container["restartPolicy"] == "Always";
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (field, given) = (format!("{field}.{kind}"), &container[kind]);
        if given.is_null() {
            continue;
        }
        if init && !sidecar {
            errors.push(FieldError::forbidden(
                &field,
                "may not be set for init containers without restartPolicy=Always",
            ));
        }
        probe(&field, given, kind != "readinessProbe", errors);
    }
    for hook in ["postStart", "preStop"] {
        if !container["lifecycle"][hook].is_null() {
            action(
                &format!("{field}.lifecycle.{hook}"),
                &container["lifecycle"][hook],
                &["sleep"],
                errors,
            );
        }
    }
}

fn ports(field: &str, ports: &Value, errors: &mut Vec<FieldError>) {
    let mut names: Vec<&str> = Vec::new();
    for (index, given) in items(ports).iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = text(&given["name"]);
        if !name.is_empty() {
            check::all(
                &format!("{field}.name"),
                name,
                name::port_name(name),
                errors,
            );
            if names.contains(&name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), name));
            }
            names.push(name);
        }
        match number(&given["containerPort"]) {
            0 => errors.push(FieldError::required(format!("{field}.containerPort"), "")),
            _ => port::number(
                &format!("{field}.containerPort"),
                &given["containerPort"],
                errors,
            ),
        }
        if number(&given["hostPort"]) != 0 {
            port::number(&format!("{field}.hostPort"), &given["hostPort"], errors);
        }
        check::one_of(
            &format!("{field}.protocol"),
            &given["protocol"],
            port::PROTOCOLS,
            errors,
        );
    }
}

/// No two containers of a pod take the same port of the node.
pub fn host_ports(field: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let mut taken = Vec::new();
    for (index, container) in items(&spec["containers"]).iter().enumerate() {
        for (at, port) in items(&container["ports"]).iter().enumerate() {
            let host_port = number(&port["hostPort"]);
            if host_port == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{host_port}",
                text(&port["protocol"]),
                text(&port["hostIP"])
            );
            if taken.contains(&key) {
                let field = format!("{field}.containers[{index}].ports[{at}].hostPort");
                errors.push(FieldError::duplicate(field, key));
            } else {
                taken.push(key);
            }
        }
    }
}

fn environment(field: &str, variable: &Value, errors: &mut Vec<FieldError>) {
    let given = text(&variable["name"]);
    if given.is_empty() {
        errors.push(FieldError::required(format!("{field}.name"), ""));
    } else {
        check::all(
            &format!("{field}.name"),
            given,
            name::variable(given),
            errors,
        );
    }
    let source = &variable["valueFrom"];
    if source.is_null() {
        return;
    }
    match entries(source).filter(|(_, value)| !value.is_null()).count() {
        0 => errors.push(FieldError::invalid(
            format!("{field}.valueFrom"),
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        1 => {}
        _ => errors.push(FieldError::invalid(
            format!("{field}.valueFrom"),
            "",
            "may not have more than one field specified at a time",
        )),
    }
    if !text(&variable["value"]).is_empty() {
        let detail = "may not be specified when `value` is not empty";
        errors.push(FieldError::invalid(
            format!("{field}.valueFrom"),
            "",
            detail,
        ));
    }
}

fn mounts(field: &str, mounts: &Value, volumes: &[&str], errors: &mut Vec<FieldError>) {
    let mut paths: Vec<&str> = Vec::new();
    for (index, mount) in items(mounts).iter().enumerate() {
        let field = format!("{field}[{index}]");
        match text(&mount["name"]) {
            "" => errors.push(FieldError::required(format!("{field}.name"), "")),
            name if volumes.contains(&name) => {}
            name => errors.push(FieldError::not_found(format!("{field}.name"), name)),
        }
        let path = text(&mount["mountPath"]);
        if path.is_empty() {
            errors.push(FieldError::required(format!("{field}.mountPath"), ""));
        } else if paths.contains(&path) {
            errors.push(FieldError::invalid(
                format!("{field}.mountPath"),
                path,
                "must be unique",
            ));
        }
        paths.push(path);
    }
}

fn resources(field: &str, resources: &Value, errors: &mut Vec<FieldError>) {
    const FORM: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    for part in ["limits", "requests"] {
        for (resource, quantity) in entries(&resources[part]) {
            let field = format!("{field}.{part}[{resource}]");
            let limit = &resources["limits"][resource];
            let wrong = match (amount(quantity), amount(limit)) {
                (None, _) => FORM.to_owned(),
                (Some(amount), _) if amount < 0.0 => {
                    "must be greater than or equal to 0".to_owned()
                }
                (Some(amount), Some(most)) if amount > most => {
                    format!(
                        "must be less than or equal to {resource} limit of {}",
                        text(limit)
                    )
                }
                _ => continue,
            };
            errors.push(FieldError::invalid(field, quantity.clone(), wrong));
        }
    }
}

fn probe(field: &str, probe: &Value, success_once: bool, errors: &mut Vec<FieldError>) {
    action(field, probe, &["grpc"], errors);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        check::not_negative(&format!("{field}.{key}"), &probe[key], errors);
    }
    if success_once && number(&probe["successThreshold"]) > 1 {
        let threshold = format!("{field}.successThreshold");
        errors.push(FieldError::invalid(
            threshold,
            probe["successThreshold"].clone(),
            "must be 1",
        ));
    }
}

/// Checks that a probe or a hook does exactly one thing.
fn action(field: &str, action: &Value, also: &[&str], errors: &mut Vec<FieldError>) {
    let kinds = ["exec", "httpGet", "tcpSocket"];
    let given: Vec<&str> = kinds
        .iter()
        .chain(also)
        .copied()
        .filter(|kind| !action[*kind].is_null())
        .collect();
    match given[..] {
        [] => errors.push(FieldError::required(field, "must specify a handler type")),
        [_] => {}
        [_, second, ..] => {
            let detail = "may not specify more than 1 handler type";
            errors.push(FieldError::forbidden(format!("{field}.{second}"), detail));
        }
    }
    if !action["exec"].is_null() && items(&action["exec"]["command"]).is_empty() {
        errors.push(FieldError::required(format!("{field}.exec.command"), ""));
    }
    let get = &action["httpGet"];
    if !get.is_null() {
        if text(&get["path"]).is_empty() {
            errors.push(FieldError::required(format!("{field}.httpGet.path"), ""));
        }
        port::number_or_name(&format!("{field}.httpGet.port"), &get["port"], errors);
        check::one_of(
            &format!("{field}.httpGet.scheme"),
            &get["scheme"],
            &["HTTP", "HTTPS"],
            errors,
        );
    }
    if !action["tcpSocket"].is_null() {
        port::number_or_name(
            &format!("{field}.tcpSocket.port"),
            &action["tcpSocket"]["port"],
            errors,
        );
    }
    if !action["grpc"].is_null() {
        port::number(
            &format!("{field}.grpc.port"),
            &action["grpc"]["port"],
            errors,
        );
    }
}
