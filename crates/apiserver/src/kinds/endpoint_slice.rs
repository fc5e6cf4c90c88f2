//! EndpointSlice (discovery.k8s.io/v1): who stands behind a Service.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, first_three, items, items_mut, name, set_default, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of EndpointSlice.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    describe: SchemaGenerator::subschema_for::<EndpointSlice>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("AddressType", "string", "IPv4, IPv6 or FQDN."),
        Column::new("Ports", "string", "Ports of every endpoint."),
        Column::new("Endpoints", "string", "Addresses of the endpoints."),
        Column::AGE,
    ],
    row,
    default,
    prepare,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = items(&object["ports"]).iter().map(port).collect();
    let addresses: Vec<String> = items(&object["endpoints"])
        .iter()
        .flat_map(|endpoint| items(&endpoint["addresses"]))
        .map(|address| text(address).to_owned())
        .collect();
    vec![
        name(object),
        json!(text(&object["addressType"])),
        json!(first_three(&ports, "<unset>")),
        json!(first_three(&addresses, "<unset>")),
        age(object, now),
    ]
}

fn port(port: &Value) -> String {
    match (&port["port"], text(&port["name"])) {
        (Value::Null, "") => "*".to_owned(),
        (Value::Null, name) => name.to_owned(),
        (number, _) => number.to_string(),
    }
}

fn default(object: &mut Value) {
    for port in items_mut(object, "ports") {
        if port.get("name").is_none_or(Value::is_null) {
            port["name"] = json!("");
        }
        set_default(port, "protocol", "TCP");
    }
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    spec_status::count_generation(object, old, &["endpoints", "ports", "addressType"]);
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
