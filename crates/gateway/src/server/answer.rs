//! Answers that are the gateway's own. They say what has happened in a word, and nothing about the cluster.

use http::header::{CONTENT_TYPE, LOCATION, SERVER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;

use super::body::Body;

/// The name that answers have in `Server` where an endpoint gives none.
pub(super) const SERVER_NAME: HeaderValue = HeaderValue::from_static("portolan");

/// An answer that says its status in words.
pub(super) fn plain(status: StatusCode) -> Response<Body> {
    let words = status.canonical_reason().unwrap_or_default();
    let text = format!("{} {words}\n", status.as_u16());
    let mut answer = Response::new(Body::Own(Full::new(text.into())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(SERVER, SERVER_NAME);
    answer
}

/// Whether a request is a call of gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let given = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    given.is_some_and(|given| given.starts_with(b"application/grpc"))
}

/// An answer that says its status in words, or as gRPC has it: there, every answer is 200, and the status of the call
/// stands beside it (gRPC's doc/http-grpc-status-mapping.md).
pub(super) fn status(status: StatusCode, is_grpc: bool) -> Response<Body> {
    if !is_grpc {
        return plain(status);
    }
    let code = match status.as_u16() {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502..=504 => "14",
        _ => "2",
    };
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(SERVER, SERVER_NAME);
    headers.insert("grpc-status", HeaderValue::from_static(code));
    if let Some(words) = status.canonical_reason() {
        headers.insert("grpc-message", HeaderValue::from_static(words));
    }
    answer
}

/// Sends the client somewhere else.
pub(super) fn redirect(status: StatusCode, location: &str) -> Response<Body> {
    match HeaderValue::from_str(location) {
        Ok(location) => {
            let mut answer = plain(status);
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        Err(_) => plain(StatusCode::BAD_REQUEST),
    }
}
