//! The echo server's HTTP side. `GET /-/slow?ms=`, `/-/unready`, `/-/ready`, `/-/hang` and `/-/normal` change what it
//! does, `/healthz` and `/readyz` answer probes, and every other path answers who it is and whom it saw:
//! as JSON for clients that accept it, as plain lines for the others.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lines::wait;
use super::state::{State, plain};

/// How long a client may take to send its request's head.
const HEAD_MAX: Duration = Duration::from_secs(30);

/// Accepts until stopped, then waits for the requests that are running.
pub async fn serve(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, client)) = accepted {
                connections.spawn(converse(stream, plain(client), state.clone(), stop.clone()));
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(
    stream: TcpStream,
    client: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, client, request).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let stopped = tokio::select! {
        _ = connection.as_mut() => false,
        () = stop.cancelled() => true,
    };
    if stopped {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(
    state: &State,
    client: SocketAddr,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let mut response = match request.uri().path() {
        "/healthz" if state.hangs() => {
            wait(state).await;
            text(StatusCode::OK, "ok")
        }
        "/healthz" => text(StatusCode::OK, "ok"),
        "/readyz" if state.is_ready() => text(StatusCode::OK, "ready"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        path if path.starts_with("/-/") => {
            control(state, path, request.uri().query().unwrap_or_default())
        }
        _ => {
            wait(state).await;
            describe(state, client, &request)
        }
    };
    if !matches!(request.uri().path(), "/healthz" | "/readyz") {
        let (method, uri, code) = (request.method(), request.uri(), response.status().as_u16());
        state.tell(format_args!("{client} {method} {uri} {code}"));
    }
    if state.is_terminating() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn control(state: &State, path: &str, query: &str) -> Response<Full<Bytes>> {
    match path {
        "/-/unready" => state.set_ready(false),
        "/-/ready" => state.set_ready(true),
        "/-/hang" => state.set_hang(true),
        "/-/normal" => {
            state.set_ready(true);
            state.set_hang(false);
            state.set_delay_ms(0);
        }
        "/-/slow" => match query.strip_prefix("ms=").map(str::parse) {
            Some(Ok(ms)) => state.set_delay_ms(ms),
            _ => return text(StatusCode::BAD_REQUEST, "say how slow: /-/slow?ms=500"),
        },
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "one of /-/slow?ms= /-/unready /-/ready /-/hang /-/normal",
            );
        }
    }
    text(StatusCode::OK, "done")
}

fn describe<B>(state: &State, client: SocketAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let who = &state.identity;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    if wants_json(request.headers()) {
        let headers: serde_json::Map<String, serde_json::Value> = request
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into(),
                )
            })
            .collect();
        let body = serde_json::json!({
            "pod": who.name, "node": who.node, "podIP": who.pod_ip, "version": who.version,
            "client": client.to_string(), "clientIP": client.ip().to_string(),
            "method": request.method().as_str(), "path": path, "headers": headers,
        });
        let mut response = text(StatusCode::OK, &body.to_string());
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        return response;
    }
    let lines = format!(
        "pod: {}\nnode: {}\npodIP: {}\nversion: {}\nclient: {client}\nrequest: {} {path}",
        who.name,
        who.node,
        who.pod_ip,
        who.version,
        request.method()
    );
    text(StatusCode::OK, &lines)
}

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("json"))
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
