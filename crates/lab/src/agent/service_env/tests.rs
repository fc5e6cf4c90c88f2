//! The kubelet's Service variables, held against cases/envvars.json.

use super::*;
use serde_json::{Value, json};

/// The cases say what the kubelet does with which Services.
const CASES: &str = include_str!("../../../cases/envvars.json");

fn cases() -> Value {
    serde_json::from_str(CASES).unwrap()
}

fn service(namespace: &str, name: &str, ip: &str) -> Service {
    let ports = json!([{"name": "http-main", "port": 80}, {"port": 53, "protocol": "UDP"}]);
    with_ports(namespace, name, ip, &ports)
}

fn with_ports(namespace: &str, name: &str, ip: &str, ports: &Value) -> Service {
    let meta = json!({"namespace": namespace, "name": name});
    serde_json::from_value(json!({"metadata": meta, "spec": {"clusterIP": ip, "ports": ports}}))
        .unwrap()
}

fn names(variables: &[(String, String)]) -> Vec<&str> {
    variables.iter().map(|(name, _)| name.as_str()).collect()
}

fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

#[test]
fn every_case_of_the_kubelet_in_its_order() {
    let cases = cases();
    let mut seen = 0;
    for given in cases["services"].as_array().unwrap() {
        let name = given["name"].as_str().unwrap();
        let ip = given["clusterIP"].as_str().unwrap();
        let service = with_ports("shop", name, ip, &given["ports"]);
        let prefix = format!("{}_", name.to_uppercase().replace('-', "_"));
        let expected = cases["expected_in_order"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let want: Vec<_> = expected
            .map(|row| (text(&row["name"]), text(&row["value"])))
            .filter(|(name, _)| name.starts_with(&prefix))
            .collect();
        assert_eq!(build([&service], "shop", true), want, "{name}");
        seen += want.len();
    }
    // All rows belong to one of the Services, so none was left out.
    assert_eq!(seen, cases["expected_in_order"].as_array().unwrap().len());
    assert_eq!(seen, 32);
}

#[test]
fn the_services_of_the_cases_together() {
    let cases = cases();
    let given = cases["services"].as_array().unwrap().iter();
    let services: Vec<Service> = given
        .map(|given| {
            let name = given["name"].as_str().unwrap();
            let ip = given["clusterIP"].as_str().unwrap();
            with_ports("shop", name, ip, &given["ports"])
        })
        .collect();
    let got = build(&services, "shop", true);
    let expected = cases["expected_in_order"].as_array().unwrap();
    for row in expected {
        let name = row["name"].as_str().unwrap();
        assert_eq!(value(&got, name), row["value"].as_str(), "{name}");
    }
    assert_eq!(got.len(), expected.len());
}

#[test]
fn an_ipv6_address_stands_in_brackets_in_urls_only() {
    let got = build([&service("shop", "db", "fd00:172:30::9")], "shop", true);
    assert_eq!(value(&got, "DB_SERVICE_HOST"), Some("fd00:172:30::9"));
    assert_eq!(value(&got, "DB_PORT"), Some("tcp://[fd00:172:30::9]:80"));
    assert_eq!(
        value(&got, "DB_PORT_53_UDP"),
        Some("udp://[fd00:172:30::9]:53")
    );
    assert_eq!(value(&got, "DB_PORT_53_UDP_ADDR"), Some("fd00:172:30::9"));
}

#[test]
fn other_namespaces_and_headless_services_are_not_told_but_kubernetes_always_is() {
    let services = [
        service("other", "a", "172.30.0.2"),
        service("shop", "b", "None"),
        service("shop", "c", ""),
        service("default", "kubernetes", "172.30.0.1"),
    ];
    for links in [true, false] {
        let got = build(&services, "shop", links);
        assert_eq!(value(&got, "KUBERNETES_SERVICE_HOST"), Some("172.30.0.1"));
        let names = names(&got);
        assert!(
            names.iter().all(|name| name.starts_with("KUBERNETES_")),
            "{names:?}"
        );
    }
}

#[test]
fn without_links_the_pods_own_namespace_is_not_told() {
    let services = [
        service("default", "db", "172.30.0.9"),
        service("default", "kubernetes", "172.30.0.1"),
    ];
    let names_of = |links| {
        let got = build(&services, "default", links);
        value(&got, "DB_SERVICE_HOST").map(str::to_string)
    };
    assert_eq!(names_of(true), Some("172.30.0.9".into()));
    assert_eq!(names_of(false), None);
}

/// The kubelet maps names to Services first, so nothing of the hidden one is left.
#[test]
fn a_service_kubernetes_of_the_pods_namespace_hides_the_clusters_whole() {
    let own = json!([{"port": 1234}]);
    let services = [
        service("default", "kubernetes", "172.30.0.1"),
        with_ports("shop", "kubernetes", "172.30.0.7", &own),
    ];
    let got = build(&services, "shop", true);
    assert_eq!(value(&got, "KUBERNETES_SERVICE_HOST"), Some("172.30.0.7"));
    assert_eq!(value(&got, "KUBERNETES_PORT_80_TCP"), None);
    let got = build(&services, "shop", false);
    assert_eq!(value(&got, "KUBERNETES_SERVICE_HOST"), Some("172.30.0.1"));
}

#[test]
fn a_name_that_two_services_make_is_told_once() {
    let services = [
        service("shop", "db", "172.30.0.2"),
        service("shop", "db-service", "172.30.0.3"),
    ];
    let got = build(&services, "shop", true);
    let mut unique = names(&got);
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), got.len());
    assert_eq!(value(&got, "DB_SERVICE_PORT"), Some("tcp://172.30.0.3:80"));
}
