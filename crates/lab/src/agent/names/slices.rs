//! The EndpointSlices of this node's answerer: one in each family, written by nobody else.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::names::{METRICS_PORT, NAMESPACE, PORT, SERVICE};
use crate::plan::NodePlan;

/// Who has written the slices.
const MANAGED_BY: &str = "portolan-lab";
/// How long to wait after a failed request.
const RETRY: Duration = Duration::from_millis(100);
/// A request to the API that takes longer is tried again.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// How often they are written though nothing has changed: somebody may have deleted them.
const REFRESH: Duration = Duration::from_secs(30);

/// Writes whether the answerer answers, as soon as it is known and wherever it changes, for ever.
pub async fn publish(client: Client, plan: NodePlan, mut answers: watch::Receiver<Option<bool>>) {
    let api: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    loop {
        let known = *answers.borrow_and_update();
        let wait = match known {
            None => REFRESH,
            Some(ready) => {
                match tokio::time::timeout(REQUEST_MAX, write(&api, plan, ready)).await {
                    Ok(Ok(())) => REFRESH,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "can't tell the API who answers names");
                        RETRY
                    }
                    Err(_) => RETRY,
                }
            }
        };
        if let Ok(Err(_)) = tokio::time::timeout(wait, answers.changed()).await {
            return;
        }
    }
}

async fn write(api: &Api<EndpointSlice>, plan: NodePlan, ready: bool) -> kube::Result<()> {
    for ip in plan.ips() {
        let wanted = slice(plan, ip, ready);
        let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
        let params = PatchParams::default();
        match api.patch(name, &params, &Patch::Merge(&wanted)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                let new = serde_json::from_value(wanted).map_err(kube::Error::SerdeError)?;
                api.create(&PostParams::default(), &new).await?;
            }
            other => drop(other?),
        }
    }
    Ok(())
}

fn slice(plan: NodePlan, ip: IpAddr, ready: bool) -> Value {
    let (family, suffix) = match ip {
        IpAddr::V4(_) => ("IPv4", "ipv4"),
        IpAddr::V6(_) => ("IPv6", "ipv6"),
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{SERVICE}-{}-{suffix}", plan.name()),
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
            },
        },
        "addressType": family,
        "ports": [
            {"name": "dns", "port": PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "port": PORT, "protocol": "TCP"},
            {"name": "metrics", "port": METRICS_PORT, "protocol": "TCP"},
        ],
        "endpoints": [{
            "addresses": [ip],
            "nodeName": plan.name(),
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_one_of_kubernetes() {
        let plan = NodePlan { number: 2 };
        let [v4, v6] = plan.ips().map(|ip| slice(plan, ip, false));
        assert_eq!(v4["metadata"]["name"], "kube-dns-n2-ipv4");
        assert_eq!(v6["metadata"]["name"], "kube-dns-n2-ipv6");
        for (value, ip) in [(v4, "192.168.0.12"), (v6, "fd00:192:168::12")] {
            let slice: EndpointSlice = serde_json::from_value(value).unwrap();
            assert_eq!(slice.endpoints[0].addresses, [ip]);
            let conditions = slice.endpoints[0].conditions.as_ref().unwrap();
            assert_eq!(conditions.ready, Some(false));
        }
    }
}
