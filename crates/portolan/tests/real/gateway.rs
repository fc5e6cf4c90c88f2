//! `portolan gateway` with the API: the cases of ingress-controller-conformance, and what changes while it serves.

mod life;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::{Links, isolated};
use serde_json::{Value, json};

use crate::node::until_or;
use crate::server::Server;

/// From kubernetes-sigs/ingress-controller-conformance.
const CASES: &str = include_str!("../../../gateway/tests/cases/conformance-cases.json");
/// Where the gateway serves.
pub const ADDRESS: &str = "198.51.100.1";
/// Where all endpoints are; each has a port of its own.
pub const POD: &str = "10.1.0.2";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn portolan(arguments: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Running(command.die_with_parent(Signal::SIGKILL).spawn().unwrap())
}

/// A network namespace with an API, the gateway and endpoints.
pub struct World {
    pub server: Server,
    running: Vec<Running>,
    next_port: u16,
}

impl World {
    pub fn new() -> World {
        let mut world = World::without_gateway();
        let kubeconfig = world.server.kubeconfig();
        let (http, https) = (format!("{ADDRESS}:80"), format!("{ADDRESS}:443"));
        world.running.push(portolan(&[
            "gateway",
            "--kubeconfig",
            kubeconfig.to_str().unwrap(),
            "--http",
            &http,
            "--https",
            &https,
            "--http3",
            "--status-address",
            ADDRESS,
            "--threads",
            "2",
        ]));
        world
    }

    fn without_gateway() -> World {
        let mut links = Links::here().unwrap();
        links.up("lo").unwrap();
        for address in [ADDRESS, POD] {
            links
                .add_address("lo", format!("{address}/32").parse().unwrap())
                .unwrap();
        }
        let server = Server::start();
        server.wait();
        server.apply(&manifest(&[class("ours")]));
        World {
            server,
            running: Vec::new(),
            next_port: 8100,
        }
    }

    /// A Service with so many endpoints, each of which says `NAME` or `NAME-NUMBER`.
    pub fn service(&mut self, name: &str, endpoints: usize) {
        let ports = json!([{"name": "http", "port": 8080}]);
        let mut objects = vec![
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}}),
        ];
        for index in 0..endpoints {
            let port = self.next_port;
            self.next_port += 1;
            let own = match endpoints {
                1 => name.to_owned(),
                _ => format!("{name}-{index}"),
            };
            self.running.push(portolan(&[
                "echo",
                "--quiet",
                "--http",
                &port.to_string(),
                "--name",
                &own,
            ]));
            objects.push(slice(name, index, port));
        }
        self.server.apply(&manifest(&objects));
    }

    /// A port of [`POD`] for somebody else's server.
    pub fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port - 1
    }

    /// Runs a program until the test ends.
    pub fn run(&mut self, mut command: Command) {
        let child = command.die_with_parent(Signal::SIGKILL).spawn();
        self.running.push(Running(child.unwrap()));
    }

    /// A Service with one endpoint, at which somebody else listens.
    pub fn endpoint(&self, name: &str, port: u16) {
        let ports = json!([{"name": "http", "port": 8080}]);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}});
        self.server
            .apply(&manifest(&[service, slice(name, 0, port)]));
    }

    /// A directory that goes with the test.
    pub fn dir(&self) -> std::path::PathBuf {
        let path = self.server.kubeconfig();
        path.parent().unwrap().to_owned()
    }

    /// Status, and who has answered.
    pub fn ask(&self, arguments: &[&str]) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--max-time",
            "10",
            "--noproxy",
            "*",
            "--write-out",
            "\n%{http_code}",
        ]);
        let output = command
            .args(["--header", "Accept: application/json"])
            .args(arguments)
            .output();
        let text = String::from_utf8(output.expect("curl is there").stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        let said: Value = serde_json::from_str(body).unwrap_or_default();
        (
            code.parse().unwrap(),
            said["pod"].as_str().unwrap_or_default().to_owned(),
        )
    }

    pub fn get(&self, host: &str, path: &str) -> (u16, String) {
        self.ask(&[
            "--header",
            &format!("Host: {host}"),
            &format!("http://{ADDRESS}{path}"),
        ])
    }

    fn addresses(&self, ingress: &str) -> String {
        self.server.kubectl(&[
            "get",
            "ingress",
            ingress,
            "-o",
            "jsonpath={.status.loadBalancer.ingress[*].ip}",
        ])
    }

    pub fn until_served(&self, ingress: &str) {
        until_or(
            || self.addresses(ingress) == ADDRESS,
            || format!("the status of {ingress}"),
        );
    }
}

