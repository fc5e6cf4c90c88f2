//! What a pod can get wrong, and what of it may change once it exists.

use serde_json::{Value, json};

use super::container;
use crate::kind::FieldError;
use crate::kinds::check::{self, address, label, meta, name};
use crate::kinds::read::{child, entries, is_empty, items, items_mut, text};

/// Checks a pod.
pub fn validate(pod: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&super::KIND, pod, name::subdomain);
    validate_spec("spec", &pod["spec"], &mut errors);
    if let Some(old) = old {
        keep_spec(pod, old, &mut errors);
    }
    errors
}

/// Checks the template of a workload whose pods run for ever.
pub fn validate_template(field: &str, template: &Value, errors: &mut Vec<FieldError>) {
    label::labels(
        &format!("{field}.metadata.labels"),
        &template["metadata"]["labels"],
        errors,
    );
    meta::annotations(&template["metadata"]["annotations"], errors);
    let spec = &template["spec"];
    validate_spec(&format!("{field}.spec"), spec, errors);
    if spec["restartPolicy"] != "Always" {
        let policy = format!("{field}.spec.restartPolicy");
        errors.push(FieldError::not_supported(
            policy,
            text(&spec["restartPolicy"]),
            &["Always"],
        ));
    }
    if !spec["activeDeadlineSeconds"].is_null() {
        errors.push(FieldError::forbidden(
            format!("{field}.spec.activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        ));
    }
}

fn validate_spec(field: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let volumes = validate_volumes(&format!("{field}.volumes"), &spec["volumes"], errors);
    let containers = items(&spec["containers"]);
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for list in ["containers", "initContainers"] {
        for (index, given) in items(&spec[list]).iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            container::validate(&field, given, &volumes, list == "initContainers", errors);
            let name = text(&given["name"]);
            if !name.is_empty() && names.contains(&name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), name));
            }
            names.push(name);
        }
    }
    container::host_ports(field, spec, errors);
    check::one_of(
        &format!("{field}.restartPolicy"),
        &spec["restartPolicy"],
        &["Always", "OnFailure", "Never"],
        errors,
    );
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check::one_of(
        &format!("{field}.dnsPolicy"),
        &spec["dnsPolicy"],
        &policies,
        errors,
    );
    check::not_negative(
        &format!("{field}.terminationGracePeriodSeconds"),
        &spec["terminationGracePeriodSeconds"],
        errors,
    );
    let deadline = &spec["activeDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds))
    {
        errors.push(FieldError::invalid(
            format!("{field}.activeDeadlineSeconds"),
            deadline.clone(),
            "must be between 1 and 2147483647, inclusive",
        ));
    }
    validate_names(field, spec, errors);
    label::labels(
        &format!("{field}.nodeSelector"),
        &spec["nodeSelector"],
        errors,
    );
    for (index, alias) in items(&spec["hostAliases"]).iter().enumerate() {
        let field = format!("{field}.hostAliases[{index}]");
        address::ip(&format!("{field}.ip"), text(&alias["ip"]), errors);
        for (index, host) in items(&alias["hostnames"]).iter().enumerate() {
            let field = format!("{field}.hostnames[{index}]");
            check::all(&field, text(host), name::subdomain(text(host)), errors);
        }
    }
}

fn validate_names(field: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    for key in [
        "serviceAccountName",
        "nodeName",
        "hostname",
        "subdomain",
        "priorityClassName",
    ] {
        let given = text(&spec[key]);
        let form = if matches!(key, "hostname" | "subdomain") {
            name::label
        } else {
            name::subdomain
        };
        if !given.is_empty() {
            check::all(&format!("{field}.{key}"), given, form(given), errors);
        }
    }
}

/// Checks volumes; gives their names.
fn validate_volumes<'a>(
    field: &str,
    volumes: &'a Value,
    errors: &mut Vec<FieldError>,
) -> Vec<&'a str> {
    let mut names = Vec::new();
    for (index, volume) in items(volumes).iter().enumerate() {
        let field = format!("{field}[{index}]");
        let name = text(&volume["name"]);
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            check::all(&format!("{field}.name"), name, name::label(name), errors);
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), name));
        }
        match entries(volume)
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .count()
        {
            0 => errors.push(FieldError::required(&field, "must specify a volume type")),
            1 => {}
            _ => errors.push(FieldError::forbidden(
                &field,
                "may not specify more than 1 volume type",
            )),
        }
        names.push(name);
    }
    names
}

/// The rule of pod updates: images, a few times and tolerations may change, nothing else.
fn keep_spec(pod: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const RULE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                        `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                        additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
                        to 1 if it was previously negative)";
    let count = |pod: &Value, list: &str| items(&pod["spec"][list]).len();
    for list in ["containers", "initContainers"] {
        if count(pod, list) != count(old, list) {
            let detail = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(format!("spec.{list}"), detail));
            return;
        }
    }
    let tolerated = items(&pod["spec"]["tolerations"]);
    for (index, toleration) in items(&old["spec"]["tolerations"]).iter().enumerate() {
        if !tolerated.contains(toleration) {
            errors.push(FieldError::forbidden(
                format!("spec.tolerations[{index}]"),
                "existing toleration can not be modified except its tolerationSeconds",
            ));
        }
    }
    let (new_spec, old_spec) = (comparable(pod, old), comparable(old, old));
    if new_spec != old_spec {
        let changes = changes("", &old_spec, &new_spec);
        errors.push(FieldError::forbidden(
            "spec",
            format!("{RULE}\n{}\n", changes.join("\n")),
        ));
    }
}

/// The spec without what may change.
fn comparable(pod: &Value, old: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        for container in items_mut(&mut spec, list) {
            container["image"] = json!("");
        }
    }
    // A binding gives a pod its node, once.
    let free: &[&str] = if is_empty(&old["spec"]["nodeName"]) {
        &["nodeName"]
    } else {
        &[]
    };
    let always = [
        "activeDeadlineSeconds",
        "tolerations",
        "ephemeralContainers",
        "schedulingGates",
    ];
    for key in always.iter().chain(free) {
        if let Some(entries) = spec.as_object_mut() {
            entries.shift_remove(*key);
        }
    }
    let grace = |pod: &Value| pod["spec"]["terminationGracePeriodSeconds"].as_i64();
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(pod) == Some(1) {
        spec["terminationGracePeriodSeconds"] =
            old["spec"]["terminationGracePeriodSeconds"].clone();
    }
    child(&mut spec, "securityContext");
    spec
}

/// A line for each value that differs: `- path: old` and `+ path: new`.
fn changes(path: &str, old: &Value, new: &Value) -> Vec<String> {
    if old == new {
        return Vec::new();
    }
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let added = after.keys().filter(|key| !before.contains_key(*key));
            let all = before.keys().chain(added);
            all.flat_map(|key| changes(&format!("{path}.{key}"), &old[key], &new[key]))
                .collect()
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let all = before.iter().zip(after).enumerate();
            all.flat_map(|(index, (old, new))| changes(&format!("{path}[{index}]"), old, new))
                .collect()
        }
        _ => vec![
            format!("- spec{path}: {old}"),
            format!("+ spec{path}: {new}"),
        ],
    }
}
