//! What is done to an answer on its way back to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, ORIGIN, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::super::answer;
use super::super::body::{Body, BodyError, MadeBody};
use super::super::headers;
use super::{CODE, Exchange, ask, coded, uri};
use crate::policy::{Held, StandIn};
use crate::route::Destination;

const FORMAT: HeaderName = HeaderName::from_static("x-format");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is done to an answer, and what must be known of the request for it.
#[derive(Default)]
pub(in crate::server) struct After {
    /// The request is counted until its answer is sent.
    pub(super) held: Option<Held>,
    /// Becomes true when the body of the request has got too long.
    pub(super) is_over: Option<Arc<AtomicBool>>,
    origin: Option<HeaderValue>,
    /// What the client accepts; only where answers are made smaller.
    accepts: HeaderMap,
    /// What somebody is asked who may have to answer instead of the backend.
    question: Option<HeaderMap>,
}

impl After {
    /// What must be known of a request before it is gone.
    pub(super) fn of(exchange: &Exchange<'_>, request: &Request<Body>) -> After {
        let policy = &exchange.target.policy;
        let mut after = After::default();
        if policy.cors.is_some() {
            after.origin = request.headers().get(ORIGIN).cloned();
        }
        if policy.compression.is_some() && request.method() != Method::HEAD {
            for value in request.headers().get_all(ACCEPT_ENCODING) {
                after.accepts.append(ACCEPT_ENCODING, value.clone());
            }
        }
        let stand_in = policy.stand_in.as_ref();
        after.question = stand_in
            .filter(|stand_in| !stand_in.at.is_empty())
            .map(|_| question(request));
        after
    }

    /// Does it.
    pub(in crate::server) async fn apply(
        self,
        exchange: &Exchange<'_>,
        answer: Response<Body>,
    ) -> Response<Body> {
        let policy = &exchange.target.policy;
        if self
            .is_over
            .as_ref()
            .is_some_and(|is_over| is_over.load(Ordering::Relaxed))
        {
            return self.dress(exchange, answer::plain(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let stand_in = policy
            .stand_in
            .as_ref()
            .filter(|stand_in| stand_in.at.contains(&answer.status()));
        let mut answer = match (stand_in, &self.question) {
            (Some(stand_in), Some(question)) => {
                Box::pin(stood_in(exchange, stand_in, question, answer)).await
            }
            _ => answer,
        };
        let compression = policy.compression.as_ref();
        let coding =
            compression.and_then(|of| of.coding(&self.accepts, answer.status(), answer.headers()));
        if let (Some(compression), Some(coding)) = (compression, coding) {
            answer = coded::code(answer, coding, compression);
        }
        self.dress(exchange, answer)
    }

    /// Headers of the policy, for an answer of our own, too; and the request is counted until all of it is sent.
    pub(super) fn dress(
        self,
        exchange: &Exchange<'_>,
        mut answer: Response<Body>,
    ) -> Response<Body> {
        let policy = &exchange.target.policy;
        let headers = answer.headers_mut();
        if let Some(cors) = &policy.cors {
            cors.answer(self.origin.as_ref(), headers);
        }
        for (name, value) in &policy.answer_headers {
            headers.insert(name, value.clone());
        }
        if let Some(value) = policy.hsts.as_ref().filter(|_| exchange.peer.tls) {
            headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
        }
        match self.held {
            None => answer,
            Some(held) => {
                answer.map(|inner| Body::Made(MadeBody::new(Counted { inner, _held: held })))
            }
        }
    }

    /// The answer to a preflight; its headers are added by [`After::dress`], but for those that only it has.
    pub(super) fn preflight(&self, exchange: &Exchange<'_>) -> Response<Body> {
        let mut answer = Response::new(Body::Own(Full::default()));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if let Some(cors) = &exchange.target.policy.cors {
            let mut headers = cors.preflight(self.origin.as_ref());
            // That one is appended again.
            headers.remove(http::header::VARY);
            *answer.headers_mut() = headers;
        }
        answer
    }
}

fn question(request: &Request<Body>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let given = request.headers();
    for (name, as_name) in [
        (ACCEPT, ACCEPT),
        (ACCEPT, FORMAT),
        (REQUEST_ID, REQUEST_ID),
        (http::header::HOST, http::header::HOST),
    ] {
        if let Some(value) = given.get(name) {
            headers.insert(as_name, value.clone());
        }
    }
    if let Ok(original) = HeaderValue::from_str(uri(request)) {
        headers.insert(ORIGINAL_URI, original);
    }
    headers
}

/// The answer of whoever stands in, or that of the backend when nobody does.
async fn stood_in(
    exchange: &Exchange<'_>,
    stand_in: &StandIn,
    question: &HeaderMap,
    answer: Response<Body>,
) -> Response<Body> {
    let Destination::Port(key) = &stand_in.to else {
        return answer;
    };
    let roster = exchange.live.endpoints.get(key);
    let addresses = roster
        .map(|roster| &*roster.choices.addresses)
        .unwrap_or_default();
    let Some(address) = fastrand::choice(addresses) else {
        return answer;
    };
    let mut request = Request::new(Body::Own(Full::default()));
    let headers = request.headers_mut();
    *headers = question.clone();
    headers.insert(CODE, HeaderValue::from(answer.status().as_u16()));
    headers.extend(stand_in.told.iter().cloned());
    headers
        .entry(http::header::HOST)
        .or_insert(HeaderValue::from_static("portolan"));
    match ask::ask_at(*address, request).await {
        Ok(mut other) => {
            headers::end_connection(other.headers_mut());
            other.map(Body::Passed)
        }
        Err(error) => {
            tracing::debug!(target = %exchange.target.origin, %error, "the default backend did not stand in");
            answer
        }
    }
}

/// A body; the request is counted until it is gone.
struct Counted {
    inner: Body,
    _held: Held,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
