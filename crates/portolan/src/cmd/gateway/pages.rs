//! What operators ask a running gateway: metrics, the routes with their hits, whether it lives, and whether it serves.

mod nginx;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use portolan_dns::metrics::{buckets, family, line};
use portolan_gateway::Followed;
use portolan_gateway::server::Observer;
use portolan_gateway::tally::{BOUNDS_US, Hits, Tally};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};

use super::routes;
use crate::cmd::proxy::health::{accept, reply};
use crate::cmd::proxy::process::Process;

/// Connections that are served at a time; more wait. Probes and a scraper or two need a handful.
const CONNECTIONS_MAX: usize = 64;

/// Ingresses that have numbers of their own. Further ones are counted together: a scraper pays for some twenty lines
/// of each of them, for ever.
const INGRESSES_MAX: usize = 1000;

/// What is told; cheap to copy.
#[derive(Clone)]
pub(super) struct State {
    /// Set once the gateway serves.
    observer: Arc<OnceLock<Observer>>,
    followed: watch::Receiver<Option<Followed>>,
    is_leaving: Arc<AtomicBool>,
}

impl State {
    pub(super) fn new(followed: watch::Receiver<Option<Followed>>) -> State {
        State {
            observer: Arc::default(),
            followed,
            is_leaving: Arc::default(),
        }
    }

    /// From now on, this can be seen.
    pub(super) fn serve(&self, observer: Observer) {
        let _ = self.observer.set(observer);
    }

    /// From now on, it says that it does not serve.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }
}

/// Opens the port.
pub(super) fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen at {address} (--metrics-address)"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers for ever.
pub(super) async fn serve(listener: TcpListener, state: State) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let answering = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accept(listener, room, move |path| answer(path, &state)).await
    };
    if let Err(error) = answering.await {
        tracing::error!(%error, "pages for operators are not served any more");
    }
}

fn answer(path: &str, state: &State) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let followed = state.followed.borrow();
    let observer = state.observer.get();
    let unready = || reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n".into());
    match (path, observer, &*followed) {
        ("/healthz", ..) => reply(StatusCode::OK, TEXT, "ok\n".into()),
        ("/readyz", Some(_), _) if !state.is_leaving.load(Ordering::Relaxed) => {
            reply(StatusCode::OK, TEXT, "ok\n".into())
        }
        ("/routes", Some(observer), Some(followed)) => {
            let text = routes::text(followed, Some(&observer.tally()));
            reply(StatusCode::OK, TEXT, text)
        }
        ("/readyz" | "/routes", ..) => unready(),
        ("/metrics", observer, followed) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            let observer = observer.cloned().unwrap_or_default();
            let text = metrics(&observer, followed.as_ref());
            reply(StatusCode::OK, kind, text)
        }
        _ => reply(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".into()),
    }
}

fn metrics(observer: &Observer, followed: Option<&Followed>) -> String {
    let mut out = String::new();
    let tally = observer.tally();
    write_requests(&mut out, &tally);
    for (name, kind, help, value) in [
        (
            "portolan_gateway_connections",
            "gauge",
            "Connections of clients.",
            tally.open,
        ),
        (
            "portolan_gateway_connections_total",
            "counter",
            "Connections of clients that were taken.",
            tally.connections,
        ),
        (
            "portolan_gateway_sick_endpoints",
            "gauge",
            "Endpoints that do not pass the checks of their routes.",
            observer.sick() as u64,
        ),
        (
            "portolan_gateway_access_log_lost_lines_total",
            "counter",
            "Lines of the access log that nobody took in time.",
            observer.lost_lines(),
        ),
    ] {
        family(&mut out, name, kind, help);
        line(&mut out, name, "", value);
    }
    if let Some(followed) = followed {
        let routes = followed.live.table.rows().len();
        let problems = followed.routing.problems.len();
        let help = "Routes that are served.";
        family(&mut out, "portolan_gateway_routes", "gauge", help);
        line(&mut out, "portolan_gateway_routes", "", routes);
        let help = "What cannot be carried out of Ingresses and their classes.";
        family(&mut out, "portolan_gateway_problems", "gauge", help);
        line(&mut out, "portolan_gateway_problems", "", problems);
    }
    nginx::write(&mut out, &tally, followed.is_some());
    process(&mut out);
    out
}

