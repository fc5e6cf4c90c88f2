//! What is routed: hosts with five paths each, as Ingresses for the API and as configuration of nginx and haproxy, which
//! say the same in every one of them: where requests go, and what endpoints are told of clients.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::api::{SERVICES, SLICES};
use crate::objects::{self, ENDPOINT_PORT, SERVICE_PORT, Shape};

pub const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// The Services behind all routes, with the endpoints of each.
const SHAPE: Shape = Shape {
    services: 100,
    endpoints: 2,
};
/// Paths of each host.
const PATHS: u32 = 5;
const DOMAIN: &str = "example.com";

/// What headers endpoints get, in nginx' words; ours are the same (docs/gateway.md).
const NGINX_HEADERS: [(&str, &str); 9] = [
    ("Host", "$http_host"),
    ("Connection", "\"\""),
    ("X-Request-ID", "$request_id"),
    ("X-Real-IP", "$remote_addr"),
    ("X-Forwarded-For", "$remote_addr"),
    ("X-Forwarded-Host", "$http_host"),
    ("X-Forwarded-Port", "$server_port"),
    ("X-Forwarded-Proto", "$scheme"),
    ("X-Forwarded-Scheme", "$scheme"),
];
/// The same in haproxy's.
const HAPROXY_HEADERS: [(&str, &str); 7] = [
    ("X-Request-ID", "%[uuid()]"),
    ("X-Real-IP", "%[src]"),
    ("X-Forwarded-For", "%[src]"),
    ("X-Forwarded-Host", "%[req.hdr(host)]"),
    ("X-Forwarded-Port", "%[dst_port]"),
    ("X-Forwarded-Proto", "%[ssl_fc,iif(https,http)]"),
    ("X-Forwarded-Scheme", "%[ssl_fc,iif(https,http)]"),
];

/// A number of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Site {
    pub hosts: u32,
}

/// A key and its certificate, which all hosts share: ECDSA on P-256.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    pub fn new() -> Result<Identity, String> {
        let names = vec![format!("*.{DOMAIN}")];
        let made = rcgen::generate_simple_self_signed(names).map_err(|e| e.to_string())?;
        Ok(Identity {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        })
    }
}

impl Site {
    pub fn routes(self) -> u32 {
        self.hosts * PATHS
    }

    /// The name of a host.
    pub fn host(number: u32) -> String {
        format!("h{number:05}.{DOMAIN}")
    }

    /// The paths of a host with the Services behind them; `changes` so many more.
    fn paths(number: u32, changes: u32) -> impl Iterator<Item = (String, u32)> {
        let own = (0..PATHS).map(move |path| {
            (
                format!("/p{path}"),
                (number * PATHS + path) % SHAPE.services,
            )
        });
        own.chain((0..changes).map(|change| (Site::changed(change), 0)))
    }

    /// The path that a change brings.
    pub fn changed(change: u32) -> String {
        format!("/c{change}")
    }

    /// All places that requests can go to, in no order that a table could have.
    pub fn places(self) -> impl Iterator<Item = (String, String)> {
        // 7919 is a prime that divides no number of routes.
        let mixed = (0..self.routes()).map(move |n| n * 7919 % self.routes());
        mixed.map(|n| (Site::host(n / PATHS), format!("/p{}/small", n % PATHS)))
    }

    fn rules(number: u32, changes: u32) -> Value {
        let path = |(path, service): (String, u32)| {
            let port = json!({"number": SERVICE_PORT});
            let service = json!({"name": objects::name(service), "port": port});
            json!({"path": path, "pathType": "Prefix", "backend": {"service": service}})
        };
        let paths: Vec<Value> = Site::paths(number, changes).map(path).collect();
        json!([{"host": Site::host(number), "http": {"paths": paths}}])
    }

    /// Where the Ingress of a host is, and what makes it have so many more paths.
    pub fn patch(number: u32, changes: u32) -> (String, Value) {
        let rules = Site::rules(number, changes);
        let path = format!("{INGRESSES}/h{number:05}");
        (path, json!({"spec": {"rules": rules}}))
    }

