//! Sites for tests of policies: Ingresses with annotations, served, and asked with curl.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use portolan_gateway::ingress::{Objects, Options, Routing, build};
use portolan_gateway::server::{Live, Server};
use portolan_gateway::{ObjectName, Roster, Rosters};
use portolan_k8s::wire::networking::{Ingress, IngressClass};
use portolan_k8s::wire::{ConfigMap, Secret, Service};
use portolan_model::{PortKey, Protocol};
use serde_json::{Value, json};

use crate::{certificate, certificates, serve};

/// Services `web` and `other` in namespace `shop`, each with its endpoints, and Ingresses.
pub struct Site {
    objects: Objects,
    pub options: Options,
    endpoints: Vec<(PortKey, Roster)>,
}

impl Site {
    pub fn new(web: &[SocketAddr], other: &[SocketAddr]) -> Site {
        let class =
            json!({"metadata": {"name": "ours"}, "spec": {"controller": "portolan.dev/gateway"}});
        let class: IngressClass = serde_json::from_value(class).unwrap();
        let mut objects = Objects::default();
        objects
            .classes
            .insert(ObjectName::new("", "ours"), Arc::new(class));
        let mut endpoints = Vec::new();
        for (name, addresses) in [("web", web), ("other", other)] {
            let service = json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"ports": [{"port": 80}]}});
            let service: Service = serde_json::from_value(service).unwrap();
            objects
                .services
                .insert(ObjectName::new("shop", name), Arc::new(service));
            let key = PortKey::new("shop", name, "", Protocol::Tcp);
            endpoints.push((key, Roster::of(addresses.iter().copied())));
        }
        Site {
            objects,
            options: Options::default(),
            endpoints,
        }
    }

    /// Adds an Ingress; the names of its annotations have no prefix.
    pub fn ingress(mut self, name: &str, annotations: Value, rules: Value) -> Site {
        let annotations = annotations.as_object().unwrap().iter();
        let annotations: serde_json::Map<String, Value> = annotations
            .map(|(key, value)| (format!("nginx.ingress.kubernetes.io/{key}"), value.clone()))
            .collect();
        let spec =
            json!({"ingressClassName": "ours", "rules": rules, "tls": [{"hosts": ["secure.com"]}]});
        let ingress = json!({"metadata": {"namespace": "shop", "name": name, "annotations": annotations}, "spec": spec});
        let ingress: Ingress = serde_json::from_value(ingress).unwrap();
        self.objects
            .ingresses
            .insert(ObjectName::new("shop", name), Arc::new(ingress));
        self
    }

    pub fn secret(mut self, name: &str, data: Value) -> Site {
        let secret: Secret =
            serde_json::from_value(json!({"type": "Opaque", "data": data})).unwrap();
        self.objects
            .secrets
            .insert(ObjectName::new("shop", name), Arc::new(secret));
        self
    }

    pub fn config(mut self, name: &str, data: Value) -> Site {
        let map: ConfigMap = serde_json::from_value(json!({"data": data})).unwrap();
        self.objects
            .config_maps
            .insert(ObjectName::new("shop", name), Arc::new(map));
        self
    }

    fn build(&self) -> Routing {
        build(&self.objects, &self.options)
    }

    pub fn serve(self) -> Served {
        let routing = self.build();
        let server = serve(2);
        let (chain, identity) = certificate("secure.com");
        server.swap(Live {
            table: routing.table,
            endpoints: Rosters::of(self.endpoints),
            certificates: certificates("secure.com", identity),
        });
        let reasons = routing
            .problems
            .iter()
            .map(|problem| problem.reason)
            .collect();
        Served {
            server,
            chain,
            reasons,
        }
    }
}

pub struct Served {
    pub server: Server,
    pub chain: String,
    /// Of the Problems.
    pub reasons: Vec<&'static str>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(given, _)| given.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }

    /// What the backend says of the request.
    pub fn said(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn path(&self) -> String {
        self.said()["path"].as_str().unwrap_or_default().to_owned()
    }

    pub fn who(&self) -> String {
        self.said()["who"].as_str().unwrap_or_default().to_owned()
    }
}

impl Served {
    pub fn ask(&self, host: &str, path: &str, more: &[&str]) -> Answer {
        let url = format!("http://{}{path}", self.server.http()[0]);
        self.ask_url(
            &url,
            &[&["--header", &format!("Host: {host}")], more].concat(),
        )
    }

    pub fn ask_url(&self, url: &str, more: &[&str]) -> Answer {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--include",
                "--max-time",
                "30",
                "--noproxy",
                "*",
                "--path-as-is",
                url,
            ])
            .args(more)
            .output()
            .expect("curl is needed for this test");
        let mut bytes = &output.stdout[..];
        loop {
            let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
            let end = end.unwrap_or_else(|| {
                panic!(
                    "{url} {more:?}: {:?}",
                    String::from_utf8_lossy(&output.stderr)
                )
            });
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            bytes = &bytes[end + 4..];
            if status != 100 {
                return Answer {
                    status,
                    head,
                    body: bytes.to_vec(),
                };
            }
        }
    }

    pub fn status(&self, host: &str, path: &str, more: &[&str]) -> u16 {
        self.ask(host, path, more).status
    }
}

pub fn path(path: &str, kind: &str, service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 80}}});
    json!({"path": path, "pathType": kind, "backend": backend})
}

pub fn rules(host: &str, paths: &[Value]) -> Value {
    json!([{"host": host, "http": {"paths": paths}}])
}
