//! Event (core v1): what happened to an object.

use k8s_openapi::api::core::v1::Event;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::age::since;
use super::check::{self, meta};
use super::read::{is_empty, name, number, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of Event.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Event",
    describe: SchemaGenerator::subschema_for::<Event>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::new("Last Seen", "string", "When it happened last."),
        Column::new("Type", "string", "Normal or Warning."),
        Column::new("Reason", "string", "What happened, in one word."),
        Column::new("Object", "string", "What it happened to."),
        Column::wide(
            "Subobject",
            "string",
            "The part of the object that it happened to.",
        ),
        Column::wide("Source", "string", "Who reports it."),
        Column::new("Message", "string", "What happened."),
        Column::wide("First Seen", "string", "When it happened first."),
        Column::wide("Count", "string", "How often it happened."),
        Column {
            priority: 1,
            ..Column::NAME
        },
    ],
    row,
    default: |_| {},
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let given = |key: &str| {
        if is_empty(&object[key]) {
            &object["eventTime"]
        } else {
            &object[key]
        }
    };
    let first = since(given("firstTimestamp"), now);
    let last = match &object["series"] {
        Value::Null => match &object["lastTimestamp"] {
            Value::Null => first.clone(),
            time => since(time, now),
        },
        series => since(&series["lastObservedTime"], now),
    };
    let count = match &object["series"] {
        Value::Null => number(&object["count"]).max(1),
        series => number(&series["count"]),
    };
    let involved = &object["involvedObject"];
    let target = match (
        text(&involved["kind"]).to_lowercase(),
        text(&involved["name"]),
    ) {
        (kind, "") => kind,
        (kind, name) => format!("{kind}/{name}"),
    };
    vec![
        json!(last),
        json!(text(&object["type"])),
        json!(text(&object["reason"])),
        json!(target),
        json!(text(&involved["fieldPath"])),
        json!(source(object)),
        json!(text(&object["message"]).trim()),
        json!(first),
        json!(count),
        name(object),
    ]
}

/// `kubelet, n1`; events of the newer form name a reporting controller and instance.
fn source(object: &Value) -> String {
    let old = &object["source"];
    let (component, host) = match (text(&old["component"]), text(&old["host"])) {
        ("", "") => (
            text(&object["reportingComponent"]),
            text(&object["reportingInstance"]),
        ),
        given => given,
    };
    if host.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {host}")
    }
}

fn validate(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    let involved = text(&object["involvedObject"]["namespace"]);
    let own = text(&object["metadata"]["namespace"]);
    // What happens to an object without a namespace is told in `default` or in `kube-system`.
    let fits = if involved.is_empty() {
        matches!(own, "default" | "kube-system")
    } else {
        involved == own
    };
    if !fits {
        errors.push(FieldError::invalid(
            "involvedObject.namespace",
            involved,
            "does not match event.namespace",
        ));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::created;

    #[test]
    fn rows_are_those_of_kubectl() {
        let event = json!({"metadata": {"name": "p.1"}, "type": "Normal", "reason": "Started", "message": " up\n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{a}"}, "count": 3,
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:01:00Z"});
        let expected = json!([
            "40s",
            "Normal",
            "Started",
            "pod/p",
            "spec.containers{a}",
            "kubelet, n1",
            "up",
            "100s",
            3,
            "p.1"
        ]);
        assert_eq!(Value::from(row(&event, 100)), expected);
    }

    #[test]
    fn events_stand_beside_their_object() {
        assert!(created(&KIND, json!({"involvedObject": {"namespace": "default"}})).is_empty());
        assert!(created(&KIND, json!({"involvedObject": {"kind": "Node"}})).is_empty());
        assert_eq!(
            created(&KIND, json!({"involvedObject": {"namespace": "other"}})),
            ["involvedObject.namespace: Invalid value: \"other\": does not match event.namespace"]
        );
    }
}
