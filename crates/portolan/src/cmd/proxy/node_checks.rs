//! `healthCheckNodePort`: on each node an HTTP server for each LoadBalancer Service with externalTrafficPolicy Local,
//! in which load balancers see whether they may send traffic here. Bytes and behaviour are kube-proxy's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use portolan_model::node_checks::{NodeChecks, REASON, Served};
use portolan_model::{Problem, ServiceName, Snapshot};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::health;
use super::metrics::Telemetry;

/// When a port that could not be opened is tried again.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// Connections of all these servers at a time; more wait. A load balancer asks each of its ports every few seconds.
const CONNECTIONS_MAX: usize = 256;

/// The servers, each at its address.
pub(super) struct Servers {
    open: BTreeMap<SocketAddr, Server>,
    room: Arc<Semaphore>,
    telemetry: Arc<Telemetry>,
}

/// One that listens; dropping it ends it.
struct Server {
    service: ServiceName,
    local_endpoints: Arc<AtomicUsize>,
    task: JoinSet<anyhow::Result<()>>,
}

impl Servers {
    /// None yet.
    pub(super) fn new(telemetry: Arc<Telemetry>) -> Self {
        Servers {
            open: BTreeMap::new(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            telemetry,
        }
    }

    /// Serves what stands in the kernel until nothing can stand any more.
    pub(super) async fn follow(
        mut self,
        mut standing: watch::Receiver<Option<Snapshot>>,
        problems: mpsc::Sender<Vec<Problem>>,
        retry: Duration,
    ) -> anyhow::Result<()> {
        let mut checks = NodeChecks::default();
        let mut failed = false;
        loop {
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = tokio::time::sleep(retry), if failed => {}
            }
            let Some(snapshot) = standing.borrow_and_update().clone() else {
                continue;
            };
            checks.on_snapshot(&snapshot);
            let (served, mut found) = checks.served();
            let refused = self.bring_to(served).await;
            failed = !refused.is_empty();
            let node = &snapshot.node().name;
            found.extend(refused.iter().map(|refused| told(node, refused)));
            // Telling people never holds up traffic.
            if !found.is_empty() && problems.try_send(found).is_err() {
                tracing::debug!("too many problems wait to be told");
            }
        }
    }

    /// Closes and opens what has changed; returns what could not be opened.
    async fn bring_to(&mut self, wanted: BTreeMap<SocketAddr, Served>) -> Vec<Refused> {
        let stays = |(at, server): &(&SocketAddr, &Server)| {
            let served = wanted.get(at);
            served.is_some_and(|served| served.service == server.service)
        };
        let ended = self.open.iter().filter(|open| !stays(open));
        let ended: Vec<SocketAddr> = ended.map(|(at, _)| *at).collect();
        for mut server in ended.iter().filter_map(|at| self.open.remove(at)) {
            // The port is free only when the task has ended.
            server.task.shutdown().await;
        }
        let mut refused = Vec::new();
        for (at, served) in wanted {
            if let Some(server) = self.open.get(&at) {
                let count = &server.local_endpoints;
                count.store(served.local_endpoints, Ordering::Relaxed);
                continue;
            }
            match health::listen(at).await {
                Ok(listener) => drop(self.open.insert(at, self.server(listener, served))),
                Err(error) => refused.push(Refused {
                    service: served.service,
                    at,
                    error,
                }),
            }
        }
        refused
    }

    fn server(&self, listener: TcpListener, served: Served) -> Server {
        let local_endpoints = Arc::new(AtomicUsize::new(served.local_endpoints));
        let (service, count) = (served.service.clone(), Arc::clone(&local_endpoints));
        let telemetry = Arc::clone(&self.telemetry);
        let answer = move |_: &str| {
            let healthy = telemetry.health().alive;
            answer(&service, count.load(Ordering::Relaxed), healthy)
        };
        let mut task = JoinSet::new();
        task.spawn(health::accept(listener, Arc::clone(&self.room), answer));
        Server {
            service: served.service,
            local_endpoints,
            task,
        }
    }
}

/// A port that could not be opened.
struct Refused {
    service: ServiceName,
    at: SocketAddr,
    error: std::io::Error,
}

fn told(node: &str, refused: &Refused) -> Problem {
    Problem {
        service: refused.service.clone(),
        reason: REASON,
        message: format!(
            "node {node} cannot serve healthCheckNodePort {} at {}: {}; it tries again until the port is free.",
            refused.at.port(),
            refused.at.ip(),
            refused.error
        ),
    }
}

/// As kube-proxy writes it, with tabs and without a line end.
fn answer(service: &ServiceName, local_endpoints: usize, healthy: bool) -> Response<Full<Bytes>> {
    let status = match local_endpoints > 0 && healthy {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let ServiceName { namespace, name } = service;
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{namespace}\",\n\t\t\"name\": \"{name}\"\n\t}},\n\t\"localEndpoints\": {local_endpoints},\n\t\"serviceProxyHealthy\": {healthy}\n}}"
    );
    let mut response = health::reply(status, "application/json", body);
    let weight = HeaderValue::from(local_endpoints);
    let headers = response.headers_mut();
    headers.insert("x-load-balancing-endpoint-weight", weight);
    response
}

#[cfg(test)]
mod tests;
