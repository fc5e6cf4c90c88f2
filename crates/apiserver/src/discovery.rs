//! What is served: the documents from which kubectl learns groups, versions, kinds and verbs.

use serde_json::{Value, json};

use crate::http::accept;
use crate::kind::{Kind, Scope, Subresource};
use crate::verbs::create::group_version;
use crate::verbs::subresource;

/// Content type of aggregated discovery.
pub const AGGREGATED_TYPE: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const NAMESPACE_VERBS: &[&str] = &[
    "create", "delete", "get", "list", "patch", "update", "watch",
];

/// The Kubernetes version whose API this is.
pub const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "32", "v1.32.0");

/// `/version`.
pub fn version() -> Value {
    let (major, minor, git) = KUBERNETES_VERSION;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("{git}+portolan.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2024-12-11T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    })
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/`: the paths there are.
pub fn paths(kinds: &[&Kind]) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, versions) in by_group(kinds)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
    {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    json!({"paths": paths})
}

/// `/api`.
pub fn core_versions() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [],
    })
}

/// `/apis`.
pub fn groups(kinds: &[&Kind]) -> Value {
    let groups: Vec<Value> = by_group(kinds)
        .into_iter()
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, versions)| group(name, &versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`, `/apis/GROUP/VERSION` or `/api/v1`.
pub fn one(kinds: &[&Kind], path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (name, version) = match parts.as_slice() {
        ["api", version] => ("", *version),
        ["apis", name, version] if !name.is_empty() => (*name, *version),
        ["apis", name] if !name.is_empty() => {
            let (_, versions) = by_group(kinds)
                .into_iter()
                .find(|(group, _)| group == name)?;
            let mut found = group(name, &versions);
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            return Some(found);
        }
        _ => return None,
    };
    let served: Vec<&&Kind> = kinds
        .iter()
        .filter(|kind| kind.group == name && kind.version == version)
        .collect();
    let first = served.first()?;
    let resources: Vec<Value> = served.iter().flat_map(|kind| resources(kind)).collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(first),
        "resources": resources,
    }))
}

/// Whether an Accept header asks for aggregated discovery before anything else that is served.
pub fn wants_aggregated(header: &str) -> bool {
    accept::parse(header).iter().any(|media| {
        media.kind == "application/json"
            && media.param("g") == "apidiscovery.k8s.io"
            && media.param("v") == "v2"
            && media.param("as") == "APIGroupDiscoveryList"
    })
}

/// apidiscovery.k8s.io/v2 APIGroupDiscoveryList: everything under `/api` or under `/apis`.
pub fn aggregated(kinds: &[&Kind], core: bool) -> Value {
    let items: Vec<Value> = by_group(kinds)
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = kinds
                        .iter()
                        .filter(|kind| kind.group == name && kind.version == *version)
                        .map(|kind| aggregated_resource(kind))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if name.is_empty() {
                json!({})
            } else {
                json!({"name": name})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(kind: &Kind) -> Value {
    let scope = match kind.scope {
        Scope::Cluster => "Cluster",
        Scope::Namespaced => "Namespaced",
    };
    let mut resource = json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": scope,
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = kind
        .subresources
        .iter()
        .map(|part| {
            let (group, version, shown) = response_kind(kind, *part);
            json!({
                "subresource": subresource::path(*part),
                "responseKind": {"group": group, "version": version, "kind": shown},
                "verbs": subresource_verbs(*part),
            })
        })
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = json!(subresources);
    }
    resource
}

fn resources(kind: &Kind) -> Vec<Value> {
    let namespaced = kind.scope == Scope::Namespaced;
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": namespaced,
        "kind": kind.kind,
        "verbs": verbs(kind),
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let mut all = vec![resource];
    for part in kind.subresources {
        let (group, version, shown) = response_kind(kind, *part);
        let mut resource = json!({
            "name": format!("{}/{}", kind.plural, subresource::path(*part)),
            "singularName": "",
            "namespaced": namespaced,
            "kind": shown,
            "verbs": subresource_verbs(*part),
        });
        if (group, version) != (kind.group, kind.version) {
            resource["group"] = json!(group);
            resource["version"] = json!(version);
        }
        all.push(resource);
    }
    all
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    if kind.group.is_empty() && kind.kind == "Namespace" {
        NAMESPACE_VERBS
    } else {
        VERBS
    }
}

fn response_kind(kind: &Kind, part: Subresource) -> (&'static str, &'static str, &'static str) {
    match part {
        Subresource::Scale => ("autoscaling", "v1", "Scale"),
        Subresource::Eviction => ("policy", "v1", "Eviction"),
        Subresource::Binding => ("", "v1", "Binding"),
        Subresource::Status | Subresource::Log | Subresource::Finalize => {
            (kind.group, kind.version, kind.kind)
        }
    }
}

fn subresource_verbs(part: Subresource) -> &'static [&'static str] {
    match part {
        Subresource::Status | Subresource::Scale => &["get", "patch", "update"],
        Subresource::Log => &["get"],
        Subresource::Binding | Subresource::Eviction => &["create"],
        Subresource::Finalize => &["update"],
    }
}

fn group(name: &str, versions: &[&str]) -> Value {
    let listed =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(|version| listed(version)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|version| listed(version)),
    })
}

/// Groups in the order of the table, each with its versions, the preferred one first.
fn by_group<'a>(kinds: &[&'a Kind]) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for kind in kinds {
        match groups.iter_mut().find(|(name, _)| *name == kind.group) {
            Some((_, versions)) if versions.contains(&kind.version) => {}
            Some((_, versions)) => versions.push(kind.version),
            None => groups.push((kind.group, vec![kind.version])),
        }
    }
    groups
}
