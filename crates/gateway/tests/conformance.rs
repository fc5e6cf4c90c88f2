//! The tables of the Kubernetes documentation and the cases of kubernetes-sigs/ingress-controller-conformance, against
//! the routing table. What needs connections (load balancing, headers, certificates that verify) is not asked here.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use http::{HeaderMap, Method};
use portolan_gateway::ingress::{Objects, Options, Routing, build};
use portolan_gateway::{Destination, Host, ObjectName, Request, normalize, request_host};
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use portolan_k8s::wire::{Secret, Service};
use serde_json::{Value, json};

const CASES: &str = include_str!("cases/conformance-cases.json");
const PATHS: &str = include_str!("cases/docs-path-table.tsv");
const HOSTS: &str = include_str!("cases/host-table.tsv");

/// The lines of a table without its comments and its heading, as columns.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect()
}

/// Everything that an Ingress needs: our class, each Service that it names, and a Secret.
fn objects(ingress: Value) -> Objects {
    let mut objects = Objects::default();
    let class =
        json!({"metadata": {"name": "ours"}, "spec": {"controller": "portolan.dev/gateway"}});
    let class: IngressClass = serde_json::from_value(class).unwrap();
    objects
        .classes
        .insert(ObjectName::new("", "ours"), Arc::new(class));
    let mut names = Vec::new();
    services(&ingress, &mut names);
    for name in names {
        let ports = json!([{"name": "http", "port": 8080}]);
        let service =
            json!({"metadata": {"namespace": "test", "name": name}, "spec": {"ports": ports}});
        let service: Service = serde_json::from_value(service).unwrap();
        objects
            .services
            .insert(ObjectName::new("test", &name), Arc::new(service));
    }
    let secret =
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "eA==", "tls.key": "eA=="}});
    let secret: Secret = serde_json::from_value(secret).unwrap();
    objects
        .secrets
        .insert(ObjectName::new("test", "conformance-tls"), Arc::new(secret));
    let mut ingress: Ingress = serde_json::from_value(ingress).unwrap();
    ingress.metadata.namespace = Some("test".into());
    ingress.spec.ingress_class_name.get_or_insert("ours".into());
    objects
        .ingresses
        .insert(ObjectName::of(&ingress.metadata), Arc::new(ingress));
    objects
}

/// The names of all Services below `value`.
fn services(value: &Value, names: &mut Vec<String>) {
    if let Some(name) = value["service"]["name"].as_str() {
        names.push(name.to_owned());
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| services(item, names)),
        Value::Object(fields) => fields.values().for_each(|field| services(field, names)),
        _ => {}
    }
}

/// The Service that a request goes to; empty for none.
fn service_of(routing: &Routing, method: &str, host: &str, path: &str) -> String {
    let found = routing.table.find(&Request {
        host: &request_host(host).unwrap(),
        path: &normalize(path).unwrap(),
        query: "",
        method: &Method::from_bytes(method.as_bytes()).unwrap(),
        headers: &HeaderMap::new(),
    });
    match found.and_then(|target| target.choose(0)) {
        None => String::new(),
        Some(Destination::Port(key)) => key.service.name.to_string(),
        Some(Destination::Broken(status)) => format!("answered with {status}"),
    }
}

#[test]
fn the_conformance_cases_hold() {
    let file: Value = serde_json::from_str(CASES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let ingress = file["ingresses"][text("feature")].clone();
        let routing = build(&objects(ingress), &Options::default());
        assert!(routing.problems.is_empty(), "{:?}", routing.problems);
        if text("feature") == "ingress_class" {
            // Nobody owns it: no status, and no routes.
            assert!(routing.served.is_empty() && routing.ignored.len() == 1);
            assert_eq!(service_of(&routing, "GET", "ingress-class", "/"), "");
            continue;
        }
        let service = service_of(&routing, text("method"), text("host"), text("path"));
        assert_eq!(
            service,
            text("service"),
            "{}: {}",
            text("id"),
            text("scenario")
        );
        assert_eq!(case["status"] == 404, service.is_empty(), "{}", text("id"));
        let covered = routing
            .certificates
            .iter()
            .any(|c| c.host.covers(text("host")));
        assert!(text("scheme") != "https" || covered, "{}", text("id"));
    }
}

#[test]
fn the_path_table_of_the_documentation_holds() {
    let rows = rows(PATHS);
    assert_eq!(rows.len(), 20);
    for row in rows {
        let [kind, rules, path, expected] = row[..] else {
            panic!("four columns: {row:?}");
        };
        let path_of = |(index, rule): (usize, &str)| {
            let (path, of_rule) = match rule.trim().split_once(" (") {
                Some((path, of_rule)) => (path, of_rule.trim_end_matches(')')),
                None => (rule.trim(), kind),
            };
            let backend =
                json!({"service": {"name": format!("s{index}"), "port": {"number": 8080}}});
            json!({"path": path, "pathType": of_rule, "backend": backend})
        };
        let paths: Vec<Value> = rules.split(" | ").enumerate().map(path_of).collect();
        let backend = json!({"service": {"name": "default", "port": {"number": 8080}}});
        let spec = json!({"rules": [{"http": {"paths": paths}}], "defaultBackend": backend});
        let routing = build(
            &objects(json!({"metadata": {"name": "i"}, "spec": spec})),
            &Options::default(),
        );
        let asked = match path {
            "(all paths)" => vec!["/", "/a", "/a/b/", "//"],
            path => vec![path],
        };
        for path in asked {
            let service = service_of(&routing, "GET", "a.com", path);
            let wanted = match expected {
                "yes" => 0,
                "yes: Exact preferred" => 1,
                no if no.starts_with("no") => usize::MAX,
                named => {
                    let named = named.strip_prefix("yes: ").unwrap();
                    rules.split(" | ").position(|rule| rule == named).unwrap()
                }
            };
            let wanted = match wanted {
                usize::MAX => "default".to_owned(),
                index => format!("s{index}"),
            };
            assert_eq!(service, wanted, "{row:?} {path}");
        }
    }
}

#[test]
fn the_host_table_holds() {
    let rows = rows(HOSTS);
    assert_eq!(rows.len(), 9);
    for row in rows {
        let text = |text: &'static str| match text.starts_with('(') {
            true => "",
            false => text,
        };
        let (rule, host) = (text(row[0]), text(row[1]));
        let backend = json!({"service": {"name": "s", "port": {"name": "http"}}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
        let spec = json!({"rules": [{"host": rule, "http": {"paths": [path]}}]});
        let routing = build(
            &objects(json!({"metadata": {"name": "i"}, "spec": spec})),
            &Options::default(),
        );
        let wanted = match row[2] {
            "yes" => "s",
            _ => "",
        };
        assert_eq!(service_of(&routing, "GET", host, "/"), wanted, "{row:?}");
        let covers = Host::parse(rule)
            .unwrap()
            .covers(&request_host(host).unwrap());
        assert_eq!(covers, row[2] == "yes", "{row:?}");
    }
}