/// What every program tells of itself.
fn process(out: &mut String) {
    let mut registry = Registry::default();
    Process::register(&mut registry).tell();
    let mut text = String::new();
    if encode_registry(&mut text, &registry).is_ok() {
        out.push_str(&text);
    }
}

/// By Ingress and class of status; times of all together.
fn write_requests(out: &mut String, tally: &Tally) {
    let mut all = tally.others.clone();
    tally.routes.values().for_each(|hits| all.add(hits));
    let name = "portolan_gateway_requests_total";
    family(
        out,
        name,
        "counter",
        "Requests by Ingress and class of status; empty names for those of no route of their own.",
    );
    for ((namespace, ingress), hits) in by_ingress(tally) {
        let classes = hits.by_class().into_iter().zip(1..);
        for (count, class) in classes.filter(|(count, _)| *count > 0) {
            let labels =
                format!("namespace=\"{namespace}\",ingress=\"{ingress}\",code=\"{class}xx\"");
            line(out, name, &labels, count);
        }
    }
    let name = "portolan_gateway_request_duration_seconds";
    family(
        out,
        name,
        "histogram",
        "Times from the head of a request to the end of its answer.",
    );
    let bounds = BOUNDS_US.map(|us| us as f64 / 1e6);
    buckets(out, name, "", &all.times, &bounds, all.sum_us as f64 / 1e6);
}

/// What is counted, by namespace and name of the Ingress; under empty names what has no numbers of its own.
fn by_ingress(tally: &Tally) -> BTreeMap<(&str, &str), Hits> {
    let mut all: BTreeMap<(&str, &str), Hits> = BTreeMap::new();
    for (origin, hits) in &tally.routes {
        let of = (&*origin.object.namespace, &*origin.object.name);
        all.entry(of).or_default().add(hits);
    }
    let mut others = tally.others.clone();
    while all.len() > INGRESSES_MAX {
        if let Some((_, hits)) = all.pop_last() {
            others.add(&hits);
        }
    }
    all.insert(("", ""), others);
    all
}

#[cfg(test)]
mod tests {
    use portolan_gateway::{ObjectName, Origin};

    use super::*;

    fn counted(ingresses: usize) -> String {
        let mut tally = Tally::default();
        let hits = |status| {
            let mut hits = Hits {
                statuses: vec![(status, 1)],
                sum_us: 3000,
                sent: 7,
                ..Hits::default()
            };
            hits.times[3] = 1;
            hits
        };
        for index in 0..ingresses {
            let origin = Origin {
                kind: "Ingress",
                object: ObjectName::new("shop", &format!("i{index:05}")),
                field: "spec.rules[0]".to_owned(),
            };
            tally.routes.insert(origin, hits(200));
        }
        tally.others = hits(404);
        let mut out = String::new();
        write_requests(&mut out, &tally);
        nginx::write(&mut out, &tally, true);
        out
    }

    #[test]
    fn requests_are_told_by_ingress() {
        let text = counted(1);
        for wanted in [
            "portolan_gateway_requests_total{namespace=\"shop\",ingress=\"i00000\",code=\"2xx\"} 1\n",
            "portolan_gateway_requests_total{namespace=\"\",ingress=\"\",code=\"4xx\"} 1\n",
            "portolan_gateway_request_duration_seconds_bucket{le=\"0.005\"} 2\n",
            "portolan_gateway_request_duration_seconds_count 2\n",
            "nginx_ingress_controller_requests{controller_class=\"portolan.dev/gateway\",controller_namespace=\"\",\
             controller_pod=\"\",namespace=\"shop\",ingress=\"i00000\",status=\"200\"} 1\n",
            "ingress=\"i00000\",le=\"0.0025\"} 0\n",
            "ingress=\"i00000\",le=\"0.005\"} 1\n",
            "ingress=\"i00000\"} 7\n",
        ] {
            assert!(text.contains(wanted), "{wanted}{text}");
        }
    }

    #[test]
    fn so_many_ingresses_have_lines_of_their_own() {
        let text = counted(INGRESSES_MAX + 5);
        for label in ["code=\"2xx\"", "status=\"200\""] {
            let lines = text.lines().filter(|line| line.contains(label));
            assert_eq!(lines.count(), INGRESSES_MAX + 1);
        }
        let others =
            "portolan_gateway_requests_total{namespace=\"\",ingress=\"\",code=\"2xx\"} 5\n";
        assert!(text.contains(others));
    }
}
