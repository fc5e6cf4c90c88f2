//! `networking.k8s.io/v1 Ingress` and `IngressClass`, slim.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// `networking.k8s.io/v1 Ingress`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Ingress {
    /// Slim metadata.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: IngressSpec,
    /// `status`.
    #[serde(default)]
    pub status: IngressStatus,
}

/// `IngressSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressSpec {
    /// The IngressClass that says who serves it.
    pub ingress_class_name: Option<String>,
    /// Where requests go that no rule matches.
    pub default_backend: Option<IngressBackend>,
    /// Certificates.
    pub tls: Option<Vec<IngressTls>>,
    /// Rules.
    pub rules: Option<Vec<IngressRule>>,
}

/// `IngressTLS`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressTls {
    /// Host names, exact or with a wildcard as their first label.
    pub hosts: Option<Vec<String>>,
    /// A Secret of type `kubernetes.io/tls` in the same namespace.
    pub secret_name: Option<String>,
}

/// `IngressRule`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Host name, exact or with a wildcard as its first label; absent for all.
    pub host: Option<String>,
    /// Paths; absent: the rule only names a host.
    pub http: Option<HttpIngressRule>,
}

/// `HTTPIngressRuleValue`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HttpIngressRule {
    /// Paths.
    pub paths: Option<Vec<HttpIngressPath>>,
}

/// `HTTPIngressPath`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpIngressPath {
    /// Path; may be absent for `ImplementationSpecific`.
    pub path: Option<String>,
    /// `Exact`, `Prefix` or `ImplementationSpecific`.
    pub path_type: Option<String>,
    /// Where its requests go.
    pub backend: IngressBackend,
}

/// `IngressBackend`: one of both.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IngressBackend {
    /// A Service in the same namespace.
    pub service: Option<IngressServiceBackend>,
    /// Any other object in the same namespace.
    pub resource: Option<TypedReference>,
}

/// `IngressServiceBackend`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IngressServiceBackend {
    /// Name of the Service.
    pub name: String,
    /// Which of its ports.
    pub port: ServiceBackendPort,
}

/// `ServiceBackendPort`: one of both.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServiceBackendPort {
    /// `spec.ports[].name` of the Service.
    pub name: Option<String>,
    /// `spec.ports[].port` of the Service.
    pub number: Option<i64>,
}

/// `TypedLocalObjectReference`, or the parameters of an IngressClass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TypedReference {
    /// API group; absent for the core group.
    pub api_group: Option<String>,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// `IngressStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IngressStatus {
    /// Where the Ingress is served.
    pub load_balancer: IngressLoadBalancerStatus,
}

/// `IngressLoadBalancerStatus`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IngressLoadBalancerStatus {
    /// Addresses.
    pub ingress: Option<Vec<IngressLoadBalancerIngress>>,
}

/// `IngressLoadBalancerIngress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IngressLoadBalancerIngress {
    /// Address.
    pub ip: Option<String>,
    /// Or a name.
    pub hostname: Option<String>,
}

/// `networking.k8s.io/v1 IngressClass`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct IngressClass {
    /// Slim metadata; an annotation marks the default.
    #[serde(default, deserialize_with = "super::slim_meta")]
    pub metadata: ObjectMeta,
    /// `spec`.
    #[serde(default)]
    pub spec: IngressClassSpec,
}

/// `IngressClassSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IngressClassSpec {
    /// Who serves Ingresses of this class, as `domain/path`.
    pub controller: Option<String>,
    /// Configuration for that controller.
    pub parameters: Option<TypedReference>,
}
