//! Names in a lab: who answers them, and where what the answerers need lies.
//!
//! ```text
//!   pod ──172.30.0.10──▶ kube-dns ──data plane──▶ the answerer of some node (`portolan dns`, port 53 of the node)
//!                                                     │  names of the cluster: by itself, from the API
//!                                                     ▼  other names
//!                                            the answerer of the fabric: outside.example, apps.example, and nothing else
//! ```
//!
//! The supervisor keeps the answerers, as it keeps the agents. An agent writes the files of its node's answerer
//! from the ConfigMap `coredns`, and tells the API whether it answers.

use std::path::PathBuf;

use serde_json::Value;

use crate::apply;
use crate::dir::LabDir;
use crate::error::{Error, Result};
use crate::plan::{self, NodePlan};

/// The namespace of what makes names work.
pub const NAMESPACE: &str = "kube-system";
/// The Service that pods ask.
pub const SERVICE: &str = "kube-dns";
/// The ConfigMap with the Corefile.
pub const CONFIG_MAP: &str = "coredns";
/// Where answerers listen.
pub const PORT: u16 = 53;
/// Where they tell their metrics.
pub const METRICS_PORT: u16 = 9153;

const MANIFEST: &str = include_str!("names/kube-dns.yaml");
const OUTSIDE: &str = include_str!("names/outside.Corefile");

/// The Service and the ConfigMap, which a lab has before anything else is applied.
pub fn objects() -> Result<Vec<Value>> {
    apply::parse(MANIFEST).map_err(|why| Error::Refused(format!("kube-dns.yaml: {why}")))
}

/// Where the Corefile of a node's answerer is, and what it names.
pub fn config_dir(dir: &LabDir, node: NodePlan) -> PathBuf {
    dir.node(&node.name()).join("dns")
}

/// Where the Corefile of the fabric's answerer is.
pub fn outside_corefile(dir: &LabDir) -> PathBuf {
    dir.path("outside.Corefile")
}

/// What the lab has as /etc/resolv.conf, instead of the machine's.
pub fn resolv_conf(dir: &LabDir) -> PathBuf {
    dir.path("resolv.conf")
}

/// Writes what the lab has before its API: the world outside, as nodes see it.
pub fn write_outside(dir: &LabDir) -> Result<()> {
    let write = |path: PathBuf, text: &str| {
        std::fs::write(&path, text).map_err(|e| Error::file("write", &path, e))
    };
    write(outside_corefile(dir), OUTSIDE)?;
    let [fabric, _] = plan::gateway();
    write(resolv_conf(dir), &format!("nameserver {}\n", fabric.addr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_where_pods_look_for_it() {
        let objects = objects().unwrap();
        let service = objects.iter().find(|object| object["kind"] == "Service");
        let service = service.unwrap();
        assert_eq!(service["metadata"]["name"], SERVICE);
        assert_eq!(service["metadata"]["namespace"], NAMESPACE);
        let ips: Vec<String> = plan::dns().iter().map(ToString::to_string).collect();
        assert_eq!(service["spec"]["clusterIPs"], serde_json::json!(ips));
        assert_eq!(service["spec"]["clusterIP"], ips[0].as_str());
        assert!(service["spec"].get("selector").is_none());
    }

    #[test]
    fn the_config_map_has_the_corefile() {
        let objects = objects().unwrap();
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap");
        let map = map.unwrap();
        assert_eq!(map["metadata"]["name"], CONFIG_MAP);
        let text = map["data"]["Corefile"].as_str().unwrap();
        assert!(text.contains(&format!(".:{PORT} {{")), "{text}");
        assert!(
            text.contains(&format!("prometheus :{METRICS_PORT}\n")),
            "{text}"
        );
    }
}
