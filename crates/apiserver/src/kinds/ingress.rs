//! Ingress (networking.k8s.io/v1): which requests from outside go to which Service.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::Ingress;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::read::{age, items, name, text, text_or};
use super::spec_status;
use crate::kind::{Column, Kind, Scope, Subresource};

mod validate;

pub use validate::validate_reference;

/// The entry of Ingress.
pub static KIND: Kind = Kind {
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    schema: "io.k8s.api.networking.v1.Ingress",
    describe: SchemaGenerator::subschema_for::<Ingress>,
    scope: Scope::Namespaced,
    subresources: &[Subresource::Status],
    columns: &[
        Column::NAME,
        Column::new(
            "Class",
            "string",
            "The IngressClass that says who serves it.",
        ),
        Column::new("Hosts", "string", "Hosts of its rules."),
        Column::new("Address", "string", "Where it is served."),
        Column::new("Ports", "string", "Ports at which it is served."),
        Column::AGE,
    ],
    row,
    default: |_| {},
    prepare: spec_status::prepare,
    prepare_status: spec_status::prepare_status,
    validate: validate::validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let spec = &object["spec"];
    let ports = match items(&spec["tls"]).is_empty() {
        true => "80",
        false => "80, 443",
    };
    vec![
        name(object),
        json!(text_or(&spec["ingressClassName"], "<none>")),
        json!(hosts(items(&spec["rules"]))),
        json!(addresses(&object["status"]["loadBalancer"])),
        json!(ports),
        age(object, now),
    ]
}

/// The first three hosts; `*` when no rule has one.
fn hosts(rules: &[Value]) -> String {
    /// As many as kubectl's tables show; rules behind them are counted.
    const SHOWN_MAX: usize = 3;
    let named = rules.iter().map(|rule| text(&rule["host"]));
    let shown: Vec<&str> = named
        .filter(|host| !host.is_empty())
        .take(SHOWN_MAX)
        .collect();
    let last = rules
        .iter()
        .filter(|rule| !text(&rule["host"]).is_empty())
        .nth(SHOWN_MAX - 1);
    let more = rules
        .last()
        .zip(last)
        .is_some_and(|(end, third)| !std::ptr::eq(end, third));
    match (shown.is_empty(), more) {
        (true, _) => "*".to_owned(),
        (false, false) => shown.join(","),
        (false, true) => format!("{} + {} more...", shown.join(","), rules.len() - SHOWN_MAX),
    }
}

fn addresses(load_balancer: &Value) -> String {
    let all = items(&load_balancer["ingress"]).iter();
    let all = all.map(|ingress| text_or(&ingress["ip"], text(&ingress["hostname"])));
    let all: BTreeSet<&str> = all.filter(|address| !address.is_empty()).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_kubectl() {
        let rule = |host: &str| json!({"host": host});
        let row = |spec: Value, addresses: Value| {
            let status = json!({"loadBalancer": {"ingress": addresses}});
            let cells = row(
                &json!({"metadata": {"name": "i"}, "spec": spec, "status": status}),
                0,
            );
            Value::from(cells)
        };
        assert_eq!(
            row(json!({"defaultBackend": {}}), Value::Null),
            json!(["i", "<none>", "*", "", "80", "<unknown>"])
        );
        let three = json!({"ingressClassName": "c", "tls": [{}], "rules": [rule("a"), rule(""), rule("b"), rule("c")]});
        let addresses =
            json!([{"ip": "198.51.100.2"}, {"hostname": "x.com"}, {"ip": "198.51.100.1"}]);
        assert_eq!(
            row(three, addresses),
            json!([
                "i",
                "c",
                "a,b,c",
                "198.51.100.1,198.51.100.2,x.com",
                "80, 443",
                "<unknown>"
            ])
        );
        let five = json!({"rules": [rule("a"), rule("b"), rule("c"), rule("d"), rule("e")]});
        assert_eq!(row(five, Value::Null)[2], "a,b,c + 2 more...");
    }
}
