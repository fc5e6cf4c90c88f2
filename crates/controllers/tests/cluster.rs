//! The controllers against the real embedded API server, driven by kubectl; a fake agent stands for the nodes.

#![allow(clippy::unwrap_used)] // A cluster that cannot be made is a failed test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use portolan_apiserver::{Config, Server};
use portolan_controllers::{Options, run};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;

/// Nothing here takes longer on any machine that is not broken.
const DEADLINE: Duration = Duration::from_secs(60);

struct Cluster {
    dir: tempfile::TempDir,
    port: u16,
    server: Option<Server>,
    tasks: JoinSet<()>,
}

impl Cluster {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Cluster {
            dir,
            port: 0,
            server: None,
            tasks: JoinSet::new(),
        };
        cluster.start_server().await;
        let kubeconfig = cluster.kubeconfig();
        let client = portolan_k8s::client(Some(&kubeconfig)).await.unwrap();
        cluster.tasks.spawn(run(client.clone(), Options::default()));
        cluster.tasks.spawn(agent(client));
        cluster
    }

    async fn start_server(&mut self) {
        let start = Instant::now();
        let server = loop {
            // The store of a server that was stopped closes with its last request.
            match self.try_start().await {
                Ok(server) => break server,
                Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let url = format!("https://127.0.0.1:{}", self.port);
        let text = server
            .kubeconfig(&url, "admin", &["system:masters"])
            .unwrap();
        std::fs::write(self.kubeconfig(), text).unwrap();
        self.server = Some(server);
    }

    async fn try_start(&mut self) -> Result<Server, portolan_apiserver::Error> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        self.port = listener.local_addr().unwrap().port();
        let config = Config {
            data_dir: self.dir.path().join("data"),
            listeners: vec![listener],
            names_and_addresses: Vec::new(),
            kubelet_dir: None,
            admission: Vec::new(),
            kubernetes_service: None,
            tokens: Vec::new(),
        };
        portolan_apiserver::start(config).await
    }

    async fn restart_server(&mut self) {
        let server = self.server.take().unwrap();
        server.shutdown();
        server.wait().await;
        self.start_server().await;
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    async fn kubectl(&self, line: &str) -> String {
        kubectl(&self.kubeconfig(), line).await
    }

    async fn apply(&self, object: Value) {
        let file = self.dir.path().join("object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&format!("apply -f {}", file.display())).await;
    }

    /// Ready addresses of all slices of a Service.
    async fn ready(&self, service: &str) -> Vec<String> {
        let line = format!("get endpointslices -l kubernetes.io/service-name={service} -o json");
        let list: Value = serde_json::from_str(&self.kubectl(&line).await).unwrap();
        let endpoints = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        ready
            .map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_string())
            .collect()
    }

    async fn until_ready(&self, service: &str, count: usize) {
        let start = Instant::now();
        loop {
            let ready = self.ready(service).await;
            if ready.len() == count {
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "{count} endpoints of {service} are wanted, there are {ready:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn kubectl(kubeconfig: &Path, line: &str) -> String {
    let words = line.split_whitespace();
    let output = Command::new("kubectl")
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .args(words)
        .output()
        .await
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success(), "kubectl {line}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Two nodes that run every pod at once and end it at once.
async fn agent(client: Client) {
    let (nodes, leases): (Api<Node>, Api<Lease>) = (
        Api::all(client.clone()),
        Api::namespaced(client.clone(), "kube-node-lease"),
    );
    let mut next = 0;
    loop {
        for name in ["n1", "n2"] {
            let mut node = Node::default();
            node.metadata.name = Some(name.into());
            let _ = nodes.create(&PostParams::default(), &node).await;
            let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            let _ = nodes
                .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
                .await;
            let mut lease = Lease::default();
            lease.metadata.name = Some(name.into());
            let _ = leases.create(&PostParams::default(), &lease).await;
        }
        let all: Api<Pod> = Api::all(client.clone());
        for pod in all
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default()
        {
            let name = pod.metadata.name.clone().unwrap();
            let api: Api<Pod> =
                Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
            if pod.metadata.deletion_timestamp.is_some() {
                let now = DeleteParams {
                    grace_period_seconds: Some(0),
                    ..DeleteParams::default()
                };
                let _ = api.delete(&name, &now).await;
                continue;
            }
            let bound = pod.spec.as_ref().unwrap().node_name.is_some();
            let running = pod
                .status
                .as_ref()
                .is_some_and(|status| status.pod_ip.is_some());
            if bound && !running {
                next += 1;
                let ip = format!("10.1.{}.{}", next / 250, next % 250 + 1);
                let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
                let _ = api
                    .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
                    .await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn deployment(replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "containers": [{"name": "web", "image": "one", "ports": [{"name": "http", "containerPort": 8080}]}]}}}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_lives_its_life() {
    let mut cluster = Cluster::start().await;
    cluster.apply(deployment(3)).await;
    cluster
        .apply(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
            "clusterIP": "172.30.0.9", "clusterIPs": ["172.30.0.9"], "ipFamilies": ["IPv4"],
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        )
        .await;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")
        .await;
    cluster.until_ready("web", 3).await;
    let nodes = cluster
        .kubectl("get pods -o jsonpath={.items[*].spec.nodeName}")
        .await;
    assert!(nodes.contains("n1") && nodes.contains("n2"), "{nodes}");

    cluster.restart_server().await;
    cluster.kubectl("scale deployment/web --replicas=5").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")
        .await;
    cluster.until_ready("web", 5).await;

    cluster.kubectl("set image deployment/web web=two").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")
        .await;
    let history = cluster.kubectl("rollout history deployment/web").await;
    assert!(
        history.contains("\n1 ") && history.contains("\n2 "),
        "{history}"
    );
    let sets = cluster
        .kubectl("get rs -o jsonpath={.items[*].spec.replicas}")
        .await;
    assert!(matches!(sets.trim(), "0 5" | "5 0"), "{sets}");

    cluster.kubectl("rollout undo deployment/web").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")
        .await;
    let image = cluster
        .kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}")
        .await;
    assert_eq!(image, "one");
    let history = cluster.kubectl("rollout history deployment/web").await;
    assert!(
        !history.contains("\n1 ") && history.contains("\n3 "),
        "{history}"
    );
    cluster.kubectl("rollout restart deployment/web").await;
    cluster
        .kubectl("rollout status deployment/web --timeout=60s")
        .await;
    cluster.until_ready("web", 5).await;

    let events = cluster.kubectl("get events").await;
    for reason in [
        "ScalingReplicaSet",
        "SuccessfulCreate",
        "SuccessfulDelete",
        "Scheduled",
    ] {
        assert!(events.contains(reason), "no Event {reason} in\n{events}");
    }
    cluster.kubectl("delete deployment web").await;
    cluster.until_ready("web", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_written_by_hand_become_slices() {
    let cluster = Cluster::start().await;
    cluster
        .apply(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {
            "clusterIP": "172.30.0.9", "clusterIPs": ["172.30.0.9"], "ipFamilies": ["IPv4"], "ports": [{"port": 5432}]}}))
        .await;
    cluster
        .apply(
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "db"}, "subsets": [
            {"addresses": [{"ip": "203.0.113.9"}], "ports": [{"port": 5432}]}]}),
        )
        .await;
    cluster.until_ready("db", 1).await;
    cluster.kubectl("delete service db").await;
    cluster.until_ready("db", 0).await;
}
