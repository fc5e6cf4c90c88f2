//! Ingresses and their classes, with the real kubectl.

use crate::cluster::{Cluster, assert_has};

const CLASS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: ours
  annotations: {ingressclass.kubernetes.io/is-default-class: "true"}
spec: {controller: portolan.dev/gateway}
"#;

const WEB: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  tls: [{hosts: [a.com], secretName: cert}]
  defaultBackend: {service: {name: rest, port: {name: http}}}
  rules:
    - host: a.com
      http:
        paths:
          - {path: /shop, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}
          - {path: /bucket, pathType: Exact, backend: {resource: {kind: Bucket, name: b}}}
    - host: "*.b.com"
"#;

#[test]
fn kubectl_knows_ingresses() {
    let cluster = Cluster::start();
    let kubectl = |arguments: &[&str]| cluster.kubectl(arguments);
    cluster.kubectl_with(&["apply", "-f", "-"], CLASS);
    cluster.kubectl_with(&["apply", "-f", "-"], WEB);
    let classes = kubectl(&["get", "ingressclass"]);
    assert_has(&classes, "CONTROLLER");
    assert_has(&classes, "portolan.dev/gateway   <none>");
    let table = kubectl(&["get", "ing"]);
    let cells: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(cells[..5], ["web", "ours", "a.com,*.b.com", "80,", "443"]);
    let described = kubectl(&["describe", "ingress", "web"]);
    for part in [
        "Ingress Class:    ours",
        "rest:http",
        "cert terminates a.com",
        "/shop     shop:80",
        "Kind: Bucket, Name: b",
    ] {
        assert_has(&described, part);
    }
    assert_has(
        &kubectl(&["describe", "ingressclass", "ours"]),
        "Controller:   portolan.dev/gateway",
    );
    assert_has(
        &kubectl(&["explain", "ingress.spec.tls.secretName"]),
        "secretName",
    );
    let status = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.1"}]}}}"#;
    kubectl(&[
        "patch",
        "ingress",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    assert_has(&kubectl(&["get", "ing", "web"]), "198.51.100.1");
    assert_has(
        &cluster.kubectl_with(&["apply", "-f", "-"], &WEB.replace("/shop", "/store")),
        "configured",
    );
    let status = kubectl(&[
        "get",
        "ing",
        "web",
        "-o",
        "jsonpath={.status.loadBalancer.ingress[0].ip} {.metadata.generation}",
    ]);
    assert_eq!(status, "198.51.100.1 2");
}

/// `kubectl create` speaks protobuf.
#[test]
fn kubectl_creates_ingresses() {
    let cluster = Cluster::start();
    let rule = "--rule=a.com/foo*=web:http,tls=cert";
    cluster.kubectl(&[
        "create",
        "ingress",
        "made",
        "--class=theirs",
        rule,
        "--default-backend=rest:8080",
    ]);
    let path = "jsonpath={.spec.ingressClassName} {.spec.defaultBackend.service.port.number} {.spec.tls[0].secretName} \
                {.spec.rules[0].host} {.spec.rules[0].http.paths[0].pathType} {.spec.rules[0].http.paths[0].path} \
                {.spec.rules[0].http.paths[0].backend.service.port.name}";
    let stored = cluster.kubectl(&["get", "ingress", "made", "-o", path]);
    assert_eq!(stored, "theirs 8080 cert a.com Prefix /foo http");
    cluster.kubectl(&["create", "ingress", "plain", rule]);
    let class = cluster.kubectl(&[
        "get",
        "ingress",
        "plain",
        "-o",
        "jsonpath={.spec.ingressClassName}",
    ]);
    assert_eq!(class, "", "no class is marked as default");
}

#[test]
fn mistakes_are_told_in_the_known_words() {
    let cluster = Cluster::start();
    let refused = |text: &str| cluster.refused(&["create", "-f", "-"], text);
    assert_has(
        &refused(&WEB.replace("path: /shop", "path: shop")),
        "The Ingress \"web\" is invalid: spec.rules[0].http.paths[0].path: Invalid value: \"shop\": must be an absolute path",
    );
    assert_has(
        &refused(&WEB.replace("pathType: Prefix, ", "")),
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
    );
    assert_has(
        &refused(&WEB.replace("pathType: Prefix", "pathtype: Prefix")),
        "unknown field \"spec.rules[0].http.paths[0].pathtype\"",
    );
    cluster.kubectl_with(&["apply", "-f", "-"], CLASS);
    let other = CLASS.replace("portolan.dev/gateway", "example.com/other");
    assert_has(
        &cluster.refused(&["apply", "-f", "-"], &other),
        "spec.controller: Invalid value: \"example.com/other\": field is immutable",
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert}\ntype: kubernetes.io/tls\ndata: {tls.crt: eA==}\n";
    assert_has(
        &refused(secret),
        "The Secret \"cert\" is invalid: data[tls.key]: Required value",
    );
}
