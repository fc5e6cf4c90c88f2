//! Clients that people use, against `portolan gateway`: curl, h2load, gRPC's own library, a library of WebSockets, and
//! a browser. Everything is in namespaces of the test, which have loopback alone.

mod browser;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use serde_json::{Value, json};

use crate::gateway::{ADDRESS, POD, World, manifest};
use crate::node::until_or;
use portolan_kernel::isolated;

/// From the documentation of Kubernetes, and from the fields' own words.
const PATHS: &str = include_str!("../../../gateway/tests/cases/docs-path-table.tsv");
const HOSTS: &str = include_str!("../../../gateway/tests/cases/host-table.tsv");
/// Debian's, whose libraries scripts/setup.sh installs.
const PYTHON: &str = "/usr/bin/python3";
/// What h2load sends in one run.
const REQUESTS: &str = "4000";

fn script(name: &str) -> String {
    format!("{}/tests/real/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// An authority whose certificates the clients believe in.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test");
        let key = KeyPair::generate().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let own = params.self_signed(&key).unwrap().pem();
        std::fs::write(dir.path().join("ca.crt"), own).unwrap();
        Authority {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// A Secret with a certificate for a host.
    fn secret(&self, name: &str, host: &str) -> Value {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()}})
    }
}

fn path_to(path: &str, kind: &str, service: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"name": "http"}}}})
}

fn ingress(name: &str, annotations: Value, spec: Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

/// A rule, its certificate in the Secret of the same name, and HTTP without TLS, too.
fn with_tls(name: &str, annotations: Value, host: &str, paths: &[Value]) -> Value {
    let mut annotations = annotations;
    annotations["nginx.ingress.kubernetes.io/ssl-redirect"] = "false".into();
    let spec = json!({"rules": [{"host": host, "http": {"paths": paths}}],
        "tls": [{"hosts": [host], "secretName": name}]});
    ingress(name, annotations, spec)
}

fn words(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|text| String::from_utf8_lossy(text))
        .concat()
}

