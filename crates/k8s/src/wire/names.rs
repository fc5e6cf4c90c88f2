//! Kinds that only names are made of, slim: namespaces, pods, ServiceImports.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

use super::Port;

/// `v1 Namespace`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Namespace {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
}

/// `v1 Pod`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: PodSpec,
    /// `status`.
    #[serde(default)]
    pub status: PodStatus,
}

/// `PodSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// It has no network of its own.
    pub host_network: Option<bool>,
}

/// `PodStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: Option<String>,
    /// The first of `podIPs`.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// One address per family.
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Vec<PodIp>>,
}

/// `PodIP`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: Option<String>,
}

/// `multicluster.x-k8s.io ServiceImport` (KEP-1645).
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ServiceImport {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: ServiceImportSpec,
}

/// `ServiceImportSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceImportSpec {
    /// `ClusterSetIP` or `Headless`.
    pub r#type: Option<String>,
    /// Virtual addresses.
    pub ips: Option<Vec<String>>,
    /// Ports.
    pub ports: Option<Vec<Port>>,
}
