//! Connections: TLS, HTTP/1.1 and HTTP/2, limits, and the end of them all.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::handle::handle;
use crate::api::Api;
use crate::auth::{Identity, parse_subject};

/// Connections at one time; each costs some 100 KiB. Further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 2048;

/// Bytes of the headers of one request, as in Go's server (1 MiB is its default; tokens and selectors need far less).
const HEADERS_MAX: usize = 64 * 1024;

/// Requests that one HTTP/2 connection may have open; the real server's limit for its clients is 100 to 250.
const STREAMS_MAX: u32 = 250;

/// A client must finish its TLS handshake, and the headers of a request, in this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that are under way when the server stops may take this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Speaks TLS with clients.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// Serves with this certificate and trusts client certificates of this authority; a client may have none.
    pub fn new(
        authority: &CertificateDer<'static>,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Acceptor, Box<dyn std::error::Error + Send + Sync>> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Accepts connections until the server stops, then lets the open requests finish.
pub async fn serve(api: Arc<Api>, acceptor: Acceptor, listeners: Vec<TcpListener>) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accepting = listeners.into_iter().map(|listener| {
        let (api, acceptor) = (Arc::clone(&api), acceptor.clone());
        let (connections, room) = (connections.clone(), Arc::clone(&room));
        async move {
            loop {
                let permit = tokio::select! {
                    permit = Arc::clone(&room).acquire_owned() => permit,
                    () = api.stopping.cancelled() => return,
                };
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = api.stopping.cancelled() => return,
                };
                match stream {
                    Ok((stream, _)) => {
                        let (api, acceptor) = (Arc::clone(&api), acceptor.clone());
                        connections.spawn(async move {
                            connection(api, acceptor, stream).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, mostly: others must close first.
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        }
    });
    futures::future::join_all(accepting).await;
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("some requests were cut off at shutdown");
    }
}

async fn connection(api: Arc<Api>, acceptor: Acceptor, stream: TcpStream) {
    // Small answers must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HEADER_TIMEOUT, acceptor.0.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate: Option<Arc<Identity>> = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| parse_subject(certificate))
        .map(Arc::new);
    let service = service_fn(|request| {
        let (api, certificate) = (Arc::clone(&api), certificate.clone());
        async move { Ok::<_, Infallible>(handle(api, certificate, request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(HEADER_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = api.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
}
