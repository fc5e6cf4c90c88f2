//! Namespace.

use k8s_openapi::api::core::v1::Namespace;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta};
use super::read::{age, child, items, name, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope, Subresource};

/// The entry of Namespace.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Namespace",
    describe: SchemaGenerator::subschema_for::<Namespace>,
    scope: Scope::Cluster,
    subresources: &[Subresource::Status, Subresource::Finalize],
    columns: &[
        Column::NAME,
        Column::new("Status", "string", "Active or Terminating."),
        Column::AGE,
    ],
    row,
    default,
    prepare,
    prepare_status: spec_status::prepare_status,
    validate,
    selectable: &["status.phase"],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    vec![
        name(object),
        json!(text(&object["status"]["phase"])),
        age(object, now),
    ]
}

/// A namespace carries its own name as a label, so that selectors can name it.
fn default(object: &mut Value) {
    let own = text(&object["metadata"]["name"]).to_owned();
    if own.is_empty() {
        return;
    }
    if let Some(labels) = object
        .get_mut("metadata")
        .and_then(|metadata| child(metadata, "labels"))
    {
        labels.insert("kubernetes.io/metadata.name".to_owned(), own.into());
    }
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            object["status"] = json!({"phase": "Active"});
            object["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        Some(_) => {
            spec_status::keep(object, old, "status");
            spec_status::keep(object, old, "spec");
        }
    }
}

fn validate(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::label);
    for (index, finalizer) in items(&object["spec"]["finalizers"]).iter().enumerate() {
        meta::finalizer_name(
            &format!("spec.finalizers[{index}]"),
            text(finalizer),
            &mut errors,
        );
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::created;

    #[test]
    fn names_are_labels() {
        assert!(created(&KIND, json!({"metadata": {"name": "shop"}})).is_empty());
        assert!(created(&KIND, json!({"metadata": {"name": "a.b"}}))[0].contains("RFC 1123 label"));
    }

    #[test]
    fn a_new_namespace_is_active_and_labelled() {
        let mut namespace = json!({"metadata": {"name": "shop"}});
        default(&mut namespace);
        prepare(&mut namespace, None);
        assert_eq!(
            namespace["metadata"]["labels"],
            json!({"kubernetes.io/metadata.name": "shop"})
        );
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(namespace["spec"]["finalizers"], json!(["kubernetes"]));
    }
}
