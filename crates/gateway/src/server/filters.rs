//! What is done to a request before it goes to an endpoint, and to its answer on the way back: the policy of its target.
//!
//! ```text
//!   request ─▶ before ─▶ choose ─▶ forward ─▶ endpoint ─▶ After::apply ─▶ client
//!                └── an answer of our own ─────────────────────┘
//! ```

#![allow(
    clippy::result_large_err,
    reason = "the error is the answer, which is moved once for each request"
)]

mod after;
mod ask;
mod coded;
mod judge;
mod login;
mod mirror;
mod sized;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::header::{AUTHORIZATION, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Body as HttpBody;

use super::Live;
use super::answer;
use super::body::Body;
use super::checks::Checks;
use super::headers::Client;
use super::request::Peer;
use crate::policy::{Cors, Limiter, Scope, Turn};
use crate::route::{Destination, Target};

pub(super) use after::After;
use login::Logins;
use mirror::Copies;

/// Paths that certificate authorities ask for without TLS (RFC 8555 section 8.3).
const ACME: &str = "/.well-known/acme-challenge/";

const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const CODE: HeaderName = HeaderName::from_static("x-code");

/// What the threads of a server share, besides what is live.
#[derive(Debug, Default)]
pub(super) struct Common {
    limiter: Arc<Limiter>,
    logins: Logins,
    copies: Copies,
    /// Who does not pass the checks.
    pub(super) checks: Checks,
}

/// What filters may know besides the request.
pub(super) struct Exchange<'a> {
    /// What was live when the request came.
    pub(super) live: &'a Live,
    /// What threads share.
    pub(super) common: &'a Common,
    /// What the request matches.
    pub(super) target: &'a Target,
    /// The connection that it comes by.
    pub(super) peer: &'a Peer,
    /// The client, as far as those in front of us are believed.
    pub(super) client: IpAddr,
    /// Whether somebody in front of us is believed.
    pub(super) is_trusted: bool,
    /// Whether it is a call of gRPC, whose errors are told in another way.
    pub(super) is_grpc: bool,
    /// The port of redirects to TLS.
    pub(super) https_port: u16,
    /// Its host as it was sent.
    pub(super) http_host: &'a str,
    /// Its host as it is compared.
    pub(super) host: &'a str,
    /// Its path as it is compared.
    pub(super) path: &'a str,
}

/// What becomes of a request.
pub(super) enum Step {
    /// It goes on, and this is done to its answer.
    On(After),
    /// This is the answer.
    Done(Response<Body>),
}

impl Exchange<'_> {
    /// What every endpoint, and whoever is asked about a request, is told of its client.
    fn client(&self) -> Client<'_> {
        Client {
            ip: self.client,
            peer: self.peer,
            host: self.http_host,
            is_trusted: self.is_trusted,
        }
    }

    /// An answer that says its status, in the way that the request understands.
    fn refuse(&self, status: StatusCode) -> Response<Body> {
        answer::status(status, self.is_grpc)
    }

    fn scheme(&self) -> &'static str {
        match self.peer.tls {
            true => "https",
            false => "http",
        }
    }

    /// What a template says for this request; `remote` is the client's address as text.
    pub(super) fn render(
        &self,
        template: &crate::policy::Template,
        request: &Request<Body>,
    ) -> String {
        let remote = self.client.to_string();
        template.render(&self.scope(request, &remote))
    }

    fn scope<'s>(&'s self, request: &'s Request<Body>, remote: &'s str) -> Scope<'s> {
        Scope {
            http_host: self.http_host,
            host: self.host,
            scheme: self.scheme(),
            request_uri: uri(request),
            path: self.path,
            remote_addr: remote,
            method: request.method(),
            headers: request.headers(),
            captures: &[],
        }
    }
}

/// Path and query as they were sent.
fn uri(request: &Request<Body>) -> &str {
    request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str)
}

/// The policy of a target in its order, until a part of it has an answer. It sees the request as the client has sent it:
/// headers for its endpoint come later.
pub(super) async fn before(exchange: &Exchange<'_>, request: &mut Request<Body>) -> Step {
    let mut after = After::of(exchange, request);
    match enter(exchange, request, &mut after).await {
        Ok(()) => Step::On(after),
        Err(answer) => Step::Done(after.dress(exchange, answer)),
    }
}

/// An error is an answer.
async fn enter(
    exchange: &Exchange<'_>,
    request: &mut Request<Body>,
    after: &mut After,
) -> Result<(), Response<Body>> {
    let policy = &exchange.target.policy;
    if policy.closed {
        return Err(exchange.refuse(StatusCode::SERVICE_UNAVAILABLE));
    }
    if let Some(status) = policy.require_tls {
        require_tls(exchange, status, request)?;
    }
    let client = exchange.client;
    let admitted = policy.sources.admit(client);
    let asks = policy.login.is_some() || policy.judge.is_some();
    if !(admitted || policy.satisfy_any && asks) {
        return Err(exchange.refuse(StatusCode::FORBIDDEN));
    }
    if let Some(redirect) = &policy.redirect {
        let to = exchange.render(&redirect.to, request);
        return Err(answer::redirect(redirect.status, &absolute(exchange, to)));
    }
    if policy.cors.is_some() && Cors::is_preflight(request.method(), request.headers()) {
        return Err(after.preflight(exchange));
    }
    limit(exchange, after)?;
    let by_source = policy.satisfy_any && admitted && !policy.sources.is_empty();
    if let Some(max) = policy.body_max {
        sized::limit(request, max, after)?;
    }
    if let Some(login) = policy.login.as_ref().filter(|_| !by_source) {
        // In a box, what few requests need makes the others no larger.
        Box::pin(login::check(&exchange.common.logins, login, request)).await?;
    }
    if let Some(judge) = policy.judge.as_ref().filter(|_| !by_source) {
        Box::pin(judge::ask(exchange, judge, request)).await?;
    }
    if let Some(mirror) = &policy.mirror {
        mirror::copy(exchange, mirror, request);
    }
    rewrite(exchange, request)
}