fn class(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "portolan.dev/gateway"}})
}

fn slice(service: &str, index: usize, port: u16) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-{index}"), "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}], "endpoints": [{"addresses": [POD]}]})
}

/// All of them in one text.
pub fn manifest(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// A Secret with a certificate of its own; the certificate is in the file then.
fn secret(name: &str, host: &str, file: &std::path::Path) -> Value {
    let (chain, key) = (file.with_extension("crt"), file.with_extension("key"));
    let subject = format!("/CN={host}");
    let names = format!("subjectAltName=DNS:{host}");
    let output = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", &subject,
            "-addext", &names, "-keyout",
        ])
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()
        .expect("openssl is there");
    assert!(output.status.success());
    let text = |path| std::fs::read_to_string(path).unwrap();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": text(&chain), "tls.key": text(&key)}})
}

#[test]
fn the_conformance_cases_hold_on_the_wire() {
    isolated!(the_conformance_cases_hold_on_the_wire, {
        let file: Value = serde_json::from_str(CASES).unwrap();
        let cases = file["cases"].as_array().unwrap();
        let mut world = World::new();
        let named = cases.iter().filter_map(|case| case["service"].as_str());
        let named: BTreeSet<&str> = named.filter(|name| !name.is_empty()).collect();
        for name in named {
            world.service(name, if name == "echo-service" { 10 } else { 1 });
        }
        let dir = tempfile::tempdir().unwrap();
        let authority = dir.path().join("foo");
        world.server.apply(&manifest(&[secret(
            "conformance-tls",
            "foo.bar.com",
            &authority,
        )]));
        let mut asked = 0;
        for (feature, ingress) in file["ingresses"].as_object().unwrap() {
            let mut ingress = ingress.clone();
            let name = ingress["metadata"]["name"].as_str().unwrap().to_owned();
            ingress["metadata"]["namespace"] = json!("default");
            world.server.apply(&manifest(&[ingress]));
            if feature == "ingress_class" {
                // Others have their status by now, and this one's must stay empty.
                let other = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "later"},
                    "spec": {"rules": [{"host": "later.com"}]}});
                world.server.apply(&manifest(&[other]));
                world.until_served("later");
                assert_eq!(world.addresses(&name), "");
                asked += 1;
                continue;
            }
            world.until_served(&name);
            for case in cases.iter().filter(|case| case["feature"] == **feature) {
                hold(&world, case, &authority);
                asked += 1;
            }
            world.server.kubectl(&["delete", "ingress", &name]);
        }
        assert_eq!(asked, 30);
    });
}

/// Asks what a case asks, and follows a redirection to the same address as its client does.
fn hold(world: &World, case: &Value, authority: &std::path::Path) {
    let text = |field: &str| case[field].as_str().unwrap_or_default();
    let host = match text("host") {
        "" => ADDRESS,
        host => host,
    };
    let ca = authority.with_extension("crt");
    let url = format!("{}://{host}{}", text("scheme"), text("path"));
    let resolve = [80, 443].map(|port| format!("{host}:{port}:{ADDRESS}"));
    let mut arguments = vec![
        "--location",
        "--request",
        text("method"),
        "--cacert",
        ca.to_str().unwrap(),
    ];
    if host != ADDRESS {
        arguments.extend(["--resolve", &resolve[0], "--resolve", &resolve[1]]);
    }
    arguments.push(&url);
    let wanted = case["status"].as_u64().unwrap();
    // The table may come a moment after the status; an answer that is right stays right.
    let is_right = |(code, name): &(u16, String)| {
        u64::from(*code) == wanted
            && name.trim_end_matches(|c: char| c == '-' || c.is_ascii_digit()) == text("service")
    };
    until_or(
        || is_right(&world.ask(&arguments)),
        || format!("{}: {:?}", text("id"), world.ask(&arguments)),
    );
    let times = if text("feature") == "load_balancing" {
        100
    } else {
        1
    };
    let mut names = BTreeMap::<String, usize>::new();
    for _ in 0..times {
        let answer = world.ask(&arguments);
        assert!(is_right(&answer), "{}: {answer:?}", text("id"));
        *names.entry(answer.1).or_default() += 1;
    }
    assert!(times == 1 || names.len() == 10, "{names:?}");
}

