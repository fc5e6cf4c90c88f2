//! EndpointSlice (discovery.k8s.io/v1): who stands behind a Service.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::check::{self, address, meta, port};
use super::read::{age, first_three, items, items_mut, name, set_default, text};
use super::spec_status;
use crate::kind::{Column, FieldError, Kind, Scope};

/// The entry of EndpointSlice.
pub static KIND: Kind = Kind {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    schema: "io.k8s.api.discovery.v1.EndpointSlice",
    describe: SchemaGenerator::subschema_for::<EndpointSlice>,
    scope: Scope::Namespaced,
    subresources: &[],
    columns: &[
        Column::NAME,
        Column::new("AddressType", "string", "IPv4, IPv6 or FQDN."),
        Column::new("Ports", "string", "Ports of every endpoint."),
        Column::new("Endpoints", "string", "Addresses of the endpoints."),
        Column::AGE,
    ],
    row,
    default,
    prepare,
    prepare_status: spec_status::no_status,
    validate,
    selectable: &[],
};

fn row(object: &Value, now: i64) -> Vec<Value> {
    let ports: Vec<String> = items(&object["ports"]).iter().map(shown_port).collect();
    let addresses: Vec<String> = items(&object["endpoints"])
        .iter()
        .flat_map(|endpoint| items(&endpoint["addresses"]))
        .map(|address| text(address).to_owned())
        .collect();
    vec![
        name(object),
        json!(text(&object["addressType"])),
        json!(first_three(&ports, "<unset>")),
        json!(first_three(&addresses, "<unset>")),
        age(object, now),
    ]
}

fn shown_port(port: &Value) -> String {
    match (&port["port"], text(&port["name"])) {
        (Value::Null, "") => "*".to_owned(),
        (Value::Null, name) => name.to_owned(),
        (number, _) => number.to_string(),
    }
}

fn default(object: &mut Value) {
    for port in items_mut(object, "ports") {
        if port.get("name").is_none_or(Value::is_null) {
            port["name"] = json!("");
        }
        set_default(port, "protocol", "TCP");
    }
}

fn prepare(object: &mut Value, old: Option<&Value>) {
    spec_status::count_generation(object, old, &["endpoints", "ports", "addressType"]);
}

/// Endpoints of one slice.
const ENDPOINTS_MAX: usize = 1000;
/// Addresses of one endpoint.
const ADDRESSES_MAX: usize = 100;
/// Zones or nodes that one endpoint can be hinted for.
const HINTS_MAX: usize = 8;

fn validate(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = meta::validate(&KIND, object, check::name::subdomain);
    check::one_of(
        "addressType",
        &object["addressType"],
        &["FQDN", "IPv4", "IPv6"],
        &mut errors,
    );
    let endpoints = items(&object["endpoints"]);
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many(
            "endpoints",
            endpoints.len(),
            ENDPOINTS_MAX,
        ));
        return errors;
    }
    for (index, endpoint) in endpoints.iter().enumerate() {
        validate_endpoint(
            &format!("endpoints[{index}]"),
            endpoint,
            text(&object["addressType"]),
            &mut errors,
        );
    }
    validate_ports(items(&object["ports"]), &mut errors);
    if let Some(old) = old {
        check::immutable(
            "addressType",
            &object["addressType"],
            &old["addressType"],
            &mut errors,
        );
    }
    errors
}

fn validate_endpoint(
    field: &str,
    endpoint: &Value,
    address_type: &str,
    errors: &mut Vec<FieldError>,
) {
    let addresses = items(&endpoint["addresses"]);
    let list = format!("{field}.addresses");
    match addresses.len() {
        0 => errors.push(FieldError::required(
            &list,
            "must contain at least 1 address",
        )),
        count if count > ADDRESSES_MAX => {
            errors.push(FieldError::too_many(&list, count, ADDRESSES_MAX))
        }
        _ => {}
    }
    for (index, given) in addresses.iter().enumerate() {
        validate_address(
            &format!("{list}[{index}]"),
            text(given),
            address_type,
            errors,
        );
    }
    let (node, hostname) = (text(&endpoint["nodeName"]), text(&endpoint["hostname"]));
    if !node.is_empty() {
        check::all(
            &format!("{field}.nodeName"),
            node,
            check::name::subdomain(node),
            errors,
        );
    }
    if !hostname.is_empty() {
        check::all(
            &format!("{field}.hostname"),
            hostname,
            check::name::label(hostname),
            errors,
        );
    }
    for hints in ["forZones", "forNodes"] {
        let count = items(&endpoint["hints"][hints]).len();
        if count > HINTS_MAX {
            errors.push(FieldError::too_many(
                format!("{field}.hints.{hints}"),
                count,
                HINTS_MAX,
            ));
        }
    }
}

