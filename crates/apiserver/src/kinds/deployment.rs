//! Deployment (apps/v1).

use k8s_openapi::api::apps::v1::Deployment;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, name, number, set_default, text};
use super::{pod, spec_status, workload};
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of Deployment.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.Deployment",
    describe: SchemaGenerator::subschema_for::<Deployment>,
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status, Subresource::Scale],
    columns: &[
        Column::NAME,
        Column::new(
            "Ready",
            "string",
            "Number of the pods with a ready condition.",
        ),
        Column::new(
            "Up-to-date",
            "string",
            "Number of the pods with the newest template.",
        ),
        Column::new(
            "Available",
            "string",
            "Number of the pods that were ready long enough.",
        ),
        Column::AGE,
        workload::CONTAINERS,
        workload::IMAGES,
        workload::SELECTOR,
    ],
    row,
    default,
    prepare: spec_status::prepare,
    prepare_status: spec_status::prepare_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let status = &object["status"];
    let ready = format!(
        "{}/{}",
        number(&status["readyReplicas"]),
        number(&object["spec"]["replicas"])
    );
    let mut cells = vec![
        name(object),
        json!(ready),
        json!(number(&status["updatedReplicas"])),
        json!(number(&status["availableReplicas"])),
        age(object, now),
    ];
    cells.extend(workload::wide_cells(object));
    cells
}

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    set_default(spec, "strategy", json!({}));
    let strategy = &mut spec["strategy"];
    set_default(strategy, "type", "RollingUpdate");
    if text(&strategy["type"]) == "RollingUpdate" {
        set_default(strategy, "rollingUpdate", json!({}));
        set_default(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
        set_default(&mut strategy["rollingUpdate"], "maxSurge", "25%");
    }
    if let Some(template) = spec.get_mut("template") {
        pod::default_template(template);
    }
}

fn validate(_object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    Vec::new()
}
