//! IngressClass (networking.k8s.io/v1): who serves the Ingresses that name it.

use k8s_openapi::api::networking::v1::IngressClass;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, meta, name};
use super::ingress::validate_reference;
use super::read::{age, set_default, text};
use super::{read, spec_status};
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of IngressClass.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    schema: "io.k8s.api.networking.v1.IngressClass",
    describe: SchemaGenerator::subschema_for::<IngressClass>,
    scope: Scope::Cluster,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new(
            "Controller",
            "string",
            "Who serves Ingresses of this class.",
        ),
        Column::new("Parameters", "string", "Configuration for the controller."),
        Column::AGE,
    ],
    row,
    default,
    prepare,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

/// Longest `spec.controller`, in bytes, as upstream has it; a longer one is refused.
const CONTROLLER_BYTES_MAX: usize = 250;

fn row(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        read::name(object),
        json!(text(&spec["controller"])),
        json!(parameters(&spec["parameters"])),
        age(object, now),
    ]
}

/// `KIND.GROUP/NAME`.
fn parameters(given: &Value) -> String {
    if given.is_null() {
        return "<none>".to_owned();
    }
    let (kind, name) = (text(&given["kind"]), text(&given["name"]));
    match given["apiGroup"].as_str() {
        Some(group) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn default(object: &mut Value) {
    let parameters = object.pointer_mut("/spec/parameters");
    if let Some(parameters) = parameters.filter(|parameters| parameters.is_object()) {
        set_default(parameters, "scope", "Cluster");
    }
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    spec_status::count_generation(object, old, &["spec"]);
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, name::subdomain);
    let spec = &object["spec"];
    if let Some(old) = old {
        let before = &old["spec"]["controller"];
        check::immutable("spec.controller", &spec["controller"], before, &mut errors);
    }
    validate_controller(text(&spec["controller"]), &mut errors);
    if !spec["parameters"].is_null() {
        validate_parameters(&spec["parameters"], &mut errors);
    }
    errors
}

fn validate_controller(controller: &str, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.controller";
    if controller.is_empty() {
        errors.push(FieldError::required(FIELD, ""));
        return;
    }
    if controller.len() > CONTROLLER_BYTES_MAX {
        errors.push(FieldError::too_long(FIELD, CONTROLLER_BYTES_MAX));
    }
    let split = controller.split_once('/');
    let Some((domain, path)) =
        split.filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        let words = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(FieldError::invalid(FIELD, controller, words));
        return;
    };
    check::all(FIELD, domain, name::subdomain(domain), errors);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !path.bytes().all(fits) {
        let words =
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
        errors.push(FieldError::invalid(FIELD, path, words));
    }
}

fn validate_parameters(parameters: &Value, errors: &mut Vec<FieldError>) {
    const NAMESPACE: &str = "spec.parameters.namespace";
    validate_reference("spec.parameters", parameters, errors);
    let namespace = &parameters["namespace"];
    match text(&parameters["scope"]) {
        "Namespace" => match namespace.as_str() {
            Some(given) => check::all(NAMESPACE, given, name::label(given), errors),
            None => errors.push(FieldError::required(
                NAMESPACE,
                "`parameters.scope` is set to 'Namespace'",
            )),
        },
        "Cluster" if !namespace.is_null() => errors.push(FieldError::forbidden(
            NAMESPACE,
            "`parameters.scope` is set to 'Cluster'",
        )),
        "Cluster" => {}
        scope => errors.push(FieldError::not_supported(
            "spec.parameters.scope",
            scope,
            &["Cluster", "Namespace"],
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    fn class(controller: &str, parameters: Value) -> Value {
        json!({"spec": {"controller": controller, "parameters": parameters}})
    }

    #[test]
    fn rows_are_those_of_kubectl() {
        let row = |parameters: Value| row(&class("a.io/b", parameters), 0)[2].clone();
        assert_eq!(row(Value::Null), "<none>");
        assert_eq!(row(json!({"kind": "K", "name": "n"})), "K/n");
        assert_eq!(
            row(json!({"apiGroup": "g.io", "kind": "K", "name": "n"})),
            "K.g.io/n"
        );
    }

    #[test]
    fn controllers_are_domain_prefixed_and_stay() {
        assert!(created(&KIND, class("portolan.dev/gateway", Value::Null)).is_empty());
        assert_eq!(
            created(&KIND, json!({})),
            ["spec.controller: Required value"]
        );
        for wrong in ["gateway", "/x", "a.io/"] {
            assert_eq!(
                created(&KIND, class(wrong, Value::Null)),
                [format!(
                    "spec.controller: Invalid value: {wrong:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"
                )]
            );
        }
        assert_eq!(
            created(&KIND, class("a.io/x y", Value::Null)),
            [
                "spec.controller: Invalid value: \"x y\": Invalid path (regex used for validation is \
              '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
            ]
        );
        let long = format!("a.io/{}", "x".repeat(CONTROLLER_BYTES_MAX));
        assert_eq!(
            created(&KIND, class(&long, Value::Null)),
            ["spec.controller: Too long: may not be more than 250 bytes"]
        );
        assert_eq!(
            changed(
                &KIND,
                class("a.io/b", Value::Null),
                |new| new["spec"]["controller"] = json!("a.io/c")
            ),
            ["spec.controller: Invalid value: \"a.io/c\": field is immutable"]
        );
    }

    #[test]
    fn parameters_have_a_scope() {
        let of = |parameters: Value| created(&KIND, class("a.io/b", parameters));
        let object = |scope: &str, namespace: Value| json!({"kind": "K", "name": "n", "scope": scope, "namespace": namespace});
        assert!(of(json!({"kind": "K", "name": "n"})).is_empty());
        assert!(of(object("Namespace", json!("shop"))).is_empty());
        assert_eq!(
            of(object("Namespace", Value::Null)),
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]
        );
        assert_eq!(
            of(object("Cluster", json!("shop"))),
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
        assert_eq!(
            of(json!({"scope": "x"})),
            [
                "spec.parameters.kind: Required value",
                "spec.parameters.name: Required value",
                "spec.parameters.scope: Unsupported value: \"x\": supported values: \"Cluster\", \"Namespace\""
            ]
        );
    }
}
