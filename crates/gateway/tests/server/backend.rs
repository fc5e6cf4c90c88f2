//! A server of the loopback that says who it is and what it was asked, by HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// A server, until it is dropped.
pub struct Backend {
    pub address: SocketAddr,
    /// Connections that it has taken.
    pub connections: Arc<AtomicUsize>,
    /// Requests that it has had.
    pub requests: Arc<AtomicUsize>,
    /// Of these, the ones for `/second`.
    seconds: Arc<AtomicUsize>,
    /// Lets answers to `/wait` go.
    pub go: Arc<Notify>,
    runtime: Option<Runtime>,
}

impl Backend {
    /// Serves at a free port of `127.0.0.NUMBER`.
    pub fn start(number: u8) -> Backend {
        Backend::start_with(number, None)
    }

    /// The same, in TLS with a certificate that nobody trusts.
    pub fn start_tls(number: u8) -> Backend {
        let made = rcgen::generate_simple_self_signed(vec!["web".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Backend::start_secure(number, config)
    }

    /// The same, in TLS of this kind.
    pub fn start_secure(number: u8, config: rustls::ServerConfig) -> Backend {
        Backend::start_with(number, Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start_with(number: u8, tls: Option<TlsAcceptor>) -> Backend {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(TcpListener::bind((format!("127.0.0.{number}"), 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Backend {
            address,
            connections: Arc::default(),
            requests: Arc::default(),
            seconds: Arc::default(),
            go: Arc::default(),
            runtime: Some(runtime),
        };
        let own = Own {
            address,
            requests: Arc::clone(&backend.requests),
            seconds: Arc::clone(&backend.seconds),
            gate: Arc::clone(&backend.go),
        };
        let counted = Arc::clone(&backend.connections);
        let taking = async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (own, tls) = (own.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, own).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, own).await;
                            }
                        }
                    }
                });
            }
        };
        if let Some(runtime) = &backend.runtime {
            runtime.spawn(taking);
        }
        backend
    }

    /// How many requests for `/second` it has had.
    pub fn seconds(&self) -> usize {
        self.seconds.load(Ordering::Relaxed)
    }

    /// How many requests it has had.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Clone)]
struct Own {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    seconds: Arc<AtomicUsize>,
    gate: Arc<Notify>,
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, own: Own) {
    let service = service_fn(move |request| answer(own.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let _ = serving.await;
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text))
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn answer(own: Own, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    own.requests.fetch_add(1, Ordering::Relaxed);
    let is_second = request.uri().path() == "/second";
    own.seconds.fetch_add(is_second.into(), Ordering::Relaxed);
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
        return Ok(answer.body(full(String::new())).unwrap());
    }
    match request.uri().path() {
        "/wait" => own.gate.notified().await,
        "/stream" => return Ok(echoed(request.into_body())),
        _ => {}
    }
    let status = request.uri().path().strip_prefix("/status/");
    let status = status.and_then(|code| code.parse().ok());
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let said = json!({
        "who": own.address.to_string(),
        "method": parts.method.as_str(),
        "path": parts.uri.path_and_query().map(ToString::to_string),
        "authority": parts.uri.authority().map(ToString::to_string),
        "proto": format!("{:?}", parts.version),
        "headers": named(&parts.headers),
        "body": String::from_utf8_lossy(&body),
    });
    let answer = Response::builder()
        .status(status.unwrap_or(StatusCode::OK))
        .header("content-type", "application/json");
    Ok(answer.body(full(said.to_string())).unwrap())
}

/// The bytes of a request as they come, and a trailer behind them.
fn echoed(body: Incoming) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let last = stream::once(async move { Ok(Frame::trailers(trailers)) });
    let frames = BodyStream::new(body).chain(last);
    let answer = Response::builder().header("content-type", "application/grpc");
    let body = BodyExt::boxed_unsync(StreamBody::new(frames));
    answer.body(body).unwrap()
}

fn named(headers: &HeaderMap) -> Value {
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())));
    Value::Object(pairs.collect())
}
