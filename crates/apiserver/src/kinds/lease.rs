//! Lease (coordination.k8s.io/v1): who leads, and that a node is alive.

use k8s_openapi::api::coordination::v1::Lease;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta};
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

fn validate(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    let spec = &object["spec"];
    let seconds = &spec["leaseDurationSeconds"];
    if seconds.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds.clone(),
            "must be greater than 0",
        ));
    }
    check::not_negative(
        "spec.leaseTransitions",
        &spec["leaseTransitions"],
        &mut errors,
    );
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::created;

    #[test]
    fn durations_are_positive() {
        let errors = created(
            &KIND,
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
        );
        assert_eq!(
            errors,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0"
            ]
        );
        assert!(
            created(
                &KIND,
                json!({"spec": {"holderIdentity": "n1", "leaseDurationSeconds": 40}})
            )
            .is_empty()
        );
    }
}
