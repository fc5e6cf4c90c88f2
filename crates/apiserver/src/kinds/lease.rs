//! Lease (coordination.k8s.io/v1): who leads, and that a node is alive.

use k8s_openapi::api::coordination::v1::Lease;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, name, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of Lease.
pub static KIND: Kind = Kind {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    schema: "io.k8s.api.coordination.v1.Lease",
    describe: SchemaGenerator::subschema_for::<Lease>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("Holder", "string", "Who holds the lease."),
        Column::AGE,
    ],
    row,
    default: |_| {},
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["spec"]["holderIdentity"])),
        age(object, now),
    ]
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
