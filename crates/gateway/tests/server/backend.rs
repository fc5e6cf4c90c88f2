//! A server of the loopback that says who it is and what it was asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// A server, until it is dropped.
pub struct Backend {
    pub address: SocketAddr,
    /// Connections that it has taken.
    pub connections: Arc<AtomicUsize>,
    /// Lets answers to `/wait` go.
    pub go: Arc<Notify>,
    runtime: Option<Runtime>,
}

impl Backend {
    /// Serves at a free port of `127.0.0.NUMBER`.
    pub fn start(number: u8) -> Backend {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((format!("127.0.0.{number}"), 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counted, gate) = (Arc::clone(&connections), Arc::clone(&go));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let gate = Arc::clone(&gate);
                let service =
                    service_fn(move |request| answer(address, Arc::clone(&gate), request));
                let serving = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::spawn(serving);
            }
        });
        Backend {
            address,
            connections,
            go,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(
    own: SocketAddr,
    gate: Arc<Notify>,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
        let answer = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let answer = answer
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        return Ok(answer.body(Full::default()).unwrap());
    }
    if request.uri().path() == "/wait" {
        gate.notified().await;
    }
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let said = json!({
        "who": own.to_string(),
        "method": parts.method.as_str(),
        "path": parts.uri.to_string(),
        "proto": format!("{:?}", parts.version),
        "headers": named(&parts.headers),
        "body": String::from_utf8_lossy(&body),
    });
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("keep-alive", "timeout=9");
    Ok(answer.body(Full::new(said.to_string().into())).unwrap())
}

fn named(headers: &HeaderMap) -> Value {
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())));
    Value::Object(pairs.collect())
}
