//! The server on the loopback, with curl and with bytes as they are.

#![allow(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test by panicking"
)]
#![allow(clippy::print_stdout, reason = "what is not compared is said aloud")]

mod answers;
mod authority;
mod backend;
mod checks;
mod http2;
mod http3;
mod malformed;
mod operations;
mod policy;
mod protocols;
mod services;
mod site;
mod sticky;
mod traffic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use portolan_gateway::ingress::{Objects, Options, build};
use portolan_gateway::server::{Certificates, Config, Identity, Live, Server, Settings};
use portolan_gateway::{Host, ObjectName, Problem, Roster, Rosters};
use portolan_k8s::wire::Service;
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use portolan_model::{PortKey, Protocol};
use serde_json::{Value, json};

/// A server on free ports of the loopback.
fn serve(threads: usize) -> Server {
    serve_with(threads, Settings::default())
}

fn serve_with(threads: usize, settings: Settings) -> Server {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        http: vec![any],
        https: vec![any],
        http3: Vec::new(),
        threads,
        settings,
        sockets: Vec::new(),
    };
    Server::start(config).unwrap()
}

/// What an Ingress with these rules makes of Service `web` with these endpoints.
fn live(rules: Value, endpoints: &[SocketAddr]) -> Live {
    annotated(&[], rules, endpoints)
}

/// The same, of an Ingress with annotations; those without a prefix have that of ingress-nginx.
fn annotated(annotations: &[(&str, &str)], rules: Value, endpoints: &[SocketAddr]) -> Live {
    let mut objects = Objects::default();
    let class =
        json!({"metadata": {"name": "ours"}, "spec": {"controller": "portolan.dev/gateway"}});
    let class: IngressClass = serde_json::from_value(class).unwrap();
    objects
        .classes
        .insert(ObjectName::new("", "ours"), Arc::new(class));
    let service = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).unwrap();
    objects
        .services
        .insert(ObjectName::new("shop", "web"), Arc::new(service));
    let spec =
        json!({"ingressClassName": "ours", "rules": rules, "tls": [{"hosts": ["secure.com"]}]});
    let full = |name: &str| match name.contains('/') {
        true => name.to_owned(),
        false => format!("nginx.ingress.kubernetes.io/{name}"),
    };
    let annotations = annotations.iter();
    let annotations: BTreeMap<String, &str> = annotations.map(|(n, v)| (full(n), *v)).collect();
    let metadata = json!({"namespace": "shop", "name": "i", "annotations": annotations});
    let ingress: Ingress =
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    objects
        .ingresses
        .insert(ObjectName::new("shop", "i"), Arc::new(ingress));
    let key = PortKey::new("shop", "web", "", Protocol::Tcp);
    let routing = build(&objects, &Options::default());
    let wrong = |problem: &&Problem| problem.reason == "InvalidAnnotation";
    assert_eq!(routing.problems.iter().find(wrong), None);
    Live {
        table: routing.table,
        endpoints: Rosters::of([(key, Roster::of(endpoints.iter().copied()))]),
        certificates: Arc::default(),
    }
}

/// One rule: everything of a host goes to `web`.
fn all_of(host: &str) -> Value {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    json!({"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}})
}

/// Runs curl, which must succeed; what it prints.
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--noproxy",
            "*",
        ])
        .args(arguments)
        .output();
    let output = output.expect("curl is needed for this test");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A certificate of its own for a name: the certificate as PEM, and what the server shows.
fn certificate(name: &str) -> (String, Identity) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    (chain, identity)
}

/// The certificates of a server that has one for a host.
fn certificates(host: &str, identity: Identity) -> Arc<Certificates> {
    let other = Identity::self_signed().unwrap();
    Arc::new(Certificates::new(
        [(Host::parse(host).unwrap(), identity)],
        other,
    ))
}
