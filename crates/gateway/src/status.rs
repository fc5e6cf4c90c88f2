//! `status.loadBalancer` of Ingresses: where they are served, as the operator says; empty when they are not ours.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use portolan_k8s::wire::networking::{Ingress, IngressLoadBalancerIngress};
use serde_json::{Value, json};

use crate::ingress::Routing;
use crate::problem::ObjectName;

/// A status that must be written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// The Ingress.
    pub ingress: ObjectName,
    /// A merge patch.
    pub patch: Value,
}

/// What must be written so that every Ingress that is served has these addresses, or names, and no other has exactly
/// them: another status is somebody else's.
pub fn status_changes(
    ingresses: &BTreeMap<ObjectName, Arc<Ingress>>,
    routing: &Routing,
    addresses: &[String],
) -> Vec<StatusChange> {
    if addresses.is_empty() {
        return Vec::new();
    }
    let wanted: Vec<IngressLoadBalancerIngress> =
        addresses.iter().map(|text| place(text)).collect();
    let has = |name: &ObjectName| {
        let ingress = ingresses.get(name)?;
        Some(
            ingress
                .status
                .load_balancer
                .ingress
                .clone()
                .unwrap_or_default(),
        )
    };
    let change = |name: &ObjectName, addresses: Value| StatusChange {
        ingress: name.clone(),
        patch: json!({"status": {"loadBalancer": {"ingress": addresses}}}),
    };
    let served = routing
        .served
        .iter()
        .filter(|name| has(name).is_some_and(|has| has != wanted));
    let served = served.map(|name| change(name, wanted.iter().map(shown).collect()));
    let ignored = routing.ignored.iter().map(|ignored| &ignored.ingress);
    let ignored = ignored.filter(|name| has(name).is_some_and(|has| has == wanted));
    served
        .chain(ignored.map(|name| change(name, Value::Null)))
        .collect()
}

fn place(text: &str) -> IngressLoadBalancerIngress {
    match text.parse::<IpAddr>() {
        Ok(ip) => IngressLoadBalancerIngress {
            ip: Some(ip.to_string()),
            hostname: None,
        },
        Err(_) => IngressLoadBalancerIngress {
            ip: None,
            hostname: Some(text.to_owned()),
        },
    }
}

fn shown(place: &IngressLoadBalancerIngress) -> Value {
    match (&place.ip, &place.hostname) {
        (Some(ip), _) => json!({"ip": ip}),
        (None, hostname) => json!({"hostname": hostname}),
    }
}

/// Writes a status.
pub async fn apply_status(client: &Client, change: &StatusChange) -> kube::Result<()> {
    let api: Api<Ingress> = Api::namespaced(client.clone(), &change.ingress.namespace);
    let patch = Patch::Merge(&change.patch);
    api.patch_status(&change.ingress.name, &PatchParams::default(), &patch)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::{CONTROLLER, Objects, Options, build};

    fn changes(addresses: &[&str]) -> Vec<(String, Value)> {
        let ingress = |name: &str, class: &str, addresses: Value| {
            let spec = json!({"ingressClassName": class, "defaultBackend": {}});
            let ingress = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec,
                "status": {"loadBalancer": {"ingress": addresses}}});
            (
                ObjectName::new("shop", name),
                Arc::new(serde_json::from_value(ingress).unwrap()),
            )
        };
        let class = json!({"metadata": {"name": "ours"}, "spec": {"controller": CONTROLLER}});
        let right = json!([{"ip": "198.51.100.1"}, {"hostname": "a.com"}]);
        let objects = Objects {
            classes: [(
                ObjectName::new("", "ours"),
                Arc::new(serde_json::from_value(class).unwrap()),
            )]
            .into(),
            ingresses: [
                ingress("empty", "ours", Value::Null),
                ingress("old", "ours", json!([{"ip": "198.51.100.9"}])),
                ingress("right", "ours", right.clone()),
                ingress("lost", "theirs", right),
                ingress("theirs", "theirs", json!([{"ip": "198.51.100.9"}])),
            ]
            .into(),
            ..Objects::default()
        };
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let routing = build(&objects, &Options::default());
        let all = status_changes(&objects.ingresses, &routing, &addresses).into_iter();
        all.map(|change| {
            (
                change.ingress.name.to_string(),
                change.patch["status"]["loadBalancer"]["ingress"].clone(),
            )
        })
        .collect()
    }

    #[test]
    fn served_ones_get_addresses_and_lost_ones_lose_them() {
        let right = json!([{"ip": "198.51.100.1"}, {"hostname": "a.com"}]);
        let expected = [
            ("empty".to_owned(), right.clone()),
            ("old".to_owned(), right),
            ("lost".to_owned(), Value::Null),
        ];
        assert_eq!(changes(&["198.51.100.1", "a.com"]), expected);
        assert!(changes(&[]).is_empty());
    }
}
