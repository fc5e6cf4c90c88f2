//! What a new cluster has from the start: its namespaces and the Service `kubernetes`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Api;
use crate::object;
use crate::status::Failure;
use crate::store::{Key, Txn};
use crate::verbs::create::create_in;
use crate::verbs::update::{Place, update_in};

/// Where the Service `default/kubernetes` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesService {
    /// Its ClusterIP.
    pub cluster_ip: IpAddr,
    /// Where the API server is reached from inside the cluster.
    pub endpoint: IpAddr,
    /// Port there.
    pub port: u16,
}

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// How long to wait before trying again to put back what somebody deleted.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Puts the Service `kubernetes` back whenever somebody deletes it, until the server stops.
pub(crate) async fn keep(api: Arc<Api>, service: Option<KubernetesService>) {
    let Some((index, service)) = api.find("", "services").zip(service) else {
        return;
    };
    let mut wake = api.store.wake(index);
    let key = Key::new(index, "default", "kubernetes");
    loop {
        wake.mark_unchanged();
        let missing = api.store.snapshot().get(&key).is_none();
        if missing && let Err(failure) = run(&api, Some(service.clone())).await {
            tracing::warn!(%failure, "the Service kubernetes could not be put back");
        }
        tokio::select! {
            () = api.stopping.cancelled() => return,
            changed = wake.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_DELAY), if missing => {}
        }
    }
}

/// Makes what is missing.
pub(crate) async fn run(api: &Arc<Api>, service: Option<KubernetesService>) -> Result<(), Failure> {
    for name in NAMESPACES {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(api, "", "namespaces", object).await?;
    }
    if let Some(service) = service {
        for (group, plural, object) in kubernetes(&service) {
            ensure(api, group, plural, object).await?;
        }
    }
    Ok(())
}

fn kubernetes(service: &KubernetesService) -> [(&'static str, &'static str, Value); 3] {
    let family = if service.cluster_ip.is_ipv6() {
        "IPv6"
    } else {
        "IPv4"
    };
    let address_type = if service.endpoint.is_ipv6() {
        "IPv6"
    } else {
        "IPv4"
    };
    let metadata =
        |labels: Value| json!({"name": "kubernetes", "namespace": "default", "labels": labels});
    let port = json!([{"name": "https", "port": service.port, "protocol": "TCP"}]);
    // A loopback address means the client's own machine, and is no endpoint: the Service then has none.
    let reachable = !service.endpoint.is_loopback() && !service.endpoint.is_unspecified();
    let only_if = |part: Value| {
        if reachable { json!([part]) } else { json!([]) }
    };
    [
        (
            "",
            "services",
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata(json!({"component": "apiserver", "provider": "kubernetes"})),
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": service.cluster_ip,
                    "clusterIPs": [service.cluster_ip],
                    "ipFamilies": [family],
                    "ipFamilyPolicy": "SingleStack",
                    "internalTrafficPolicy": "Cluster",
                    "sessionAffinity": "None",
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": service.port}],
                },
            }),
        ),
        (
            "",
            "endpoints",
            json!({
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": metadata(json!({"endpointslice.kubernetes.io/skip-mirror": "true"})),
                "subsets": only_if(json!({"addresses": [{"ip": service.endpoint}], "ports": port})),
            }),
        ),
        (
            "discovery.k8s.io",
            "endpointslices",
            json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": metadata(json!({"kubernetes.io/service-name": "kubernetes"})),
                "addressType": address_type,
                "endpoints": only_if(json!({"addresses": [service.endpoint], "conditions": {"ready": true}})),
                "ports": port,
            }),
        ),
    ]
}

/// Creates an object; where it exists, its fields are set to these.
async fn ensure(api: &Arc<Api>, group: &str, plural: &str, object: Value) -> Result<(), Failure> {
    let Some(index) = api.find(group, plural) else {
        return Ok(());
    };
    let shared = Arc::clone(api);
    let job = move |txn: &mut Txn<'_>| {
        let key = Key::new(index, object::namespace(&object), object::name(&object));
        if txn.get(&key).is_none() {
            return create_in(&shared, txn, index, object, false).map(drop);
        }
        let place = Place {
            key,
            subresource: None,
            dry_run: false,
        };
        let change = |old: &Value| {
            let mut changed = old.clone();
            json_patch::merge(&mut changed, &object);
            Ok(changed)
        };
        update_in(&shared, txn, &place, change).map(drop)
    };
    api.store.write(false, job).await
}
