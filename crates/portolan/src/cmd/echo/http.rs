//! The echo server's HTTP side. `GET /-/slow?ms=`, `/-/unready`, `/-/ready`, `/-/hang` and `/-/normal` change what it
//! does, `/healthz` and `/readyz` answer probes, and every other path answers who it is and whom it saw:
//! as JSON for clients that accept it, as plain lines for the others. A WebSocket on such a path gets that JSON for each
//! text, with the text, and its own bytes for other messages.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lines::wait;
use super::state::{State, plain};
use crate::cmd::websocket::{self, GOING_AWAY, Message, Socket};

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
    // A connection is upgraded once at most.
    let (upgrade, mut upgraded) = mpsc::channel(1);
    let of_requests = state.clone();
    let service = service_fn(move |request| {
        let (state, upgrade) = (of_requests.clone(), upgrade.clone());
        async move { Ok::<_, Infallible>(answer(&state, client, request, &upgrade).await) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection.with_upgrades());
    let stopped = tokio::select! {
        _ = connection.as_mut() => false,
        () = stop.cancelled() => true,
    };
    if stopped {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
    if let Ok((path, upgraded)) = upgraded.try_recv()
        && let Ok(stream) = upgraded.await
    {
        talk(&state, client, &path, stream, &stop).await;
    }
}

/// Answers what a WebSocket says until one of both ends it.
async fn talk(
    state: &State,
    client: SocketAddr,
    path: &str,
    stream: Upgraded,
    stop: &CancellationToken,
) {
    let mut socket = Socket::server(TokioIo::new(stream));
    loop {
        let heard = tokio::select! {
            heard = socket.next() => heard,
            () = stop.cancelled() => {
                let _ = socket.close(GOING_AWAY).await;
                return;
            }
        };
        let Ok(Some(message)) = heard else { return };
        wait(state).await;
        let answer = match message {
            Message::Text(text) => {
                state.tell(format_args!("{client} websocket {path} {text}"));
                let mut answer = identity(state, client, path);
                answer["said"] = text.into();
                Message::Text(answer.to_string())
            }
            binary => binary,
        };
        if socket.send(&answer).await.is_err() {
            return;
        }
    }
}

async fn answer(
    state: &State,
    client: SocketAddr,
    mut request: Request<Incoming>,
    upgrade: &mpsc::Sender<(String, OnUpgrade)>,
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
        _ if wants_websocket(request.headers()) => {
            let place = (
                full_path(&request).to_owned(),
                hyper::upgrade::on(&mut request),
            );
            let _ = upgrade.try_send(place);
            switch(request.headers())
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
    if state.is_terminating() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
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

fn full_path<B>(request: &Request<B>) -> &str {
    let path = request.uri().path_and_query();
    path.map_or("/", |path| path.as_str())
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    let names = |name: &HeaderValue| name.as_bytes().eq_ignore_ascii_case(b"websocket");
    headers.get(UPGRADE).is_some_and(names) && headers.contains_key(SEC_WEBSOCKET_KEY)
}

/// Agrees to a WebSocket.
fn switch(headers: &HeaderMap) -> Response<Full<Bytes>> {
    let key = headers.get(SEC_WEBSOCKET_KEY);
    let key = key.map(|key| String::from_utf8_lossy(key.as_bytes()));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(accept) = websocket::accept(&key.unwrap_or_default()).parse() {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Who answers, and whom it saw.
fn identity(state: &State, client: SocketAddr, path: &str) -> serde_json::Value {
    let who = &state.identity;
    serde_json::json!({
        "pod": who.name, "node": who.node, "podIP": who.pod_ip, "version": who.version,
        "client": client.to_string(), "clientIP": client.ip().to_string(), "path": path,
    })
}

fn describe<B>(state: &State, client: SocketAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    let who = &state.identity;
    let path = full_path(request);
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
        let mut body = identity(state, client, path);
        body["method"] = request.method().as_str().into();
        body["headers"] = headers.into();
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
