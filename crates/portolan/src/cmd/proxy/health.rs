//! The HTTP side: /healthz and /livez for load balancers; these, /metrics, /counters, /ejected, /proxyMode and the pages
//! of [`super::pages`] for operators.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portolan_k8s::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::metrics::Telemetry;

/// Connections that are served at a time; more wait. Load balancers and a scraper or two need a handful.
const CONNECTIONS_MAX: usize = 64;
/// A client that has not sent its request after this while is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens a listening socket.
pub(super) async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Who asks at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Load balancers, from anywhere: they learn how the proxy is, and nothing else.
    LoadBalancers,
    /// Those who run the node: they learn everything.
    Operators,
}

/// When an address that could not be had is tried again, as kube-proxy does.
pub(super) const BIND_RETRY: Duration = Duration::from_secs(5);

/// Serves at an address, as soon as it can be had; with `hard_fail` that is now or never.
pub(super) async fn serve_at(
    address: SocketAddr,
    whom: For,
    telemetry: Arc<Telemetry>,
    hard_fail: bool,
    retry: Duration,
) -> anyhow::Result<()> {
    loop {
        match listen(address).await {
            Ok(listener) => return serve(listener, whom, telemetry).await,
            Err(error) if hard_fail => {
                let words = format!("cannot listen at {address} (--bind-address-hard-fail)");
                return Err(anyhow::Error::new(error).context(words));
            }
            // The data plane matters more than who watches it.
            Err(error) => tracing::error!(%address, %error, ?whom, "cannot listen, trying again"),
        }
        tokio::time::sleep(retry).await;
    }
}

/// Answers for ever.
async fn serve(listener: TcpListener, whom: For, telemetry: Arc<Telemetry>) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    accept(listener, room, move |path| answer(path, whom, &telemetry)).await
}

/// Answers with what `answer` says to a path, as many connections at a time as there is `room`.
pub(in crate::cmd) async fn accept(
    listener: TcpListener,
    room: Arc<Semaphore>,
    answer: impl Fn(&str) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let place = Arc::clone(&room).acquire_owned().await?;
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: the next try must not come at once.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answer = answer.clone();
        connections.spawn(async move {
            let _place = place;
            let answer = service_fn(|request: Request<Incoming>| {
                let response = answer(request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .title_case_headers(true);
            // A client that goes away early is no news.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

fn answer(path: &str, whom: For, telemetry: &Telemetry) -> Response<Full<Bytes>> {
    match path {
        "/healthz" => health(telemetry, true),
        "/livez" => health(telemetry, false),
        _ if whom == For::LoadBalancers => nothing(),
        "/metrics" => reply(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            telemetry.text(),
        ),
        "/counters" => match telemetry.counters() {
            Some(counters) => reply(StatusCode::OK, "application/json", counters.to_string()),
            None => reply(
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "nothing is counted: start the proxy with --count-connections\n".into(),
            ),
        },
        "/ejected" => reply(
            StatusCode::OK,
            "application/json",
            format!("{}\n", telemetry.ejection.json()),
        ),
        "/proxyMode" => reply(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            telemetry.mode().name().into(),
        ),
        "/configz" => reply(
            StatusCode::OK,
            "application/json",
            telemetry.pages.configz(telemetry.mode().name()),
        ),
        "/statusz" => text(telemetry.pages.statusz(telemetry.mode().name())),
        "/flagz" => text(telemetry.pages.flagz()),
        _ => nothing(),
    }
}

fn text(body: String) -> Response<Full<Bytes>> {
    reply(StatusCode::OK, "text/plain; charset=utf-8", body)
}

fn nothing() -> Response<Full<Bytes>> {
    reply(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        "404 page not found\n".into(),
    )
}

/// How often health was asked for, by the status that was answered, as kube-proxy counts it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    healthz: Family<[(&'static str, u16); 1], Counter>,
    livez: Family<[(&'static str, u16); 1], Counter>,
}

impl Asked {
    /// Nobody has asked yet.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let asked = Asked::default();
        let (healthz, livez) = (asked.healthz.clone(), asked.livez.clone());
        registry.register("kubeproxy_proxy_healthz", "Answers at /healthz", healthz);
        registry.register("kubeproxy_proxy_livez", "Answers at /livez", livez);
        asked
    }
}

/// The time that Go writes for none.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `/healthz` also looks whether the node stays; `/livez` does not. The fields are those of kube-proxy; one loop
/// programs both families, so that both have the same health.
fn health(telemetry: &Telemetry, with_node: bool) -> Response<Full<Bytes>> {
    let health = telemetry.health();
    let good = health.alive && (health.eligible || !with_node);
    let time = |at: SystemTime| Timestamp::try_from(at).map_or(NEVER.into(), |t| t.to_string());
    let (now, updated) = (time(SystemTime::now()), health.updated.map(time));
    // Who looks for a recent time finds one, although nothing may have changed for days (kube-proxy).
    let last = if good { Some(&now) } else { updated.as_ref() };
    let mut body = json!({
        "lastUpdated": last.map_or(NEVER, String::as_str),
        "currentTime": now,
        "healthy": health.alive,
    });
    if with_node {
        body["nodeEligible"] = json!(health.eligible);
    }
    if let Some(updated) = updated {
        let family = json!({"lastUpdated": updated, "healthy": health.alive});
        body["status"] = json!({"IPv4": family, "IPv6": family});
    }
    let status = match good {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let answers = match with_node {
        true => &telemetry.asked.healthz,
        false => &telemetry.asked.livez,
    };
    answers.get_or_create(&[("code", status.as_u16())]).inc();
    reply(status, "application/json", body.to_string())
}

pub(in crate::cmd) fn reply(
    status: StatusCode,
    kind: &'static str,
    body: String,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static(kind),
    );
    headers.insert(
        "x-content-type-options",
        http::HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests;
