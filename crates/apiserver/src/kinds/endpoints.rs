//! Endpoints: the older form of EndpointSlices, still read by some clients.

use k8s_openapi::api::core::v1::Endpoints;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, address, meta, port};
use super::read::{age, first_three, items, items_mut, name, set_default, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of Endpoints.
pub static KIND: Kind = Kind {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    schema: "io.k8s.api.core.v1.Endpoints",
    describe: SchemaGenerator::subschema_for::<Endpoints>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("Endpoints", "string", "Addresses with their ports."),
        Column::AGE,
    ],
    row,
    default,
    prepare: spec_status::nothing,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let subsets = items(&object["subsets"]);
    let shown = if subsets.is_empty() {
        "<none>".to_owned()
    } else {
        first_three(&subsets.iter().flat_map(addresses).collect::<Vec<_>>(), "")
    };
    vec![name(object), json!(shown), age(object, now)]
}

/// Every address of a subset with every port; without ports (headless Services may have none) the addresses alone.
fn addresses(subset: &Value) -> Vec<String> {
    let ips = || {
        items(&subset["addresses"])
            .iter()
            .map(|address| text(&address["ip"]))
    };
    let ports = items(&subset["ports"]);
    if ports.is_empty() {
        return ips().map(str::to_owned).collect();
    }
    ports
        .iter()
        .flat_map(|port| ips().map(move |ip| join_host_port(ip, &port["port"])))
        .collect()
}

fn join_host_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}

fn default(object: &mut Value) {
    for subset in items_mut(object, "subsets") {
        for port in items_mut(subset, "ports") {
            set_default(port, "protocol", "TCP");
        }
    }
}

fn validate(object: &Value, _old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    for (index, subset) in items(&object["subsets"]).iter().enumerate() {
        validate_subset(&format!("subsets[{index}]"), subset, &mut errors);
    }
    errors
}

fn validate_subset(field: &str, subset: &Value, errors: &mut Vec<FieldError>) {
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| items(&subset[*list]).is_empty()) {
        errors.push(FieldError::required(
            field,
            "must specify `addresses` or `notReadyAddresses`",
        ));
    }
    for list in lists {
        for (index, given) in items(&subset[list]).iter().enumerate() {
            let (field, ip) = (format!("{field}.{list}[{index}].ip"), text(&given["ip"]));
            if let Some(parsed) = address::ip(&field, ip, errors) {
                address::not_special(&field, ip, parsed, errors);
            }
        }
    }
    let ports = items(&subset["ports"]);
    for (index, given) in ports.iter().enumerate() {
        let (field, name) = (format!("{field}.ports[{index}]"), text(&given["name"]));
        if !name.is_empty() {
            check::all(
                &format!("{field}.name"),
                name,
                check::name::label(name),
                errors,
            );
        } else if ports.len() > 1 {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        }
        port::number(&format!("{field}.port"), &given["port"], errors);
        check::one_of(
            &format!("{field}.protocol"),
            &given["protocol"],
            port::PROTOCOLS,
            errors,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::created;

    #[test]
    fn rows_are_those_of_kubectl() {
        let shown = |subsets: Value| text(&row(&json!({"subsets": subsets}), 0)[1]).to_owned();
        assert_eq!(shown(json!([])), "<none>");
        let ips = json!([{"ip": "10.1.0.2"}, {"ip": "fd00::2"}]);
        assert_eq!(shown(json!([{"addresses": ips}])), "10.1.0.2,fd00::2");
        let ports = json!([{"port": 80}, {"port": 443}]);
        let expected = "10.1.0.2:80,[fd00::2]:80,10.1.0.2:443 + 1 more...";
        assert_eq!(shown(json!([{"addresses": ips, "ports": ports}])), expected);
    }

    #[test]
    fn subsets_are_checked() {
        let good =
            json!({"subsets": [{"addresses": [{"ip": "203.0.113.7"}], "ports": [{"port": 5432}]}]});
        assert!(created(&KIND, good).is_empty());
        let errors = created(
            &KIND,
            json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}, {"ip": "x"}],
                "ports": [{"port": 0}, {"port": 80, "name": "a", "protocol": "IP"}]}, {}]}),
        );
        let expected = [
            "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
             ::1/128)",
            "subsets[0].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
            "subsets[0].ports[0].name: Required value",
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "subsets[0].ports[1].protocol: Unsupported value: \"IP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "subsets[1]: Required value: must specify `addresses` or `notReadyAddresses`",
        ];
        assert_eq!(errors, expected);
    }
}