fn rows(table: &'static str) -> Vec<Vec<&'static str>> {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines
        .skip(1)
        .map(|line| line.split('\t').collect())
        .collect()
}

/// Asks for a path of a host until the answer is right: a status, and the name of who answers.
fn answers(world: &World, host: Option<&str>, path: &str, wanted: (u16, &str), row: &[&str]) {
    let header = format!("Host: {}", host.unwrap_or_default());
    // Without a value, curl leaves the header out.
    let header = header.trim_end_matches(' ');
    let url = format!("http://{ADDRESS}{path}");
    let mut arguments = vec!["--path-as-is", "--header", header, &url];
    if host.is_none() {
        arguments.push("--http1.0");
    }
    let ask = || world.ask(&arguments);
    let is_right = || ask() == (wanted.0, wanted.1.to_owned());
    until_or(is_right, || format!("{row:?} {path}: {:?}", ask()));
}

#[test]
fn the_tables_hold_with_curl() {
    isolated!(the_tables_hold_with_curl, {
        let mut world = World::new();
        for name in ["s0", "s1", "s2", "default"] {
            world.service(name, 1);
        }
        let rows_of_paths = rows(PATHS);
        assert_eq!(rows_of_paths.len(), 20);
        let all = rows_of_paths.iter().enumerate();
        let all: Vec<Value> = all.map(|(index, row)| ingress_of_row(index, row)).collect();
        world.server.apply(&manifest(&all));
        for (index, row) in rows_of_paths.iter().enumerate() {
            let host = format!("row{index}.example");
            let (rules, asked, expected) = (row[1], row[2], row[3]);
            let service = match expected {
                "yes" => "s0".to_owned(),
                "yes: Exact preferred" => "s1".to_owned(),
                no if no.starts_with("no") => "default".to_owned(),
                named => {
                    let named = named.strip_prefix("yes: ").unwrap();
                    let index = rules.split(" | ").position(|rule| rule == named);
                    format!("s{}", index.unwrap())
                }
            };
            let paths = match asked {
                "(all paths)" => vec!["/", "/a", "/a/b/", "//"],
                path => vec![path],
            };
            for path in paths {
                answers(&world, Some(&host), path, (200, &service), row);
            }
        }
        hold_hosts(&world);
    });
}

/// The paths of a row, at a host of its own.
fn ingress_of_row(index: usize, row: &[&str]) -> Value {
    let path = |(number, rule): (usize, &str)| {
        let (path, kind) = match rule.trim().split_once(" (") {
            Some((path, kind)) => (path, kind.trim_end_matches(')')),
            None => (rule.trim(), row[0]),
        };
        path_to(path, kind, &format!("s{number}"))
    };
    let paths: Vec<Value> = row[1].split(" | ").enumerate().map(path).collect();
    let default = json!({"service": {"name": "default", "port": {"name": "http"}}});
    let spec = json!({"rules": [{"host": format!("row{index}.example"), "http": {"paths": paths}}],
        "defaultBackend": default});
    ingress(&format!("row{index}"), json!({}), spec)
}

/// One rule after the other; that the table has it shows a second host of the same Ingress.
fn hold_hosts(world: &World) {
    world.server.kubectl(&["delete", "ingress", "--all"]);
    let rows = rows(HOSTS);
    assert_eq!(rows.len(), 9);
    let mut standing = "";
    for (index, row) in rows.iter().enumerate() {
        let paths = json!({"paths": [path_to("/", "Prefix", "s0")]});
        if row[0] != standing {
            standing = row[0];
            let shown = format!("standing{index}.example");
            let mut rules = vec![json!({"host": shown, "http": paths})];
            rules.push(match standing {
                "(unset)" => json!({"http": paths}),
                host => json!({"host": host, "http": paths}),
            });
            let own = ingress("hosts", json!({}), json!({"rules": rules}));
            world.server.apply(&manifest(&[own]));
            answers(world, Some(&shown), "/", (200, "s0"), row);
        }
        let host = Some(row[1]).filter(|host| !host.starts_with('('));
        let wanted = match row[2] {
            "yes" => (200, "s0"),
            _ => (404, ""),
        };
        answers(world, host, "/", wanted, row);
    }
}

#[test]
fn h2load_counts_no_failure() {
    isolated!(h2load_counts_no_failure, {
        let (mut world, authority) = (World::new(), Authority::new());
        world.service("shop", 2);
        let paths = [path_to("/", "Prefix", "shop")];
        let own = with_tls("shop", json!({}), "shop.apps.example", &paths);
        let secret = authority.secret("shop", "shop.apps.example");
        world.server.apply(&manifest(&[secret, own]));
        world.until_served("shop");
        let (plain, tls) = (format!("{ADDRESS}:80"), format!("{ADDRESS}:443"));
        for (scheme, to, version) in [
            ("https", &tls, &[][..]),
            ("https", &tls, &["--h1"]),
            ("http", &plain, &["--no-tls-proto=h2c"]),
            ("http", &plain, &["--h1"]),
        ] {
            let mut command = Command::new("h2load");
            command.args(["-n", REQUESTS, "-c", "20", "-m", "10", "-t", "1"]);
            command.arg(format!("--connect-to={to}")).args(version);
            command.arg(format!("{scheme}://shop.apps.example/"));
            let output = command
                .output()
                .expect("h2load is there (scripts/setup.sh installs it)");
            let said = words(&output);
            let all = format!(
                "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout"
            );
            let codes = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
            assert!(
                said.contains(&all) && said.contains(&codes),
                "{version:?}: {said}"
            );
            let protocol = match (scheme, version) {
                (_, ["--h1"]) => "Application protocol: http/1.1",
                ("https", _) => "Application protocol: h2\n",
                _ => "Application protocol: h2c",
            };
            assert!(said.contains(protocol), "{version:?}: {said}");
        }
    });
}

/// Waits until a host is served with the certificate that the authority has made for it.
fn until_believed(world: &World, authority: &Authority, host: &str) {
    let (ca, to) = (authority.file(), format!("{host}:443:{ADDRESS}"));
    let ca = ca.to_str().unwrap();
    let url = format!("https://{host}/");
    let ask = || world.ask(&["--cacert", ca, "--resolve", &to, &url]);
    until_or(|| ask().0 == 200, || format!("{host}: {:?}", ask()));
}

fn python(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(PYTHON);
    command.arg(script(name)).args(arguments);
    command
        .env("NO_PROXY", "*")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What a script prints; it must succeed.
fn said(name: &str, arguments: &[&str]) -> String {
    let output = python(name, arguments).output();
    let output = output.expect("python3 is there (scripts/setup.sh installs it)");
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        words(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn calls_of_grpc_are_carried_both_ways() {
    isolated!(calls_of_grpc_are_carried_both_ways, {
        let (mut world, authority) = (World::new(), Authority::new());
        let port = world.port();
        let at = format!("{POD}:{port}");
        world.run(python("calls.py", &["serve", &at]));
        world.endpoint("calls", port);
        let grpc = json!({"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"});
        let host = "calls.apps.example";
        let paths = [
            path_to("/", "Prefix", "calls"),
            path_to("/test.Gone", "Prefix", "gone"),
        ];
        let own = with_tls("calls", grpc, host, &paths);
        world
            .server
            .apply(&manifest(&[authority.secret("calls", host), own]));
        world.until_served("calls");
        let (plain, tls) = (format!("{ADDRESS}:80"), format!("{ADDRESS}:443"));
        let ca = authority.file();
        let ca = ca.to_str().unwrap();
        until_or(
            || said("calls.py", &["code", &tls, host, ca]) == "OK\n",
            || said("calls.py", &["code", &tls, host, ca]),
        );
        for to in [&[&tls[..], host, ca][..], &[&plain, host]] {
            let arguments = [&["ask"], to].concat();
            assert_eq!(said("calls.py", &arguments), "12 checks hold\n", "{to:?}");
        }
        // Who has no certificate of that name is not believed, and what has no route is told as gRPC tells it.
        let other = [&tls[..], "other.apps.example", ca];
        let code = said("calls.py", &[&["code"], &other[..]].concat());
        assert_eq!(code, "UNAVAILABLE\n");
        let code = said("calls.py", &["code", &plain, "other.apps.example"]);
        assert_eq!(code, "UNIMPLEMENTED\n");
        world.server.kubectl(&["delete", "endpointslices", "--all"]);
        let ask = || said("calls.py", &["code", &plain, host]);
        until_or(|| ask() == "UNAVAILABLE\n", ask);
    });
}

#[test]
fn websockets_are_carried_both_ways() {
    isolated!(websockets_are_carried_both_ways, {
        let (mut world, authority) = (World::new(), Authority::new());
        world.service("chat", 1);
        let host = "chat.apps.example";
        let own = with_tls("chat", json!({}), host, &[path_to("/", "Prefix", "chat")]);
        world
            .server
            .apply(&manifest(&[authority.secret("chat", host), own]));
        world.until_served("chat");
        until_believed(&world, &authority, host);
        let ca = authority.file();
        let ca = ca.to_str().unwrap();
        let plain = ["ws://chat.apps.example/chat?room=1", ADDRESS, "80"];
        let tls = ["wss://chat.apps.example/chat?room=1", ADDRESS, "443", ca];
        for arguments in [&plain[..], &tls] {
            let said = said("sockets.py", arguments);
            assert_eq!(said, "8 checks hold\n", "{arguments:?}");
        }
    });
}

/// Whether a program is on the search path.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| Path::new(&dir).join(program).exists())
}
