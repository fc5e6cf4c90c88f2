//! The front door of a lab: `portolan gateway` in the fabric, at the gateway's outside addresses.
//!
//! ```text
//!   outside 203.0.113.2 ──▶ 203.0.113.1, ports 80 and 443: portolan gateway ──▶ pods, by their own addresses
//! ```
//!
//! The supervisor keeps it, as it keeps the agents. It stands beside the nodes, as a load balancer of a cloud does: it
//! knows Services from the API, and no node's data plane carries its requests.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::apply;
use crate::dir::LabDir;
use crate::error::{Error, Result};
use crate::plan::{self, API_PORT};

/// The IngressClass that a lab has, which is the default one.
pub const CLASS: &str = "portolan";
/// Threads of the gateway: two show what happens between them, and a lab has one client.
const THREADS: u8 = 2;

const MANIFEST: &str = include_str!("gateway/ingress-class.yaml");

/// The IngressClass, which a lab has before anything else is applied.
pub fn objects() -> Result<Vec<Value>> {
    apply::parse(MANIFEST).map_err(|why| Error::Refused(format!("ingress-class.yaml: {why}")))
}

/// Where it serves, and what it writes into the status of Ingresses.
pub fn addresses() -> [IpAddr; 2] {
    plan::outside_gateway().map(|net| net.addr())
}

/// What the program is started with.
pub fn arguments(dir: &LabDir) -> Vec<OsString> {
    let [fabric, _] = plan::gateway();
    let master = format!("https://{}:{API_PORT}", fabric.addr());
    let mut arguments: Vec<OsString> = vec!["gateway".into(), "--kubeconfig".into()];
    arguments.push(dir.path("kubeconfig").into());
    let mut set = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    set("--master", master);
    set("--threads", THREADS.to_string());
    for address in addresses() {
        set("--http", SocketAddr::new(address, 80).to_string());
        set("--https", SocketAddr::new(address, 443).to_string());
        set("--status-address", address.to_string());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_default_one() {
        let objects = objects().unwrap();
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0]["kind"], "IngressClass");
        assert_eq!(objects[0]["metadata"]["name"], CLASS);
        let annotations = &objects[0]["metadata"]["annotations"];
        assert_eq!(
            annotations["ingressclass.kubernetes.io/is-default-class"],
            "true"
        );
    }

    #[test]
    fn it_serves_at_the_outside_addresses() {
        let arguments = arguments(&LabDir::at("/lab".into()));
        let text: Vec<_> = arguments
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        let text = text.join(" ");
        for part in [
            "gateway --kubeconfig /lab/kubeconfig --master https://192.168.0.1:6443",
            "--http 203.0.113.1:80 --https 203.0.113.1:443 --status-address 203.0.113.1",
            "--http [2001:db8:113::1]:80",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
