//! Gives a new Ingress without a class the default IngressClass (the admission plugin DefaultIngressClass).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::kind::{Admission, Denied, Kind, Operation, Review};

const GROUP: &str = "networking.k8s.io";

/// Knows which classes are marked as default. Of several, the newest counts, then the smaller name, as upstream.
#[derive(Default)]
pub struct DefaultIngressClass {
    /// `metadata.creationTimestamp` of the marked ones by name; timestamps of one form sort as text.
    marked: Mutex<BTreeMap<String, String>>,
}

impl Admission for DefaultIngressClass {
    fn admit(&self, review: &mut Review<'_>) -> Result<(), Denied> {
        let is_new = review.operation == Operation::Create && review.subresource.is_none();
        if !is_new || !is(review.kind, "Ingress") || has_class(review.object) {
            return Ok(());
        }
        let marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = marked
            .iter()
            .min_by_key(|(name, created)| (Reverse(*created), *name));
        if let (Some((name, _)), true) = (newest, review.object["spec"].is_object()) {
            review.object["spec"]["ingressClassName"] = json!(name);
        }
        Ok(())
    }

    fn stored(&self, kind: &Kind, old: Option<&Value>, new: Option<&Value>) {
        if !is(kind, "IngressClass") {
            return;
        }
        let mut marked = self.marked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = old {
            marked.remove(text(&old["metadata"]["name"]));
        }
        if let Some(new) = new.filter(|new| is_default(new)) {
            let metadata = &new["metadata"];
            let created = text(&metadata["creationTimestamp"]).to_owned();
            marked.insert(text(&metadata["name"]).to_owned(), created);
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is(kind: &Kind, name: &str) -> bool {
    kind.group == GROUP && kind.kind == name
}

fn has_class(ingress: &Value) -> bool {
    let annotations = &ingress["metadata"]["annotations"];
    !ingress["spec"]["ingressClassName"].is_null()
        || !annotations["kubernetes.io/ingress.class"].is_null()
}

fn is_default(class: &Value) -> bool {
    let annotations = &class["metadata"]["annotations"];
    text(&annotations["ingressclass.kubernetes.io/is-default-class"]) == "true"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::kinds;

    fn kind(name: &str) -> &'static Kind {
        kinds().iter().find(|kind| kind.kind == name).unwrap()
    }

    fn class(name: &str, created: &str, default: &str) -> Value {
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": default});
        json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": annotations}})
    }

    fn admitted(plugin: &DefaultIngressClass, operation: Operation, mut object: Value) -> Value {
        let mut review = Review {
            kind: kind("Ingress"),
            subresource: None,
            operation,
            dry_run: false,
            old: None,
            object: &mut object,
            lookup: &|_, _, _, _| None,
        };
        assert_eq!(plugin.admit(&mut review), Ok(()));
        object["spec"]["ingressClassName"].clone()
    }

    #[test]
    fn the_newest_default_is_given_to_new_ones_without_a_class() {
        let plugin = DefaultIngressClass::default();
        let new = |plugin| admitted(plugin, Operation::Create, json!({"spec": {}}));
        assert_eq!(new(&plugin), Value::Null);
        let stored = |old: Option<&Value>, new: Option<&Value>| {
            plugin.stored(kind("IngressClass"), old, new)
        };
        let older = class("older", "2026-01-01T00:00:00Z", "true");
        let (newer, same) = (
            class("newer", "2026-01-02T00:00:00Z", "true"),
            class("same", "2026-01-02T00:00:00Z", "true"),
        );
        for class in [
            &older,
            &same,
            &newer,
            &class("no", "2026-01-03T00:00:00Z", "false"),
        ] {
            stored(None, Some(class));
        }
        assert_eq!(new(&plugin), "newer");
        stored(
            Some(&newer),
            Some(&class("newer", "2026-01-02T00:00:00Z", "false")),
        );
        assert_eq!(new(&plugin), "same");
        stored(Some(&same), None);
        assert_eq!(new(&plugin), "older");
        plugin.stored(kind("Service"), Some(&older), None);
        assert_eq!(new(&plugin), "older");
        assert_eq!(
            admitted(&plugin, Operation::Update, json!({"spec": {}})),
            Value::Null
        );
        let named = json!({"spec": {"ingressClassName": "x"}});
        assert_eq!(admitted(&plugin, Operation::Create, named), "x");
        let annotated =
            json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": {}});
        assert_eq!(admitted(&plugin, Operation::Create, annotated), Value::Null);
    }
}
