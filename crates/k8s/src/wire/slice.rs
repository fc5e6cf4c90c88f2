//! `discovery.k8s.io/v1 EndpointSlice`, slim.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Slim metadata; label `kubernetes.io/service-name` names the Service.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default)]
    pub address_type: Option<String>,
    /// Who stands behind the Service.
    #[serde(default)]
    pub endpoints: Option<Vec<Endpoint>>,
    /// Resolved ports, which go with every endpoint.
    #[serde(default)]
    pub ports: Option<Vec<EndpointPort>>,
}

/// `Endpoint`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; only the first one counts.
    pub addresses: Option<Vec<String>>,
    /// Conditions.
    pub conditions: Conditions,
    /// Name below that of the Service.
    pub hostname: Option<String>,
    /// Name of its node.
    pub node_name: Option<String>,
    /// The object that it was made of.
    pub target_ref: Option<TargetRef>,
    /// Where it runs.
    pub zone: Option<String>,
    /// Topology hints.
    pub hints: Option<Hints>,
}

/// `ObjectReference`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `Pod`, mostly.
    pub kind: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// `EndpointConditions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Absent means true.
    pub ready: Option<bool>,
    /// Absent means the value of `ready`.
    pub serving: Option<bool>,
    /// Absent means false.
    pub terminating: Option<bool>,
}

/// `EndpointHints`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hints {
    /// Zones that should use this endpoint.
    pub for_zones: Option<Vec<ForName>>,
    /// Nodes that should use this endpoint.
    pub for_nodes: Option<Vec<ForName>>,
}

/// `ForZone` or `ForNode`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ForName {
    /// Name of the zone or node.
    pub name: String,
}

/// `EndpointPort`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EndpointPort {
    /// Name of the Service port that it belongs to.
    pub name: Option<String>,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// Number; absent means every port, which a Service cannot use.
    pub port: Option<i64>,
}
