//! Endpoints: the older form of EndpointSlices, still read by some clients.

use k8s_openapi::api::core::v1::Endpoints;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, first_three, items, items_mut, name, set_default, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of Endpoints.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Endpoints",
    describe: SchemaGenerator::subschema_for::<Endpoints>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("Endpoints", "string", "Addresses with their ports."),
        Column::AGE,
    ],
    row,
    default,
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let subsets = items(&object["subsets"]);
    let shown = if subsets.is_empty() {
        "<none>".to_owned()
    } else {
        first_three(&subsets.iter().flat_map(addresses).collect::<Vec<_>>(), "")
    };
    vec![name(object), json!(shown), age(object, now)]
}

/// Every address of a subset with every port; without ports (headless Services may have none) the addresses alone.
fn addresses(subset: &Value) -> Vec<String> {
    let ips = || {
        items(&subset["addresses"])
            .iter()
            .map(|address| text(&address["ip"]))
    };
    let ports = items(&subset["ports"]);
    if ports.is_empty() {
        return ips().map(str::to_owned).collect();
    }
    ports
        .iter()
        .flat_map(|port| ips().map(move |ip| join_host_port(ip, &port["port"])))
        .collect()
}

fn join_host_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

fn default(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            set_default(port, "protocol", "TCP");
        }
    }
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
