//! Service.

mod clusterip;
mod default;
mod exposure;
mod row;
#[cfg(test)]
mod tests;
mod validate;

use k8s_openapi::api::core::v1::Service;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::spec_status;
use crate::kind::{Column, Kind, Scope, Subresource};

/// The entry of Service.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    schema: "io.k8s.api.core.v1.Service",
    describe: SchemaGenerator::subschema_for::<Service>,
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::new("Type", "string", "How the Service is reached."),
        Column::new("Cluster-IP", "string", "Its address inside the cluster."),
        Column::new("External-IP", "string", "Its addresses outside."),
        Column::new("Port(s)", "string", "Its ports, with node ports."),
        Column::AGE,
        Column::wide("Selector", "string", "Which pods stand behind it."),
    ],
    row: row::row,
    default: default::default,
    prepare,
    prepare_status: spec_status::prepare_status,
    validate: validate::validate,
    selectable: &["spec.clusterIP", "spec.type"],
};

fn prepare(object: &mut Value, old: Option<&Value>) {
    spec_status::keep(object, old, "status");
    if object.get("status").is_none() {
        object["status"] = json!({"loadBalancer": {}});
    }
}
