//! Deployment (apps/v1).

use k8s_openapi::api::apps::v1::Deployment;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta};
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

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    workload::validate(object, old, &mut errors);
    let spec = &object["spec"];
    validate_strategy(&spec["strategy"], &mut errors);
    for field in ["revisionHistoryLimit", "progressDeadlineSeconds"] {
        check::not_negative(&format!("spec.{field}"), &spec[field], &mut errors);
    }
    let deadline = &spec["progressDeadlineSeconds"];
    if deadline
        .as_i64()
        .is_some_and(|seconds| seconds <= number(&spec["minReadySeconds"]))
    {
        errors.push(FieldError::invalid(
            "spec.progressDeadlineSeconds",
            deadline.clone(),
            "must be greater than minReadySeconds",
        ));
    }
    errors
}

fn validate_strategy(strategy: &Value, errors: &mut Vec<FieldError>) {
    const UNAVAILABLE: &str = "spec.strategy.rollingUpdate.maxUnavailable";
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "Recreate" if rolling.is_object() => errors.push(FieldError::forbidden(
            "spec.strategy.rollingUpdate",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        "RollingUpdate" => {
            let unavailable = percent_or_number(UNAVAILABLE, &rolling["maxUnavailable"], errors);
            let surge = percent_or_number(
                "spec.strategy.rollingUpdate.maxSurge",
                &rolling["maxSurge"],
                errors,
            );
            let value = || rolling["maxUnavailable"].clone();
            if unavailable == Some(0) && surge == Some(0) {
                errors.push(FieldError::invalid(
                    UNAVAILABLE,
                    value(),
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
            if rolling["maxUnavailable"].is_string()
                && unavailable.is_some_and(|percent| percent > PERCENT_MAX)
            {
                errors.push(FieldError::invalid(
                    UNAVAILABLE,
                    value(),
                    "must not be greater than 100%",
                ));
            }
        }
        _ => check::one_of(
            "spec.strategy.type",
            &strategy["type"],
            &["Recreate", "RollingUpdate"],
            errors,
        ),
    }
}

/// All pods.
const PERCENT_MAX: i64 = 100;

/// The number before the percent sign, or the number.
fn percent_or_number(field: &str, value: &Value, errors: &mut Vec<FieldError>) -> Option<i64> {
    let Some(given) = value.as_str() else {
        check::not_negative(field, value, errors);
        return Some(number(value));
    };
    let digits = given
        .strip_suffix('%')
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let percent = digits.and_then(|digits| digits.parse().ok());
    if percent.is_none() {
        let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                      regex used for validation is '[0-9]+%')";
        errors.push(FieldError::invalid(field, given, detail));
    }
    percent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    fn deployment(strategy: Value) -> Value {
        json!({"spec": {"selector": {"matchLabels": {"app": "a"}}, "strategy": strategy,
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "x"}]}}}})
    }

    #[test]
    fn defaults() {
        let mut object = deployment(json!(null));
        default(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(spec["progressDeadlineSeconds"], 600);
        assert_eq!(spec["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    }

    #[test]
    fn rows_are_those_of_kubectl() {
        let mut object = deployment(json!(null));
        object["metadata"] = json!({"name": "web"});
        object["spec"]["replicas"] = json!(3);
        object["status"] =
            json!({"readyReplicas": 2, "updatedReplicas": 1, "availableReplicas": 2});
        let expected = json!(["web", "2/3", 1, 2, "<unknown>", "a", "x", "app=a"]);
        assert_eq!(Value::from(row(&object, 0)), expected);
    }

    #[test]
    fn strategies_are_checked() {
        assert!(created(&KIND, deployment(json!(null))).is_empty());
        let cases = [
            (
                json!({"type": "Recreate", "rollingUpdate": {}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ),
            (
                json!({"type": "x"}),
                "spec.strategy.type: Unsupported value: \"x\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
        ];
        for (strategy, expected) in cases {
            assert_eq!(created(&KIND, deployment(strategy)), [expected]);
        }
    }

    #[test]
    fn the_selector_stays() {
        let errors = changed(&KIND, deployment(json!(null)), |new| {
            new["spec"]["selector"]["matchLabels"]["app"] = json!("b");
            new["spec"]["template"]["metadata"]["labels"]["app"] = json!("b");
        });
        assert_eq!(
            errors,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"]
        );
    }

    #[test]
    fn generation_counts_specs() {
        let mut old = deployment(json!(null));
        spec_status::prepare(&mut old, None);
        assert_eq!(old["metadata"]["generation"], 1);
        let mut new = old.clone();
        new["status"] = json!({"replicas": 9});
        spec_status::prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 1);
        assert!(
            new.get("status").is_none(),
            "the status is not this writer's"
        );
        new["spec"]["replicas"] = json!(5);
        spec_status::prepare(&mut new, Some(&old));
        assert_eq!(new["metadata"]["generation"], 2);
    }
}
