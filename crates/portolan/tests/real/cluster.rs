//! On a cluster: what deploy/ says, what its role allows, and a service account instead of a kubeconfig.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portolan_apiserver::auth::Identity;
use portolan_apiserver::{Config, KubernetesService, Server, start};
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{Links, isolated, mount};
use serde_json::{Value, json};

use crate::charts::manifest;
use crate::node::{PATIENCE, pause, until, until_or};

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

fn object(kind: &str) -> Value {
    object_of("portolan-proxy", kind)
}

fn object_of(name: &str, kind: &str) -> Value {
    let found = manifest(name)
        .into_iter()
        .find(|object| object["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in deploy/{name}.yaml"))
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
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let data = dir.path().join("data");
        let _server = runtime.block_on(api_with(&data, &listener, "pod's own", "127.0.0.1"));
        let _server = _server.unwrap();
        account(&data, "pod's own");
        let stands = || rules_have("172.30.0.1");
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

/// The kubelet writes another token into the file now and then, and the API does not know the old one any more.
#[test]
fn a_token_that_is_exchanged_is_read_anew() {
    isolated!(a_token_that_is_exchanged_is_read_anew, {
        Links::here().unwrap().up("lo").unwrap();
        mount::tmpfs(Path::new("/run")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let data = dir.path().join("data");
        let runtime = || tokio::runtime::Runtime::new().unwrap();
        let first = runtime();
        let server = first.block_on(api_with(&data, &listener, "the first", "192.168.0.11"));
        let server = server.unwrap();
        account(&data, "the first");
        let own = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
            ("KUBERNETES_SERVICE_PORT", at.port().to_string()),
        ];
        let _running = proxy(dir.path(), &[], &own);
        until("the API's own endpoint stands", || {
            rules_have("192.168.0.11")
        });

        // The same one, with another token and another endpoint, as soon as its store is free.
        drop((server, first));
        let second = runtime();
        let mut server = None;
        until("the API is back", || {
            let again = api_with(&data, &listener, "the second", "192.168.0.12");
            server = second.block_on(again).ok();
            server.is_some()
        });
        account(&data, "the second");
        let log = || std::fs::read_to_string(dir.path().join("proxy.log")).unwrap();
        // The old token is refused meanwhile: the file is read anew 50 s after it was read.
        let began = Instant::now();
        while !rules_have("192.168.0.12") {
            assert!(began.elapsed() < 2 * PATIENCE, "{}", log());
            pause(Duration::from_millis(100));
        }
    });
}

/// An API that knows this token and has its own Service with this endpoint.
async fn api_with(
    data: &Path,
    listener: &TcpListener,
    token: &str,
    endpoint: &str,
) -> Result<Server, portolan_apiserver::Error> {
    let user = Identity {
        user: "system:serviceaccount:kube-system:portolan-proxy".into(),
        groups: Vec::new(),
    };
    let at = listener.local_addr().unwrap();
    let config = Config {
        data_dir: data.into(),
        listeners: vec![listener.try_clone().unwrap()],
        names_and_addresses: Vec::new(),
        kubelet_dir: None,
        admission: Vec::new(),
        kubernetes_service: Some(KubernetesService {
            cluster_ip: "172.30.0.1".parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
            port: at.port(),
        }),
        tokens: vec![(token.into(), user)],
    };
    start(config).await
}

/// What the kubelet gives a pod.
fn account(data: &Path, token: &str) {
    std::fs::create_dir_all(ACCOUNT).unwrap();
    let account = Path::new(ACCOUNT);
    std::fs::copy(data.join("ca.crt"), account.join("ca.crt")).unwrap();
    std::fs::write(account.join("token"), token).unwrap();
    std::fs::write(account.join("namespace"), "kube-system").unwrap();
}

fn rules_have(address: &str) -> bool {
    let output = Command::new("nft").args(["list", "ruleset"]).output();
    String::from_utf8_lossy(&output.unwrap().stdout).contains(address)
}

/// What was asked for: verb, API group, resource.
type Asked = Arc<Mutex<BTreeSet<[String; 3]>>>;

/// One Service, about which there is something to tell.
fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
        "spec": {"clusterIP": "172.30.0.80", "externalIPs": ["nowhere"], "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}

/// An API that has these objects, one of a resource.
fn serve(
    stream: TcpStream,
    asked: &Asked,
    objects: &[(&'static str, Value)],
) -> std::io::Result<()> {
    let has = |resource: &str| {
        let of = |(name, object): &(&str, Value)| (*name == resource).then(|| object.clone());
        objects.iter().find_map(of)
    };
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
            ("list", resource) => (200, list(has(resource).into_iter().collect())),
            ("create", _) => (201, serde_json::from_slice(&body).unwrap()),
            ("get" | "patch", resource) => {
                let resource = resource.split('/').next().unwrap_or_default();
                has(resource).map_or((404, json!({})), |object| (200, object))
            }
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
    let resource = match rest {
        [resource, _, part] => format!("{resource}/{part}"),
        _ => rest[0].to_owned(),
    };
    [verb.to_owned(), group.to_owned(), resource]
}

/// Where an API with these objects is, and what it is asked for.
fn api(objects: Vec<(&'static str, Value)>) -> (String, Asked) {
    let asked = Asked::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--master=http://{}", listener.local_addr().unwrap());
    let record = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (record, objects) = (Arc::clone(&record), objects.clone());
            std::thread::spawn(move || serve(stream.unwrap(), &record, &objects));
        }
    });
    (url, asked)
}

fn was_asked(asked: &Asked, verb: &str, group: &str, resource: &str) -> bool {
    let what = [verb, group, resource].map(String::from);
    asked.lock().unwrap().contains(&what)
}

/// That the roles of a manifest allow everything that was asked for.
fn assert_allowed(asked: &Asked, roles: &[Value]) {
    let rules = roles
        .iter()
        .flat_map(|role| role["rules"].as_array().unwrap());
    let rules: Vec<&Value> = rules.collect();
    let has = |list: &Value, word: &String| list.as_array().unwrap().iter().any(|w| w == word);
    for [verb, group, resource] in asked.lock().unwrap().iter() {
        let allowed = rules.iter().any(|rule| {
            has(&rule["verbs"], verb)
                && has(&rule["apiGroups"], group)
                && has(&rule["resources"], resource)
        });
        assert!(allowed, "{verb} {resource} of {group:?} is not allowed");
    }
}

#[test]
fn the_role_allows_what_the_proxy_asks_for() {
    isolated!(the_role_allows_what_the_proxy_asks_for, {
        Links::here().unwrap().up("lo").unwrap();
        let (url, asked) = api(vec![("services", service())]);
        let dir = tempfile::tempdir().unwrap();
        let running = proxy(dir.path(), &[&url], &[]);
        let told = |verb, group, resource| was_asked(&asked, verb, group, resource);
        until("an Event", || told("create", "", "events"));
        until("nodes are watched", || told("watch", "", "nodes"));
        until("slices are watched", || {
            told("watch", "discovery.k8s.io", "endpointslices")
        });
        drop(running);
        assert_allowed(&asked, &[object("ClusterRole")]);
    });
}

/// As the pod of the manifest has it: another user, no capability, and ports that anybody may take.
#[test]
fn the_role_allows_what_the_gateway_asks_for_and_it_needs_no_privilege() {
    isolated!(
        the_role_allows_what_the_gateway_asks_for_and_it_needs_no_privilege,
        {
            Links::here().unwrap().up("lo").unwrap();
            let backend = json!({"service": {"name": "nobody", "port": {"number": 80}}});
            let ingress = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
                "spec": {"ingressClassName": "portolan", "defaultBackend": backend},
            });
            let class = object_of("portolan-gateway", "IngressClass");
            let (url, asked) = api(vec![("ingresses", ingress), ("ingressclasses", class)]);
            let pod = &object_of("portolan-gateway", "Deployment")["spec"]["template"]["spec"];
            let sysctl = &pod["securityContext"]["sysctls"][0];
            assert_eq!(sysctl["name"], "net.ipv4.ip_unprivileged_port_start");
            let (path, value) = (
                "/proc/sys/net/ipv4/ip_unprivileged_port_start",
                sysctl["value"].as_str().unwrap(),
            );
            std::fs::write(path, value).unwrap();

            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("portolan");
            std::fs::copy(env!("CARGO_BIN_EXE_portolan"), &program).unwrap();
            let open = PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(dir.path(), open).unwrap();
            let words = pod["containers"][0]["command"].as_array().unwrap();
            let words = words.iter().skip(1).map(|word| word.as_str().unwrap());
            let log = std::fs::File::create(dir.path().join("log")).unwrap();
            let mut command = Command::new(&program);
            command
                .args(words)
                .args([&url, "--status-address=198.51.100.1"])
                .env_remove("KUBECONFIG")
                .env("HOME", "/")
                .stderr(log)
                .die_with_parent(Signal::SIGKILL);
            let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
            // Without privileges of our own there is nothing to give up, and nobody else to become.
            let is_root = std::fs::read_to_string("/proc/self/uid_map")
                .unwrap()
                .contains("4294967295");
            if is_root {
                command.uid(user as u32).gid(user as u32);
            }
            let running = Running(command.spawn().unwrap());
            let said = || std::fs::read_to_string(dir.path().join("log")).unwrap();
            until_or(
                || was_asked(&asked, "patch", "networking.k8s.io", "ingresses/status"),
                || format!("a status was written: {}", said()),
            );
            until_or(
                || was_asked(&asked, "create", "", "events"),
                || format!("an Event: {}", said()),
            );
            for port in [80, 443, 10254] {
                until_or(
                    || TcpStream::connect(("127.0.0.1", port)).is_ok(),
                    || format!("it serves at {port}: {}", said()),
                );
            }
            if is_root {
                let status = format!("/proc/{}/status", running.0.id());
                let status = std::fs::read_to_string(status).unwrap();
                assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
            }
            drop(running);
            assert!(was_asked(&asked, "watch", "", "configmaps"));
            assert_allowed(
                &asked,
                &[
                    object_of("portolan-gateway", "ClusterRole"),
                    object_of("portolan-gateway", "Role"),
                ],
            );
        }
    );
}
