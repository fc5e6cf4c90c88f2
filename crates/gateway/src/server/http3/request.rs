//! One request by HTTP/3: what it may say, and how its answer is sent.

use std::rc::Rc;
use std::time::SystemTime;

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::{RequestResolver, RequestStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Body as HttpBody;
use tokio::time::timeout;

use super::super::body::{Body, MadeBody};
use super::super::connection::{Shared, answer};
use super::super::limits::{HEADERS_MAX, Limits};
use super::super::record::Recorded;
use super::super::request::Peer;
use super::body::{Receive, Received};

type Send = RequestStream<h3_quinn::SendStream<Bytes>, Bytes>;

/// Headers of one connection, which HTTP/3 does not have (RFC 9114 section 4.2).
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Answers one request; the text says why its end is not what it should be.
pub(super) async fn exchange(
    shared: Rc<Shared>,
    peer: Rc<Peer>,
    resolver: RequestResolver<h3_quinn::Connection, Bytes>,
    limits: &Limits,
) -> Result<(), String> {
    let resolved = timeout(limits.head_timeout, resolver.resolve_request());
    let (head, stream) = resolved.await.map_err(words)?.map_err(words)?;
    let (mut send, receive) = stream.split();
    let length = match checked(&head) {
        Ok(length) => length,
        Err(wrong) => {
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            return Err(wrong.to_owned());
        }
    };
    if head.headers().len() > HEADERS_MAX {
        let mut refusal = Response::new(());
        *refusal.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        send.send_response(refusal).await.map_err(words)?;
        return send.finish().await.map_err(words);
    }
    let is_head = *head.method() == Method::HEAD;
    let body = match timeout(limits.client_timeout, body(receive, &head, length)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            send.stop_stream(Code::H3_MESSAGE_ERROR);
            return Err(error);
        }
        Err(error) => {
            send.stop_stream(Code::H3_REQUEST_CANCELLED);
            return Err(words(error));
        }
    };
    let mut request = head.map(|()| body);
    *request.version_mut() = Version::HTTP_3;
    let answered = match answer(shared, peer, request).await {
        Ok(answered) => answered,
        Err(never) => match never {},
    };
    respond(&mut send, answered, is_head, limits).await
}

/// The length that a request says its body has. What HTTP/3 forbids is refused: HTTP/1.1 behind us might read it in
/// another way.
fn checked(head: &Request<()>) -> Result<Option<u64>, &'static str> {
    let headers = head.headers();
    if OF_CONNECTION.iter().any(|name| headers.contains_key(name)) {
        return Err("a header that is for one connection of HTTP/1.1");
    }
    let mut te = headers.get_all(TE).iter();
    if te.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err("TE says something else than trailers");
    }
    if head
        .uri()
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err("user information in :authority");
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else {
        return Ok(None);
    };
    let digits = length.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok());
    match number {
        Some(number) if is_number && lengths.next().is_none() => Ok(Some(number)),
        _ => Err("Content-Length is not one number"),
    }
}

/// The body of a request. Where there is none as a rule it is looked whether one comes: an endpoint is not told of a body
/// that is not there.
async fn body(
    mut receive: Receive,
    head: &Request<()>,
    length: Option<u64>,
) -> Result<Body, String> {
    let has_body = matches!(*head.method(), Method::POST | Method::PUT | Method::PATCH);
    if has_body && length != Some(0) {
        return Ok(Body::Made(MadeBody::new(Received::new(
            receive, None, length,
        ))));
    }
    let data = receive.recv_data().await.map_err(words)?;
    let data = data.map(|mut data| data.copy_to_bytes(data.remaining()));
    match (data, length) {
        (None, None | Some(0)) => Ok(Body::empty()),
        (None, Some(_)) => Err("the body has not come".to_owned()),
        (Some(data), Some(0)) if !data.is_empty() => Err("a body that there is not".to_owned()),
        (data, length) => Ok(Body::Made(MadeBody::new(Received::new(
            receive, data, length,
        )))),
    }
}

/// Sends an answer. A client that takes nothing of it for too long gets no more.
async fn respond(
    send: &mut Send,
    answered: Response<Recorded>,
    is_head: bool,
    limits: &Limits,
) -> Result<(), String> {
    let (parts, mut body) = answered.into_parts();
    let has_body = !is_head
        && !matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
    let mut head = Response::new(());
    *head.status_mut() = parts.status;
    *head.headers_mut() = parts.headers;
    finish_head(
        head.headers_mut(),
        body.size_hint().exact().filter(|_| has_body),
    );
    let within = limits.client_timeout;
    timeout(within, send.send_response(head))
        .await
        .map_err(words)?
        .map_err(words)?;
    while has_body && let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                // It must not look like the end.
                send.stop_stream(Code::H3_INTERNAL_ERROR);
                return Err(words(error));
            }
        };
        let sent = match frame.into_data() {
            Ok(data) => timeout(within, send.send_data(data)).await,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => timeout(within, send.send_trailers(trailers)).await,
                Err(_) => continue,
            },
        };
        match sent {
            Ok(sent) => sent.map_err(words)?,
            Err(error) => {
                send.stop_stream(Code::H3_REQUEST_CANCELLED);
                return Err(words(error));
            }
        }
    }
    send.finish().await.map_err(words)
}

/// What hyper does for other protocols.
fn finish_head(headers: &mut HeaderMap, length: Option<u64>) {
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    if let Some(length) = length {
        headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| length.into());
    }
    let now = httpdate::fmt_http_date(SystemTime::now());
    if let Ok(now) = HeaderValue::try_from(now) {
        headers.entry(DATE).or_insert(now);
    }
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
