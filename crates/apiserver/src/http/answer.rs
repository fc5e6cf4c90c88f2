//! Answers: JSON, YAML, text, streams, and refusals.

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::accept::Format;
use crate::status::Failure;

/// Body of an answer; a stream that fails half way breaks the connection, so that the client notices.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// Warnings of one answer; the real server stops at about as many (4 KiB of headers).
const WARNINGS_MAX: usize = 32;

/// A whole body of some type.
pub fn bytes(code: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into())
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Plain text.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// A value in the client's format.
pub fn value(code: u16, format: Format, value: &Value) -> Response<Body> {
    match format {
        Format::Json => bytes(code, "application/json", format!("{value}\n")),
        Format::Yaml => match serde_norway::to_string(value) {
            Ok(text) => bytes(code, "application/yaml", text),
            Err(error) => text(500, error.to_string()),
        },
    }
}

/// A refusal.
pub fn failure(failure: &Failure) -> Response<Body> {
    let mut response = value(failure.code, Format::Json, &failure.body());
    if let Some(seconds) = failure.details["retryAfterSeconds"].as_u64() {
        response
            .headers_mut()
            .insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A body that comes as time goes by.
pub fn stream(
    content_type: &'static str,
    chunks: impl Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
) -> Response<Body> {
    let body = BodyExt::boxed(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))));
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A document that clients keep: 304 if they have it.
pub fn cacheable(request: &HeaderMap, content_type: &'static str, body: Bytes) -> Response<Body> {
    let tag = etag(&body);
    let known = request
        .get(IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let same = known.is_some_and(|list| list.split(',').any(|one| one.trim() == tag));
    let mut response = if same {
        bytes(304, content_type, Bytes::new())
    } else {
        bytes(200, content_type, body)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
        .headers_mut()
        .insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// Adds `Warning` headers (RFC 7234, section 5.5), which kubectl prints.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let quoted = warning
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

fn etag(body: &[u8]) -> String {
    let digest: String = Sha256::digest(body)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    format!("\"{digest}\"")
}