fn validate_address(field: &str, given: &str, address_type: &str, errors: &mut Vec<FieldError>) {
    match (address_type, address::parse(given)) {
        ("FQDN", _) => check::all(field, given, check::name::subdomain(given), errors),
        ("IPv4", Some(ip)) if ip.is_ipv4() => address::not_special(field, given, ip, errors),
        ("IPv6", Some(ip)) if ip.is_ipv6() => address::not_special(field, given, ip, errors),
        ("IPv4", _) => errors.push(FieldError::invalid(
            field,
            given,
            "must be a valid IPv4 address",
        )),
        ("IPv6", _) => errors.push(FieldError::invalid(
            field,
            given,
            "must be a valid IPv6 address",
        )),
        _ => {}
    }
}

fn validate_ports(ports: &[Value], errors: &mut Vec<FieldError>) {
    let mut names: Vec<&str> = Vec::new();
    for (index, given) in ports.iter().enumerate() {
        let (field, name) = (format!("ports[{index}]"), text(&given["name"]));
        if !name.is_empty() {
            check::all(
                &format!("{field}.name"),
                name,
                check::name::label(name),
                errors,
            );
        }
        if names.contains(&name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), name));
        }
        names.push(name);
        check::one_of(
            &format!("{field}.protocol"),
            &given["protocol"],
            port::PROTOCOLS,
            errors,
        );
        if !given["port"].is_null() {
            port::number(&format!("{field}.port"), &given["port"], errors);
        }
        let application = text(&given["appProtocol"]);
        if !application.is_empty() {
            check::all(
                &format!("{field}.appProtocol"),
                application,
                check::name::qualified(application),
                errors,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::check::tests::{changed, created};

    #[test]
    fn rows_are_those_of_kubectl() {
        let slice = json!({"metadata": {"name": "s-1"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}],
            "endpoints": [{"addresses": ["10.1.0.2"]}, {"addresses": ["10.1.0.3"]}]});
        let cells = json!(["s-1", "IPv4", "80,x", "10.1.0.2,10.1.0.3", "<unknown>"]);
        assert_eq!(Value::from(row(&slice, 0)), cells);
        let empty = row(
            &json!({"metadata": {"name": "s"}, "addressType": "IPv6"}),
            0,
        );
        assert_eq!(
            Value::from(empty),
            json!(["s", "IPv6", "<unset>", "<unset>", "<unknown>"])
        );
    }

    #[test]
    fn slices_are_checked() {
        let good = json!({"addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.1.0.2"], "nodeName": "n1", "conditions": {"ready": true}}]});
        assert!(created(&KIND, good.clone()).is_empty());
        let errors = changed(&KIND, good, |new| {
            new["addressType"] = json!("IPv6");
            new["ports"] = json!([{"name": "a", "port": 70000}, {"name": "a", "protocol": "x"}]);
        });
        let expected = [
            "endpoints[0].addresses[0]: Invalid value: \"10.1.0.2\": must be a valid IPv6 address",
            "ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[1].name: Duplicate value: \"a\"",
            "ports[1].protocol: Unsupported value: \"x\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "addressType: Invalid value: \"IPv6\": field is immutable",
        ];
        assert_eq!(errors, expected);
        let errors = created(&KIND, json!({"endpoints": [{"addresses": []}]}));
        let expected = [
            "addressType: Required value",
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_slice_has_at_most_a_thousand_endpoints() {
        let many = vec![json!({"addresses": ["10.1.0.2"]}); ENDPOINTS_MAX + 1];
        let errors = created(&KIND, json!({"addressType": "IPv4", "endpoints": many}));
        assert_eq!(
            errors,
            ["endpoints: Too many: 1001: must have at most 1000 items"]
        );
    }
}
