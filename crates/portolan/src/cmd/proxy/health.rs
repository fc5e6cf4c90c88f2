//! The HTTP side: /healthz, /livez, /metrics, /counters, /ejected, /proxyMode.

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

/// Answers for ever.
pub(super) async fn serve(
    listener: TcpListener,
    whom: For,
    telemetry: Arc<Telemetry>,
) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    accept(listener, room, move |path| answer(path, whom, &telemetry)).await
}

/// Answers with what `answer` says to a path, as many connections at a time as there is `room`.
pub(super) async fn accept(
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
            telemetry.ejection.json().to_string(),
        ),
        "/proxyMode" => reply(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "nftables".into(),
        ),
        _ => nothing(),
    }
}

fn nothing() -> Response<Full<Bytes>> {
    reply(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        "404 page not found\n".into(),
    )
}

/// `/healthz` also looks whether the node stays; `/livez` does not.
fn health(telemetry: &Telemetry, with_node: bool) -> Response<Full<Bytes>> {
    let health = telemetry.health();
    let good = health.alive && (health.eligible || !with_node);
    let time = |at: SystemTime| {
        Timestamp::try_from(at)
            .map(|t| t.to_string())
            .unwrap_or_default()
    };
    let mut body = json!({
        "lastUpdated": health.updated.map(time).unwrap_or_default(),
        "currentTime": time(SystemTime::now()),
    });
    if with_node {
        body["nodeEligible"] = json!(health.eligible);
    }
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    reply(status, "application/json", body.to_string())
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
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