fn limit(exchange: &Exchange<'_>, after: &mut After) -> Result<(), Response<Body>> {
    let limits = &exchange.target.policy.limits;
    if limits.is_empty() {
        return Ok(());
    }
    let client = exchange.client;
    let status = match exchange.common.limiter.turn(limits, client, Instant::now()) {
        Turn::Go(held) => {
            after.held = held;
            return Ok(());
        }
        Turn::TooOften => limits.statuses.0,
        Turn::TooMany => limits.statuses.1,
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Err(exchange.refuse(status))
}

fn rewrite(exchange: &Exchange<'_>, request: &mut Request<Body>) -> Result<(), Response<Body>> {
    let Some(rewrite) = &exchange.target.policy.rewrite else {
        return Ok(());
    };
    let remote = exchange.client.to_string();
    let new = match rewrite.apply(&exchange.scope(request, &remote)) {
        None => return Ok(()),
        Some(new) => new.map_err(|status| exchange.refuse(status))?,
    };
    let new: Uri = new
        .parse()
        .map_err(|_| exchange.refuse(StatusCode::BAD_REQUEST))?;
    *request.uri_mut() = new;
    Ok(())
}

/// A place of this server begins with its name.
fn absolute(exchange: &Exchange<'_>, to: String) -> String {
    match to.starts_with('/') && !exchange.http_host.is_empty() {
        true => format!("{}://{}{to}", exchange.scheme(), exchange.http_host),
        false => to,
    }
}

/// Which of the target's backends gets the request.
pub(super) fn choose<'a>(
    exchange: &Exchange<'a>,
    request: &Request<Body>,
) -> Option<&'a Destination> {
    let target = exchange.target;
    let canary = target.policy.canary.as_ref();
    let to = match canary.filter(|canary| canary.takes(request.headers(), fastrand::u32(..))) {
        Some(canary) => Some(&canary.to),
        None => target.choose(fastrand::u64(..)),
    };
    let stand_in = target
        .policy
        .stand_in
        .as_ref()
        .filter(|stand_in| stand_in.when_empty);
    match (to, stand_in) {
        (Some(Destination::Port(key)), Some(stand_in)) if is_empty(exchange.live, key) => {
            Some(&stand_in.to)
        }
        (to, _) => to,
    }
}

fn is_empty(live: &Live, key: &portolan_model::PortKey) -> bool {
    let roster = live.endpoints.get(key);
    roster.is_none_or(|roster| roster.choices.addresses.is_empty())
}

/// What an endpoint is told besides what every endpoint is told; `to` is where the request goes.
pub(super) fn forward(
    exchange: &Exchange<'_>,
    to: &Destination,
    host: Option<HeaderValue>,
    headers: &mut HeaderMap,
) {
    let policy = &exchange.target.policy;
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    if let Some(prefix) = &policy.forwarded_prefix {
        headers.insert(FORWARDED_PREFIX, prefix.clone());
    }
    if policy.login.is_some() {
        // The password was for us.
        headers.remove(AUTHORIZATION);
    }
    if let Some(stand_in) = policy
        .stand_in
        .as_ref()
        .filter(|stand_in| stand_in.to == *to)
    {
        headers.insert(CODE, HeaderValue::from_static("503"));
        headers.extend(stand_in.told.iter().cloned());
    }
}

/// The `Host` that an endpoint gets, if the policy has another one.
pub(super) fn host(exchange: &Exchange<'_>, request: &Request<Body>) -> Option<HeaderValue> {
    let template = exchange.target.policy.host.as_ref()?;
    HeaderValue::from_str(&exchange.render(template, request)).ok()
}

fn require_tls(
    exchange: &Exchange<'_>,
    status: StatusCode,
    request: &Request<Body>,
) -> Result<(), Response<Body>> {
    if exchange.peer.tls || exchange.path.starts_with(ACME) {
        return Ok(());
    }
    // Without a host there is nowhere to send the client to.
    let host = exchange.host;
    if host.is_empty() {
        return Err(exchange.refuse(StatusCode::BAD_REQUEST));
    }
    let rest = uri(request);
    let location = match exchange.https_port {
        443 => format!("https://{host}{rest}"),
        port => format!("https://{host}:{port}{rest}"),
    };
    Err(answer::redirect(status, &location))
}

/// Bytes of a body that is known before it comes.
fn known_length(request: &Request<Body>) -> u64 {
    request.body().size_hint().lower()
}
