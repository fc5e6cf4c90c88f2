//! Slim wire types of the kinds that every node watches: only the fields that are read, every one optional.
//!
//! A cluster holds tens of thousands of these objects, so unknown fields are skipped while decoding, `managedFields`
//! above all. Nothing is checked here: `reflect` turns these into `model` types and says what is wrong.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

mod config_map;
mod names;
pub mod networking;
mod resource;
mod secret;
mod slice;

pub use config_map::ConfigMap;
pub use names::{Namespace, Pod, PodIp, PodSpec, PodStatus, ServiceImport, ServiceImportSpec};
pub use secret::Secret;
pub use slice::{Conditions, Endpoint, EndpointPort, EndpointSlice, ForName, Hints, TargetRef};

/// `v1 Service`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Service {
    /// Slim metadata.
    #[serde(default, deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: ServiceSpec,
    /// `status`.
    #[serde(default)]
    pub status: ServiceStatus,
}

/// `ServiceSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    pub r#type: Option<String>,
    /// The first of `clusterIPs`, or `None`.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// One address per family.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// `IPv4`, `IPv6`.
    pub ip_families: Option<Vec<String>>,
    /// Ports.
    pub ports: Option<Vec<Port>>,
    /// External addresses.
    #[serde(rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// `None` or `ClientIP`.
    pub session_affinity: Option<String>,
    /// Timeout of `ClientIP`.
    pub session_affinity_config: Option<AffinityConfig>,
    /// `Cluster` or `Local`.
    pub external_traffic_policy: Option<String>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// CIDRs that may reach LoadBalancer addresses.
    pub load_balancer_source_ranges: Option<Vec<String>>,
    /// Port of the health check for LoadBalancers with external policy Local.
    pub health_check_node_port: Option<i64>,
    /// Another name, for type `ExternalName`.
    pub external_name: Option<String>,
    /// Endpoints that are not ready have names, too.
    pub publish_not_ready_addresses: Option<bool>,
    /// Labels of the pods behind it.
    pub selector: Option<BTreeMap<String, String>>,
}

/// `ServicePort`; `targetPort` is not read: EndpointSlices have the resolved numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// Name; may be absent when it is the only one.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// Port on the virtual addresses.
    pub port: Option<i64>,
    /// Port on the nodes; 0 or absent is none.
    pub node_port: Option<i64>,
}

/// `SessionAffinityConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AffinityConfig {
    /// For `ClientIP`.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// `ClientIPConfig`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// Seconds without a new connection after which a client is forgotten.
    pub timeout_seconds: Option<i64>,
}

/// `ServiceStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What a LoadBalancer controller has assigned.
    pub load_balancer: LoadBalancerStatus,
}

/// `LoadBalancerStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct LoadBalancerStatus {
    /// Assigned addresses.
    pub ingress: Option<Vec<Ingress>>,
}

/// `LoadBalancerIngress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Address; absent when there is only a host name.
    pub ip: Option<String>,
    /// Host name; absent when there is an address.
    pub hostname: Option<String>,
    /// `VIP` (or absent) or `Proxy`.
    pub ip_mode: Option<String>,
}

/// `v1 Node`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Node {
    /// Slim metadata.
    #[serde(default, deserialize_with = "slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: NodeSpec,
    /// `status`.
    #[serde(default)]
    pub status: NodeStatus,
}

/// `NodeSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// The first of `podCIDRs`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<String>,
    /// The ranges of the node's pods, one per family.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Option<Vec<String>>,
    /// Taints.
    pub taints: Option<Vec<Taint>>,
}

/// `Taint`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Taint {
    /// Key.
    pub key: String,
}

/// `NodeStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// Addresses by type.
    pub addresses: Option<Vec<NodeAddress>>,
}

/// `NodeAddress`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `InternalIP`, `ExternalIP`, `Hostname` and others.
    pub r#type: Option<String>,
    /// The address or name.
    pub address: Option<String>,
}

/// The part of ObjectMeta that is kept: `managedFields` and finalizers are skipped while decoding.
pub(crate) fn slim_meta<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
    }
    let slim = Option::<Slim>::deserialize(from)?.unwrap_or_default();
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        labels: slim.labels,
        annotations: slim.annotations.map(without_big_ones),
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

/// `kubectl apply` keeps a whole copy of the object in an annotation.
fn without_big_ones(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    annotations
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_read_is_not_kept() {
        let service: Service = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "managedFields": [{"manager": "x"}], "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"}},
            "spec": {"ports": [{"port": 80, "targetPort": "http"}], "clusterIPs": ["172.30.0.9"], "novel": {"x": 1}},
            "status": {"loadBalancer": {}}
        }))
        .unwrap();
        assert!(service.metadata.managed_fields.is_none());
        assert_eq!(service.metadata.annotations.unwrap().len(), 1);
        assert_eq!(service.spec.cluster_ips.unwrap(), ["172.30.0.9"]);
        let empty: EndpointSlice =
            serde_json::from_value(json!({"endpoints": null, "ports": null})).unwrap();
        assert!(empty.endpoints.is_none() && empty.metadata.name.is_none());
    }
}
