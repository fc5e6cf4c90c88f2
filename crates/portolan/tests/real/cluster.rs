//! On a cluster: what deploy/ says, what its role allows, and a service account instead of a kubeconfig.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use portolan_apiserver::auth::Identity;
use portolan_apiserver::{Config, KubernetesService, start};
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{Links, isolated, mount};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::node::until;

/// Where the kubelet puts the account of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// `kubeconfig.conf` of kubeadm's ConfigMap.
const KUBEADM: &str = "apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: SERVER
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
";

/// The objects of the manifest.
fn manifest() -> Vec<Value> {
    let text = include_str!("../../../../deploy/portolan-proxy.yaml");
    let documents = serde_norway::Deserializer::from_str(text);
    documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn object(kind: &str) -> Value {
    let found = manifest().into_iter().find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in deploy/portolan-proxy.yaml"))
}

/// Where scripts/setup.sh puts helm, which no package of Debian has.
const HELM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/helm/helm");
const CHART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../deploy/helm/portolan-proxy"
);

/// The objects that helm makes of the chart with these values.
fn chart(values: &[&str]) -> Vec<Value> {
    let mut command = Command::new(HELM);
    command.args(["template", "portolan", CHART]);
    let values = values.iter().flat_map(|value| ["--set", value]);
    let output = command.args(values).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let documents = serde_norway::Deserializer::from_slice(&output.stdout);
    let mut objects: Vec<Value> = documents
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    objects.sort_by_key(|object| object["kind"].to_string());
    objects
}

#[test]
fn the_manifest_is_what_helm_makes_of_the_chart() {
    if !Path::new(HELM).exists() {
        eprintln!("SKIPPED: there is no helm; scripts/setup.sh gets it where a registry has it");
        return;
    }
    let values = [
        "image=portolan:unreleased",
        "apiServer=https://192.168.0.1:6443",
    ];
    let mut wanted = manifest();
    wanted.sort_by_key(|object| object["kind"].to_string());
    assert_eq!(chart(&values), wanted);

    // Other modes get what they need, and nobody gets all privileges but the settings of the start.
    let modes = [&values[..], &["ebpf=true", "iptables=true"]].concat();
    let objects = chart(&modes);
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet");
    let pod = &set.unwrap()["spec"]["template"]["spec"];
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
    let bare = [&values[..], &["init=false"]].concat();
    let text = serde_json::to_string(&chart(&bare)).unwrap();
    assert!(!text.contains("\"privileged\":true"), "{text}");
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The proxy as a pod has it: without a kubeconfig, and with these variables.
fn proxy(home: &Path, arguments: &[&str], variables: &[(&str, String)]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .args(["proxy", "--hostname-override=n1"])
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", home)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(home.join("proxy.log")).unwrap())
        .die_with_parent(Signal::SIGKILL);
    Running(command.spawn().unwrap())
}

#[test]
fn the_commands_of_the_daemon_set_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.conf");
    let text = &object("ConfigMap")["data"]["config.conf"];
    std::fs::write(&file, text.as_str().unwrap()).unwrap();
    let pod = &object("DaemonSet")["spec"]["template"]["spec"];
    let containers = ["initContainers", "containers"].map(|kind| pod[kind].as_array().unwrap());
    let containers: Vec<&Value> = containers.into_iter().flatten().collect();
    assert_eq!(containers.len(), 2);
    for container in containers {
        let words = container["command"].as_array().unwrap();
        let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
        assert_eq!(words[..2], ["/portolan", "proxy"]);
        let mounted = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        let here = |word: &&str| {
            let word = word.replace(mounted, &dir.path().display().to_string());
            word.replace("$(NODE_NAME)", "n1")
        };
        let written = dir.path().join("written");
        let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(words[1..].iter().map(here))
            .arg(format!("--write-config-to={}", written.display()))
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && written.exists(), "{log}");
        assert!(!log.contains("has no effect"), "{log}");
        std::fs::remove_file(written).unwrap();
    }
}

