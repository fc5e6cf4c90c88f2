//! ReplicaSet (apps/v1).

use k8s_openapi::api::apps::v1::ReplicaSet;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{meta, name};
use super::read::{self, age, number, set_default};
use super::{pod, spec_status, workload};
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of ReplicaSet.
pub static KIND: Kind = Kind {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    schema: "io.k8s.api.apps.v1.ReplicaSet",
    describe: SchemaGenerator::subschema_for::<ReplicaSet>,
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status, Subresource::Scale],
    columns: &[
        Column::NAME,
        Column::new("Desired", "integer", "Number of pods wanted."),
        Column::new("Current", "integer", "Number of pods that exist."),
        Column::new("Ready", "integer", "Number of pods with a ready condition."),
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
    selectable: &["status.replicas"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let mut cells = vec![
        read::name(object),
        json!(number(&object["spec"]["replicas"])),
        json!(number(&object["status"]["replicas"])),
        json!(number(&object["status"]["readyReplicas"])),
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
    if let Some(template) = spec.get_mut("template") {
        pod::default_template(template);
    }
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, name::subdomain);
    workload::validate(object, old, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::created;

    #[test]
    fn the_selector_fits_the_template() {
        let set = json!({"spec": {"selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "b"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}});
        let expected = "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`";
        assert_eq!(created(&KIND, set), [expected]);
    }
}
