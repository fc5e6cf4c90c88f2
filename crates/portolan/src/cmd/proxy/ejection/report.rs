//! What people see of ejection: metrics, `/ejected`, log lines, and Events on the Services.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use portolan_controllers::events::{Level, Recorder, reference};
use portolan_k8s::{Timestamp, wire};
use portolan_model::health::{Answer, News, Reason};
use portolan_model::{Listener, Overlay, PortKey, ServiceName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Events that may wait to be written; more are dropped, the log has them.
pub(super) const EVENTS_WAITING_MAX: usize = 256;

/// Counters with one label.
type By = Family<[(&'static str, &'static str); 1], Counter>;

/// Metrics, and the list of who is out.
#[derive(Debug, Default)]
pub(in crate::cmd::proxy) struct Measures {
    ejected: Gauge,
    ejections: By,
    readmissions: Counter,
    kept: By,
    checks: By,
    out: Mutex<Vec<Out>>,
}

/// An endpoint that is out.
#[derive(Clone, Debug)]
pub(super) struct Out {
    listener: Listener,
    ports: Vec<PortKey>,
    reason: Reason,
    since: SystemTime,
}

impl Out {
    pub(super) fn new(
        listener: Listener,
        ports: &BTreeSet<PortKey>,
        reason: Reason,
        age: Duration,
    ) -> Self {
        let now = SystemTime::now();
        Out {
            listener,
            ports: ports.iter().cloned().collect(),
            reason,
            since: now.checked_sub(age).unwrap_or(now),
        }
    }
}

impl Measures {
    /// Everything at zero, told by `registry`.
    pub(in crate::cmd::proxy) fn register(registry: &mut Registry) -> Self {
        let measures = Measures::default();
        registry.register(
            "portolan_endpoints_ejected",
            "Endpoints that are out of rotation because they do not answer",
            measures.ejected.clone(),
        );
        registry.register(
            "portolan_endpoint_ejections",
            "Times that an endpoint left rotation, by what it did",
            measures.ejections.clone(),
        );
        registry.register(
            "portolan_endpoint_readmissions",
            "Times that an endpoint came back into rotation",
            measures.readmissions.clone(),
        );
        registry.register(
            "portolan_endpoints_kept",
            "Times that an endpoint did not answer and stayed, by why: the limit, or no other one answers either",
            measures.kept.clone(),
        );
        registry.register(
            "portolan_endpoint_checks",
            "Checks of endpoints, by their answer",
            measures.checks.clone(),
        );
        measures
    }

    pub(super) fn checked(&self, answer: Answer) {
        let answer = match answer {
            Answer::Answered => "answered",
            Answer::Silent => "silent",
            Answer::Refused => "refused",
            Answer::Unreachable => "unreachable",
            Answer::Unknown => "unknown",
        };
        self.checks.get_or_create(&[("answer", answer)]).inc();
    }

    pub(super) fn count(&self, news: &News) {
        match news {
            News::Ejected(_, reason) => {
                let label = [("reason", reason.as_str())];
                self.ejections.get_or_create(&label).inc();
            }
            News::Readmitted(..) => drop(self.readmissions.inc()),
            News::KeptByLimit(..) => drop(self.kept.get_or_create(&[("why", "limit")]).inc()),
            News::KeptAlone(..) => drop(self.kept.get_or_create(&[("why", "alone")]).inc()),
        }
    }

    pub(super) fn show(&self, out: Vec<Out>) {
        self.ejected
            .set(i64::try_from(out.len()).unwrap_or(i64::MAX));
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) = out;
    }

    /// Who is out, for `/ejected`.
    pub(in crate::cmd::proxy) fn json(&self) -> Value {
        let out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |out: &Out| {
            let since = Timestamp::try_from(out.since).map(|t| t.to_string());
            json!({
                "endpoint": out.listener.address.to_string(),
                "protocol": out.listener.protocol.to_string(),
                "servicePorts": out.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "reason": out.reason.as_str(),
                "since": since.unwrap_or_default(),
            })
        };
        out.iter().map(one).collect()
    }
}

/// Something to be written as Events.
#[derive(Debug)]
pub(super) struct Told {
    services: Vec<ServiceName>,
    level: Level,
    pub(super) reason: &'static str,
    message: String,
}

/// Turns news into log lines and Events.
#[derive(Debug)]
pub(super) struct Reporter {
    /// The name of this node: what one has found out, another one may not see.
    pub(super) node: String,
    pub(super) events: mpsc::Sender<Told>,
}

impl Reporter {
    pub(super) fn tell(&self, news: &News, overlay: &Overlay) {
        let node = &self.node;
        let (listener, level, reason, message) = match news {
            News::Ejected(listener, why) => {
                tracing::warn!(endpoint = %listener, reason = why.as_str(), "endpoint ejected: {why}");
                let message = format!(
                    "{listener} gets no new connections on node {node} until it answers: {why}"
                );
                (*listener, Level::Warning, "EndpointEjected", message)
            }
            News::Readmitted(listener, after) => {
                tracing::info!(endpoint = %listener, ?after, "endpoint readmitted");
                let message = format!("{listener} gets connections again on node {node}");
                (*listener, Level::Normal, "EndpointReadmitted", message)
            }
            News::KeptByLimit(listener, why) => {
                tracing::warn!(endpoint = %listener, reason = why.as_str(), "endpoint kept by the limit: {why}");
                let message = format!(
                    "{listener} stays on node {node}, because no more endpoints may be ejected, though {why}"
                );
                (*listener, Level::Warning, "EndpointKept", message)
            }
            News::KeptAlone(listener, why) => {
                tracing::info!(endpoint = %listener, reason = why.as_str(), "endpoint kept, for no other one answers or it never answered a check: {why}");
                return;
            }
        };
        let mut services: Vec<ServiceName> = overlay
            .listed_by(listener)
            .into_iter()
            .map(|key| key.service)
            .collect();
        services.dedup();
        let told = Told {
            services,
            level,
            reason,
            message,
        };
        // Telling people never holds up traffic.
        if self.events.try_send(told).is_err() {
            tracing::debug!("too many Events wait to be written");
        }
    }
}

/// Writes Events, until nothing can come any more.
pub(super) async fn write(
    client: kube::Client,
    mut told: mpsc::Receiver<Told>,
) -> anyhow::Result<()> {
    let recorder = Recorder::new(client.clone());
    while let Some(told) = told.recv().await {
        for name in &told.services {
            let api: kube::Api<wire::Service> =
                kube::Api::namespaced(client.clone(), &name.namespace);
            if let Ok(Some(service)) = api.get_opt(&name.name).await {
                let (reason, message) = (told.reason, &told.message);
                let whom = reference(&service);
                recorder
                    .tell("portolan-proxy", whom, told.level, reason, message)
                    .await;
            }
        }
    }
    Ok(())
}
