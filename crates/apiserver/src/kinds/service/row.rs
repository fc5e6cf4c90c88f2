//! The columns of `kubectl get services`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::read::{age, items, labels, name, number, text, text_or};

/// The cells of one Service.
pub fn row(service: &Value, now: i64) -> Vec<Value> {
    let spec = &service["spec"];
    let cluster_ip = items(&spec["clusterIPs"])
        .first()
        .map_or("<none>", |ip| text_or(ip, "<none>"));
    vec![
        name(service),
        json!(text(&spec["type"])),
        json!(cluster_ip),
        json!(external_ips(service)),
        json!(ports(spec)),
        age(service, now),
        json!(labels(&spec["selector"])),
    ]
}

fn external_ips(service: &Value) -> String {
    let spec = &service["spec"];
    let given = items(&spec["externalIPs"]).iter().map(text);
    let all: Vec<&str> = match text(&spec["type"]) {
        "ExternalName" => return text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let ingress: BTreeSet<&str> = items(&service["status"]["loadBalancer"]["ingress"])
                .iter()
                .map(|ingress| text_or(&ingress["ip"], text(&ingress["hostname"])))
                .filter(|address| !address.is_empty())
                .collect();
            ingress.into_iter().chain(given).collect()
        }
        _ => given.collect(),
    };
    match (all.is_empty(), text(&spec["type"])) {
        (false, _) => all.join(","),
        (true, "LoadBalancer") => "<pending>".to_owned(),
        (true, _) => "<none>".to_owned(),
    }
}

fn ports(spec: &Value) -> String {
    let ports: Vec<String> = items(&spec["ports"])
        .iter()
        .map(|port| match number(&port["nodePort"]) {
            0 => format!("{}/{}", port["port"], text(&port["protocol"])),
            node_port => format!("{}:{node_port}/{}", port["port"], text(&port["protocol"])),
        })
        .collect();
    if ports.is_empty() {
        "<none>".to_owned()
    } else {
        ports.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(spec: Value, status: Value) -> String {
        let service = json!({"metadata": {"name": "s", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": spec, "status": status});
        row(&service, 90)
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn rows_are_those_of_kubectl() {
        let port = json!([{"port": 80, "protocol": "TCP"}]);
        let two = json!([{"port": 80, "protocol": "TCP", "nodePort": 30080},
            {"port": 53, "protocol": "UDP", "nodePort": 30053}]);
        let cases = [
            (
                json!({"type": "ClusterIP", "clusterIPs": ["172.30.0.7"], "ports": port, "selector": {"b": "2", "a": "1"}}),
                json!({}),
                "s ClusterIP 172.30.0.7 <none> 80/TCP 90s a=1,b=2",
            ),
            (
                json!({"type": "ClusterIP", "clusterIPs": ["None"]}),
                json!({}),
                "s ClusterIP None <none> <none> 90s <none>",
            ),
            (
                json!({"type": "NodePort", "clusterIPs": ["172.30.0.7"], "ports": two, "externalIPs": ["203.0.113.9"]}),
                json!({}),
                "s NodePort 172.30.0.7 203.0.113.9 80:30080/TCP,53:30053/UDP 90s <none>",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIPs": ["172.30.0.7"], "ports": port}),
                json!({"loadBalancer": {}}),
                "s LoadBalancer 172.30.0.7 <pending> 80/TCP 90s <none>",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIPs": ["172.30.0.7"], "ports": port, "externalIPs": ["203.0.113.9"]}),
                json!({"loadBalancer": {"ingress": [{"hostname": "lb.example"}, {"ip": "198.51.100.1"}]}}),
                "s LoadBalancer 172.30.0.7 198.51.100.1,lb.example,203.0.113.9 80/TCP 90s <none>",
            ),
            (
                json!({"type": "ExternalName", "externalName": "db.example"}),
                json!({}),
                "s ExternalName <none> db.example <none> 90s <none>",
            ),
        ];
        for (spec, status, expected) in cases {
            assert_eq!(cells(spec, status), expected);
        }
    }
}
