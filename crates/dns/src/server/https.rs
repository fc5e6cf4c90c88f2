//! DNS over HTTPS (RFC 8484): a query is the body of POST, or the parameter `dns` of GET.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};

use super::front::ask;
use super::limits::{HTTPS_PATH, QUERY_BYTES_MAX};
use super::stream::Stream;
use super::{Answer, Step};
use crate::wire::smallest_ttl;

/// Type of bodies (RFC 8484, section 6).
const MEDIA_TYPE: &str = "application/dns-message";

/// Serves one connection.
pub(crate) async fn serve<A, S>(served: Stream<A>, stream: S) -> io::Result<()>
where
    A: Answer,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let limits = served.limits;
    let closed = served.closed.clone();
    let served = Arc::new(served);
    let service = service_fn(move |request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(respond(&served, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(limits.idle)
        .max_concurrent_streams(u32::try_from(limits.pipelined_max).unwrap_or(u32::MAX));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = closed.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

async fn respond<A: Answer>(
    served: &Stream<A>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let message = match message_of(request).await {
        Ok(message) => message,
        Err(status) => return empty(status),
    };
    let mut out = Vec::new();
    let answer = match ask(&*served.answer, &message, &served.client, &mut out) {
        Step::Answered => Some(out),
        Step::Later => served.answer.later(message, served.client).await,
        // A transfer has many messages, and HTTPS one for each request.
        Step::Drop | Step::Transfer(_) => None,
    };
    let Some(answer) = answer else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let age = smallest_ttl(&answer).unwrap_or(0);
    let response = Response::builder()
        .header(header::CONTENT_TYPE, MEDIA_TYPE)
        .header(header::CACHE_CONTROL, format!("max-age={age}"))
        .body(Full::from(answer));
    response.unwrap_or_else(|_| empty(StatusCode::INTERNAL_SERVER_ERROR))
}

async fn message_of(request: Request<Incoming>) -> Result<Vec<u8>, StatusCode> {
    if request.uri().path() != HTTPS_PATH {
        return Err(StatusCode::NOT_FOUND);
    }
    match *request.method() {
        Method::GET => {
            let query = request.uri().query().unwrap_or_default();
            let parameters = query.split('&');
            let text = parameters
                .filter_map(|part| part.strip_prefix("dns="))
                .next();
            let text = text.ok_or(StatusCode::BAD_REQUEST)?;
            if text.len() > QUERY_BYTES_MAX.div_ceil(3) * 4 {
                return Err(StatusCode::URI_TOO_LONG);
            }
            let text = text.trim_end_matches('=');
            URL_SAFE_NO_PAD
                .decode(text)
                .map_err(|_| StatusCode::BAD_REQUEST)
        }
        Method::POST => {
            let kind = request.headers().get(header::CONTENT_TYPE);
            if kind.is_none_or(|kind| kind != MEDIA_TYPE) {
                return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            }
            let body = Limited::new(request.into_body(), QUERY_BYTES_MAX).collect();
            let body = body.await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
            Ok(body.to_bytes().to_vec())
        }
        _ => Err(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
