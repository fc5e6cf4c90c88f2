//! Requests of our own: to services that judge, stand in or get copies. Each has a connection of its own, without TLS.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::super::body::Body;

/// Such a request must be answered in this time: clients wait for it, and a service in the cluster has no reason to
/// take longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The URL has no host, or another scheme.
    #[error("{0} is no URL that begins with http:// and a host")]
    Url(String),
    /// The connection, or what came over it.
    #[error("{0}: {1}")]
    Io(String, String),
    /// [`ASK_TIMEOUT`].
    #[error("{0} did not answer in time")]
    Silent(String),
}

/// Where a URL leads: what to connect to, and what `Host` says.
pub(super) fn place(url: &Uri) -> Result<(String, HeaderValue), AskError> {
    let wrong = || AskError::Url(url.to_string());
    let authority = url
        .authority()
        .filter(|_| url.scheme_str() == Some("http"))
        .ok_or_else(wrong)?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?;
    let to = format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    );
    Ok((to, host))
}

/// Sends a request to what a URL names; the request's own URI becomes that of the URL.
pub(super) async fn ask_url(
    url: &str,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, AskError> {
    let url: Uri = url.parse().map_err(|_| AskError::Url(url.to_owned()))?;
    let (to, host) = place(&url)?;
    request.headers_mut().entry(HOST).or_insert(host);
    let rest = url.path_and_query().map_or("/", |rest| rest.as_str());
    *request.uri_mut() = rest.parse().map_err(|_| AskError::Url(url.to_string()))?;
    let asking = async {
        let stream = TcpStream::connect(&to).await;
        let stream = stream.map_err(|error| AskError::Io(to.clone(), error.to_string()))?;
        send(stream, &to, request).await
    };
    tokio::time::timeout(ASK_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(AskError::Silent(to.clone())))
}

/// Sends a request to an address.
pub(super) async fn ask_at(
    at: SocketAddr,
    request: Request<Body>,
) -> Result<Response<Incoming>, AskError> {
    let to = at.to_string();
    let asking = async {
        let stream = TcpStream::connect(at).await;
        let stream = stream.map_err(|error| AskError::Io(to.clone(), error.to_string()))?;
        send(stream, &to, request).await
    };
    tokio::time::timeout(ASK_TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(AskError::Silent(to.clone())))
}

async fn send(
    stream: TcpStream,
    to: &str,
    request: Request<Body>,
) -> Result<Response<Incoming>, AskError> {
    let words = |error: hyper::Error| AskError::Io(to.to_owned(), error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(words)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the gateway's own");
        }
    });
    sender.send_request(request).await.map_err(words)
}