#[test]
fn a_service_account_is_enough() {
    isolated!(a_service_account_is_enough, {
        Links::here().unwrap().up("lo").unwrap();
        // The directories of the machine stay as they are: /var/run leads here.
        mount::tmpfs(Path::new("/run")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let user = Identity {
            user: "system:serviceaccount:kube-system:portolan-proxy".into(),
            groups: Vec::new(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config = Config {
            data_dir: dir.path().join("data"),
            listeners: vec![listener],
            names_and_addresses: Vec::new(),
            kubelet_dir: None,
            admission: Vec::new(),
            kubernetes_service: Some(KubernetesService {
                cluster_ip: "172.30.0.1".parse().unwrap(),
                endpoint: at.ip(),
                port: at.port(),
            }),
            tokens: vec![("pod's own".into(), user)],
        };
        let _server = runtime.block_on(start(config)).unwrap();
        std::fs::create_dir_all(ACCOUNT).unwrap();
        let account = Path::new(ACCOUNT);
        std::fs::copy(dir.path().join("data/ca.crt"), account.join("ca.crt")).unwrap();
        std::fs::write(account.join("token"), "pod's own").unwrap();
        std::fs::write(account.join("namespace"), "kube-system").unwrap();

        let stands = || {
            let output = Command::new("nft").args(["list", "ruleset"]).output();
            String::from_utf8_lossy(&output.unwrap().stdout).contains("172.30.0.1")
        };
        let own = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", at.port().to_string()),
        ];
        let running = proxy(dir.path(), &[], &own);
        until("the API's own Service stands", stands);
        drop(running);

        // The Service of the API may not work yet: --master names a place that does.
        let output = Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(output.unwrap().success() && !stands());
        let nowhere = [
            ("KUBERNETES_SERVICE_HOST", "172.30.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", "443".to_owned()),
        ];
        let running = proxy(dir.path(), &[&format!("--master=https://{at}")], &nowhere);
        until("the API's own Service stands", stands);
        drop(running);

        // kubeadm says both in a file.
        let output = Command::new("nft").args(["flush", "ruleset"]).status();
        assert!(output.unwrap().success() && !stands());
        let file = dir.path().join("kubeconfig.conf");
        std::fs::write(&file, KUBEADM.replace("SERVER", &format!("https://{at}"))).unwrap();
        let kubeconfig = format!("--kubeconfig={}", file.display());
        let _running = proxy(dir.path(), &[&kubeconfig], &[]);
        until("the API's own Service stands", stands);
    });
}

/// What was asked for: verb, API group, resource.
type Asked = Arc<Mutex<BTreeSet<[String; 3]>>>;

/// An API that has one Service, about which there is something to tell.
fn serve(stream: TcpStream, asked: &Asked) -> std::io::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
        "spec": {"clusterIP": "172.30.0.80", "externalIPs": ["nowhere"], "ports": [{"port": 80, "protocol": "TCP"}]},
    });
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line)? > 2 {
            if let Some(number) = line.to_lowercase().strip_prefix("content-length:") {
                length = number.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let words: Vec<&str> = first.split_whitespace().collect();
        let (path, query) = words[1].split_once('?').unwrap_or((words[1], ""));
        let what = request(words[0], path, query);
        asked.lock().unwrap().insert(what.clone());
        let list = |items: Value| json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}, "items": items});
        let (status, answer) = match (what[0].as_str(), what[2].as_str()) {
            // The first one asks for a list in it: this API is an old one.
            ("watch", _) if query.contains("sendInitialEvents") => (
                422,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid", "message": "old"}),
            ),
            ("watch", _) => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.get_mut().write_all(head.as_bytes())?;
                // Until the client goes.
                return stream.read(&mut [0]).map(drop);
            }
            ("list", "services") => (200, list(json!([service]))),
            ("list", _) => (200, list(json!([]))),
            ("get", "services") => (200, service.clone()),
            ("create", _) => (201, serde_json::from_slice(&body).unwrap()),
            _ => (404, json!({})),
        };
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 {status} Words\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        stream.get_mut().write_all(head.as_bytes())?;
        stream.get_mut().write_all(answer.as_bytes())?;
    }
}

/// As the authorizer of Kubernetes sees a request.
fn request(method: &str, path: &str, query: &str) -> [String; 3] {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let group = match parts[0] {
        "api" => "",
        _ => parts.remove(1),
    };
    // api, version, perhaps namespaces and one of them, resource, perhaps a name.
    let rest = match parts[2..] {
        ["namespaces", _, ..] if parts.len() > 4 => &parts[4..],
        _ => &parts[2..],
    };
    let verb = match (method, rest.len(), query.contains("watch=")) {
        ("GET", 1, true) => "watch",
        ("GET", 1, false) => "list",
        ("GET", ..) => "get",
        ("POST", ..) => "create",
        ("PATCH", ..) => "patch",
        (other, ..) => other,
    };
    [verb, group, rest[0]].map(String::from)
}

#[test]
fn the_role_allows_what_the_proxy_asks_for() {
    isolated!(the_role_allows_what_the_proxy_asks_for, {
        Links::here().unwrap().up("lo").unwrap();
        let asked = Asked::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("--master=http://{}", listener.local_addr().unwrap());
        let record = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let record = Arc::clone(&record);
                std::thread::spawn(move || serve(stream.unwrap(), &record));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let running = proxy(dir.path(), &[&url], &[]);
        let told = |verb: &str, group: &str, resource: &str| {
            let what = [verb, group, resource].map(String::from);
            asked.lock().unwrap().contains(&what)
        };
        until("an Event", || told("create", "", "events"));
        until("nodes are watched", || told("watch", "", "nodes"));
        until("slices are watched", || {
            told("watch", "discovery.k8s.io", "endpointslices")
        });
        drop(running);
        let rules = object("ClusterRole")["rules"].as_array().unwrap().clone();
        let has = |list: &Value, word: &String| list.as_array().unwrap().iter().any(|w| w == word);
        for [verb, group, resource] in asked.lock().unwrap().iter() {
            let allowed = rules.iter().any(|rule| {
                has(&rule["verbs"], verb)
                    && has(&rule["apiGroups"], group)
                    && has(&rule["resources"], resource)
            });
            assert!(allowed, "{verb} {resource} of {group:?} is not allowed");
        }
    });
}