/// A gateway that knows no routes yet would say 404 of everything.
#[test]
fn nobody_is_answered_before_everything_is_listed() {
    isolated!(nobody_is_answered_before_everything_is_listed, {
        Links::here().unwrap().up("lo").unwrap();
        let api = TcpListener::bind("127.0.0.1:0").unwrap();
        let master = format!("--master=http://{}", api.local_addr().unwrap());
        let _gateway = portolan(&["gateway", &master, "--http", "127.0.0.1:80"]);
        // It asks for lists, and we let it wait.
        let _asking = api.accept().unwrap();
        let refused = TcpStream::connect("127.0.0.1:80").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn what_changes_is_served_and_what_is_wrong_is_told() {
    isolated!(what_changes_is_served_and_what_is_wrong_is_told, {
        let mut world = World::new();
        world.service("shop", 1);
        world.service("rest", 1);
        let path = |path: &str, service: &str| json!({"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"name": "http"}}}});
        let spec = json!({"rules": [{"host": "a.com", "http": {"paths": [path("/", "shop"), path("/gone", "gone")]}}]});
        let web = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": spec});
        world.server.apply(&manifest(std::slice::from_ref(&web)));
        world.until_served("web");
        until_or(
            || world.get("a.com", "/x") == (200, "shop".into()),
            || format!("{:?}", world.get("a.com", "/x")),
        );
        assert_eq!(world.get("a.com", "/gone/x").0, 503);
        assert_eq!(world.get("b.com", "/").0, 404);

        // What is wrong is an Event and a line.
        let events = || world.server.kubectl(&["describe", "ingress", "web"]);
        until_or(|| events().contains("ServiceNotFound"), events);
        let kubeconfig = world.server.kubeconfig();
        let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args([
                "gateway",
                "routes",
                "--kubeconfig",
                kubeconfig.to_str().unwrap(),
            ])
            .output()
            .unwrap();
        let routes = String::from_utf8(output.stdout).unwrap();
        let line = routes
            .lines()
            .nth(1)
            .unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(
            line,
            "a.com Prefix / default/shop:http/TCP 1 default/web spec.rules[0].http.paths[0]"
        );
        assert!(routes.contains("problem: Ingress default/web: The backend of spec.rules[0].http.paths[1] is the Service default/gone"), "{routes}");

        // Endpoints move from one Service's process to another's under load, and no request fails.
        let urls = format!("http://{ADDRESS}/?[1-2000]");
        let mut load = Command::new("curl");
        load.args([
            "--silent",
            "--noproxy",
            "*",
            "--header",
            "Host: a.com",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}\n",
            &urls,
        ]);
        let load = load.stdout(Stdio::piped()).spawn().unwrap();
        for turn in 0..6 {
            world
                .server
                .apply(&manifest(&[slice("shop", 0, 8100 + turn % 2)]));
        }
        let codes = String::from_utf8(load.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!(codes.lines().filter(|code| *code == "200").count(), 2000);

        // A certificate comes, and another one in its place.
        let dir = tempfile::tempdir().unwrap();
        let mut with_tls = web.clone();
        with_tls["spec"]["tls"] = json!([{"hosts": ["a.com"], "secretName": "cert"}]);
        world.server.apply(&manifest(&[with_tls]));
        for turn in ["first", "second"] {
            let file = dir.path().join(turn);
            world
                .server
                .apply(&manifest(&[secret("cert", "a.com", &file)]));
            let (ca, to) = (file.with_extension("crt"), format!("a.com:443:{ADDRESS}"));
            let arguments = [
                "--cacert",
                ca.to_str().unwrap(),
                "--resolve",
                &to,
                "https://a.com/",
            ];
            until_or(
                || world.ask(&arguments).0 == 200,
                || format!("the {turn} certificate"),
            );
        }
        assert_eq!(world.get("a.com", "/x").0, 308);

        // Nobody serves an Ingress whose class is gone.
        world.server.kubectl(&["delete", "ingressclass", "ours"]);
        until_or(
            || world.get("a.com", "/x").0 == 404,
            || format!("{:?}", world.get("a.com", "/x")),
        );
        until_or(
            || world.addresses("web").is_empty(),
            || world.addresses("web"),
        );
        world.server.apply(&manifest(&[class("ours")]));
        until_or(
            || world.get("a.com", "/x").0 == 308,
            || format!("{:?}", world.get("a.com", "/x")),
        );
        world.until_served("web");
    });
}
