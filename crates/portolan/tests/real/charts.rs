//! The charts in deploy/helm: the manifests in deploy/ are what helm makes of them, and their values do what they say.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use serde_json::{Value, json};

/// Where scripts/setup.sh puts helm, which no package of Debian has.
const HELM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/helm/helm");
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

/// Each chart with the values of its manifest.
const CHARTS: [(&str, &[&str]); 3] = [
    (
        "portolan-proxy",
        &[
            "image=portolan:unreleased",
            "apiServer=https://192.168.0.1:6443",
        ],
    ),
    ("portolan-gateway", &["image=portolan:unreleased"]),
    (
        "portolan-names",
        &["image=portolan:unreleased", "clusterDNS={172.30.0.10}"],
    ),
];

fn there_is_helm() -> bool {
    let there = Path::new(HELM).exists();
    if !there {
        eprintln!("SKIPPED: there is no helm; scripts/setup.sh gets it where a registry has it");
    }
    there
}

fn objects(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    let mut objects: Vec<Value> = documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    objects
}

/// The objects of a manifest.
pub fn manifest(name: &str) -> Vec<Value> {
    let path = format!("{DEPLOY}/{name}.yaml");
    objects(&std::fs::read_to_string(path).unwrap())
}

/// What helm makes of a chart with these values besides those of its manifest, or why it does not.
fn chart(name: &str, more: &[&str]) -> Result<Vec<Value>, String> {
    let (_, values) = CHARTS.iter().find(|(chart, _)| *chart == name).unwrap();
    let values = values.iter().chain(more);
    let mut command = Command::new(HELM);
    command.args(["template", "portolan", &format!("{DEPLOY}/helm/{name}")]);
    let output = command.args(values.flat_map(|value| ["--set", value]));
    let output = output.output().unwrap();
    match output.status.success() {
        true => Ok(objects(&String::from_utf8(output.stdout).unwrap())),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn of<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = objects.iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn the_manifests_are_what_helm_makes_of_the_charts() {
    if !there_is_helm() {
        return;
    }
    for (name, _) in CHARTS {
        assert_eq!(chart(name, &[]).unwrap(), manifest(name), "{name}");
        let why = chart(name, &["image="]).unwrap_err();
        assert!(why.contains("name an image"), "{why}");
    }
}

#[test]
fn modes_get_what_they_need_and_no_more() {
    if !there_is_helm() {
        return;
    }
    let objects = chart("portolan-proxy", &["ebpf=true", "iptables=true"]).unwrap();
    let pod = &of(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    let capabilities =
        json!({"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW", "BPF", "PERFMON", "SYS_ADMIN"]});
    assert_eq!(context["capabilities"], capabilities);
    assert!(context["privileged"].is_null());
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let paths: Vec<_> = volumes
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect();
    let wanted = [
        "/run/xtables.lock",
        "/sys/fs/bpf",
        "/sys/fs/cgroup",
        "/run/netns",
    ];
    assert_eq!(paths, wanted);
    let bare = chart("portolan-proxy", &["init=false"]).unwrap();
    let text = serde_json::to_string(&bare).unwrap();
    assert!(!text.contains("\"privileged\":true"), "{text}");
}

#[test]
fn the_gateways_values_do_what_they_say() {
    if !there_is_helm() {
        return;
    }
    let values = [
        "daemonSet=true",
        "hostPorts=true",
        "ingressClass.name=nginx",
        "ingressClass.default=true",
        "statusAddresses={198.51.100.1,front.example}",
        "ingressNginxCompatible=true",
        "config.proxy-body-size=8m",
        "service.type=ClusterIP",
        "lameduckSeconds=20",
        "metricsPort=9100",
        "extraArgs={--threads=2}",
    ];
    let objects = chart("portolan-gateway", &values).unwrap();
    let pod = &of(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        container["command"],
        json!([
            "/portolan",
            "gateway",
            "--config-map=kube-system/portolan-gateway",
            "--ingress-class=nginx",
            "--metrics-address=[::]:9100",
            "--lameduck-seconds=20",
            "--status-address=198.51.100.1",
            "--status-address=front.example",
            "--ingress-nginx-compatible",
            "--threads=2"
        ])
    );
    let ports = container["ports"].as_array().unwrap().iter();
    let ports: Vec<_> = ports.map(|port| port["hostPort"].clone()).collect();
    assert_eq!(ports, [json!(80), json!(443), Value::Null]);
    assert_eq!(container["ports"][2]["containerPort"], 9100);
    assert!(pod["topologySpreadConstraints"].is_null());
    assert_eq!(of(&objects, "ConfigMap")["data"]["proxy-body-size"], "8m");
    assert!(of(&objects, "Service")["spec"]["externalTrafficPolicy"].is_null());
    let class = &of(&objects, "IngressClass")["metadata"];
    assert_eq!(class["name"], "nginx");
    assert_eq!(
        class["annotations"]["ingressclass.kubernetes.io/is-default-class"],
        "true"
    );
}

#[test]
fn names_are_answered_where_they_are_asked() {
    if !there_is_helm() {
        return;
    }
    let values = [
        "localAddress=",
        "clusterDNS={172.30.0.10,fd00:172:30::a}",
        "domain=example.internal",
    ];
    let objects = chart("portolan-names", &values).unwrap();
    let command = &of(&objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    let command = command["command"].to_string();
    assert!(
        command.contains("\"--node-local=172.30.0.10,fd00:172:30::a\""),
        "{command}"
    );
    let corefile = of(&objects, "ConfigMap")["data"]["Corefile"].to_string();
    assert!(corefile.contains("kubernetes example.internal in-addr.arpa"));
    let own = chart("portolan-names", &["corefile=.:53 { whoami }"]).unwrap();
    let corefile = &of(&own, "ConfigMap")["data"]["Corefile"];
    assert_eq!(corefile.as_str().unwrap().trim(), ".:53 { whoami }");
}
