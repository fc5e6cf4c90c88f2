//! Node.

use k8s_openapi::api::core::v1::Node;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, address, meta};
use super::read::{age, entries, is_empty, items, name, text, text_or};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of Node.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Node",
    describe: SchemaGenerator::subschema_for::<Node>,
    scope: Scope::Cluster,
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::new("Status", "string", "Whether the node is ready."),
        Column::new("Roles", "string", "What the node is for."),
        Column::AGE,
        Column::new("Version", "string", "Version of the node's agent."),
        Column::wide("Internal-IP", "string", "Address inside the cluster."),
        Column::wide("External-IP", "string", "Address outside the cluster."),
        Column::wide("OS-Image", "string", "Operating system."),
        Column::wide("Kernel-Version", "string", "Kernel."),
        Column::wide("Container-Runtime", "string", "What runs the containers."),
    ],
    row,
    default: |_| {},
    prepare,
    prepare_status: spec_status::prepare_status,
    validate,
    selectable: &["spec.unschedulable"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let info = &object["status"]["nodeInfo"];
    let known = |key: &str| json!(text_or(&info[key], "<unknown>"));
    vec![
        name(object),
        json!(status(object)),
        json!(roles(object)),
        age(object, now),
        json!(text(&info["kubeletVersion"])),
        json!(address(object, "InternalIP")),
        json!(address(object, "ExternalIP")),
        known("osImage"),
        known("kernelVersion"),
        known("containerRuntimeVersion"),
    ]
}

/// A node may be made with its status; later only `/status` changes it.
fn prepare(object: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        spec_status::keep(object, old, "status");
    }
}

fn status(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == "Ready");
    let ready = match ready {
        Some(condition) if condition["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if object["spec"]["unschedulable"] == true {
        format!("{ready},SchedulingDisabled")
    } else {
        ready.to_owned()
    }
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = entries(&object["metadata"]["labels"])
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None => (key == "kubernetes.io/role").then(|| text(value)),
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        "<none>".to_owned()
    } else {
        roles.join(",")
    }
}

fn address<'a>(object: &'a Value, kind: &str) -> &'a str {
    items(&object["status"]["addresses"])
        .iter()
        .find(|address| address["type"] == kind)
        .map_or("<none>", |address| text(&address["address"]))
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    let spec = &object["spec"];
    for (index, cidr) in items(&spec["podCIDRs"]).iter().enumerate() {
        address::cidr(&format!("spec.podCIDRs[{index}]"), text(cidr), &mut errors);
    }
    for (index, taint) in items(&spec["taints"]).iter().enumerate() {
        validate_taint(&format!("spec.taints[{index}]"), taint, &mut errors);
    }
    if let Some(old) = old {
        for (key, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
            if !is_empty(&old["spec"][key]) && spec[key] != old["spec"][key] {
                let detail =
                    format!("node updates may not change {name} except from \"\" to valid");
                errors.push(FieldError::forbidden(format!("spec.{key}"), detail));
            }
        }
    }
    errors
}

fn validate_taint(field: &str, taint: &Value, errors: &mut Vec<FieldError>) {
    let (key, value) = (text(&taint["key"]), text(&taint["value"]));
    check::all(
        &format!("{field}.key"),
        key,
        check::name::qualified(key),
        errors,
    );
    check::all(
        &format!("{field}.value"),
        value,
        check::name::label_value(value),
        errors,
    );
    let effects = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
    check::one_of(
        &format!("{field}.effect"),
        &taint["effect"],
        &effects,
        errors,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    #[test]
    fn rows_are_those_of_kubectl() {
        let labels = json!({"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"});
        let node = json!({"metadata": {"name": "n1", "labels": labels}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.168.0.11"}],
                "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian"}}});
        let expected = json!([
            "n1",
            "Ready,SchedulingDisabled",
            "edge,worker",
            "<unknown>",
            "v1.35.0",
            "192.168.0.11",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>"
        ]);
        assert_eq!(Value::from(row(&node, 0)), expected);
    }

    #[test]
    fn pod_networks_are_given_once() {
        let good = json!({"spec": {"podCIDRs": ["10.1.0.0/24", "fd00:10:1::/64"]}});
        assert!(created(&KIND, good.clone()).is_empty());
        assert!(
            created(&KIND, json!({"spec": {"podCIDRs": ["10.1"]}}))[0]
                .contains("must be a valid CIDR value")
        );
        let errors = changed(&KIND, good, |new| {
            new["spec"]["podCIDRs"] = json!(["10.2.0.0/24"])
        });
        let expected = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
        assert!(errors.iter().any(|error| error == expected), "{errors:?}");
    }

    #[test]
    fn taints_have_known_effects() {
        let errors = created(
            &KIND,
            json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}),
        );
        let expected = "spec.taints[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \
                        \"NoSchedule\", \"PreferNoSchedule\"";
        assert_eq!(errors, [expected]);
    }
}