    /// Everything for the API.
    pub fn objects(self, identity: &Identity) -> impl Iterator<Item = (String, Value)> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "certificate", "namespace": "default"},
            "stringData": {"tls.crt": identity.certificate, "tls.key": identity.key},
        });
        let services = (0..SHAPE.services).flat_map(|number| {
            [
                (SERVICES.to_owned(), objects::service(number)),
                (SLICES.to_owned(), SHAPE.slice(number, None)),
            ]
        });
        let ingress = |number| {
            json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
                "metadata": {
                    "name": format!("h{number:05}"), "namespace": "default",
                    // The same routes are asked by HTTP, too.
                    "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
                },
                "spec": {
                    "tls": [{"hosts": [Site::host(number)], "secretName": "certificate"}],
                    "rules": Site::rules(number, 0),
                },
            })
        };
        let ingresses = (0..self.hosts).map(move |number| (INGRESSES.to_owned(), ingress(number)));
        services
            .chain([(SECRETS.to_owned(), secret)])
            .chain(ingresses)
    }

    /// nginx' configuration; the first host has so many more paths.
    pub fn nginx(self, changes: u32) -> String {
        let mut text = String::from(
            "user root root;\nworker_processes 1;\ndaemon off;\npid pid;\nerror_log error.log error;\n\
             events { worker_connections 16384; }\nhttp {\naccess_log off;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
             fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\nserver_names_hash_max_size 16384;\n\
             keepalive_requests 1000000000;\nkeepalive_timeout 75s;\nproxy_http_version 1.1;\n\
             ssl_certificate certificate.pem;\nssl_certificate_key certificate.pem;\n",
        );
        for (name, value) in NGINX_HEADERS {
            let _ = writeln!(text, "proxy_set_header {name} {value};");
        }
        for service in 0..SHAPE.services {
            let _ = writeln!(text, "upstream {} {{", objects::name(service));
            for slot in 0..SHAPE.endpoints {
                let endpoint = SHAPE.endpoint(service, slot);
                let _ = writeln!(text, "server {endpoint}:{ENDPOINT_PORT};");
            }
            text.push_str("keepalive 64;\nkeepalive_requests 1000000000;\n}\n");
        }
        const LISTEN: &str = "server {\nlisten 80;\nlisten 443 ssl http2;\n";
        text.push_str("server {\nlisten 80 default_server;\nlisten 443 ssl http2 default_server;\nreturn 404;\n}\n");
        for number in 0..self.hosts {
            let changes = if number == 0 { changes } else { 0 };
            let _ = writeln!(text, "{LISTEN}server_name {};", Site::host(number));
            for (path, service) in Site::paths(number, changes) {
                let to = objects::name(service);
                // A prefix of whole elements, as ingress-nginx writes it.
                let _ = writeln!(text, "location {path}/ {{ proxy_pass http://{to}; }}");
                let _ = writeln!(text, "location = {path} {{ proxy_pass http://{to}; }}");
            }
            text.push_str("}\n");
        }
        text.push_str("}\n");
        text
    }

    /// haproxy's configuration; certificate, map and socket are in its folder.
    pub fn haproxy(folder: &Path) -> String {
        let folder = folder.display();
        let mut text = format!(
            "global\n  nbthread 1\n  maxconn 16384\n  no strict-limits\n  stats socket {folder}/socket mode 600 level admin\n\
             defaults\n  mode http\n  http-reuse always\n  timeout connect 5s\n  timeout client 75s\n  timeout server 60s\n  \
             timeout http-keep-alive 75s\nfrontend front\n  bind :80\n  \
             bind :443 ssl crt {folder}/certificate.pem alpn h2,http/1.1\n"
        );
        for (name, value) in HAPROXY_HEADERS {
            let _ = writeln!(text, "  http-request set-header {name} {value}");
        }
        let _ = writeln!(text, "  use_backend %[base,map_beg({folder}/map,none)]");
        text.push_str("backend none\n  http-request return status 404\n");
        for service in 0..SHAPE.services {
            let _ = writeln!(text, "backend {}", objects::name(service));
            for slot in 0..SHAPE.endpoints {
                let endpoint = SHAPE.endpoint(service, slot);
                let _ = writeln!(text, "  server e{slot} {endpoint}:{ENDPOINT_PORT}");
            }
        }
        text
    }

    /// haproxy's map of routes.
    pub fn map(self) -> String {
        let hosts = 0..self.hosts;
        let lines = hosts.flat_map(|number| {
            let host = Site::host(number);
            Site::paths(number, 0)
                .map(move |(path, service)| format!("{host}{path}/ {}\n", objects::name(service)))
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_has_the_same_routes() {
        let site = Site { hosts: 200 };
        assert_eq!(site.routes(), 1_000);
        assert_eq!(site.nginx(0).matches("/ { proxy_pass").count(), 1_000);
        assert_eq!(site.nginx(3).matches("/ { proxy_pass").count(), 1_003);
        assert_eq!(site.map().lines().count(), 1_000);
        let identity = Identity::new().unwrap();
        let ingresses = site
            .objects(&identity)
            .filter(|(path, _)| path == INGRESSES);
        let paths = ingresses.map(|(_, object)| {
            let paths = &object["spec"]["rules"][0]["http"]["paths"];
            paths.as_array().map_or(0, Vec::len)
        });
        assert_eq!(paths.sum::<usize>(), 1_000);
        let places: BTreeSet<_> = site.places().collect();
        assert_eq!(places.len(), 1_000, "every place is asked for");
    }

    #[test]
    fn a_change_brings_a_path() {
        let (path, patch) = Site::patch(0, 2);
        assert!(path.ends_with("/ingresses/h00000"));
        let paths = patch["spec"]["rules"][0]["http"]["paths"]
            .as_array()
            .unwrap();
        assert_eq!(paths.len(), 7);
        assert_eq!(paths[6]["path"], "/c1");
    }
}
