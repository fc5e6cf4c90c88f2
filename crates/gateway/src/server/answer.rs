//! Answers that are the gateway's own. They say what has happened in a word, and nothing about the cluster.

use http::header::{CONTENT_TYPE, LOCATION, SERVER};
use http::{HeaderValue, Response, StatusCode};
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
