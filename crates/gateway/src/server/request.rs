//! One request: what it asks for, where it goes, and what comes back.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{HOST, SERVER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use portolan_model::PortKey;

use super::Live;
use super::answer;
use super::body::{Body, Upload};
use super::filters::{self, Common, Exchange, Step};
use super::headers::{self, Client};
use super::limits::HEAD_BYTES_MAX;
use super::upstream::{Failure, Upstream};
use crate::host::request_host;
use crate::path::{normalize, resolved};
use crate::route::{self, Destination};

/// The connection that a request comes by.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    /// The client.
    pub(super) client: SocketAddr,
    /// Port that it has connected to.
    pub(super) port: u16,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// The port of redirects to TLS.
    pub(super) https_port: u16,
}

/// Answers a request.
pub(super) async fn handle(
    live: &Live,
    common: &Common,
    upstream: &Rc<Upstream>,
    peer: Peer,
    mut request: Request<Incoming>,
) -> Response<Body> {
    if live.table.is_resolving
        && let Err(status) = resolve(&mut request)
    {
        return answer::plain(status);
    }
    let result = match place(&request) {
        Ok(place) => go(live, common, upstream, peer, &place, request).await,
        Err(status) => Err(status),
    };
    result.unwrap_or_else(answer::plain)
}

/// Gives a request the path that nginx would look for, and its endpoint gets that one, too: two readings of one path
/// are what attacks are made of.
fn resolve(request: &mut Request<Incoming>) -> Result<(), StatusCode> {
    let uri = request.uri();
    let Some(path) = resolved(uri.path()).map_err(|_| StatusCode::BAD_REQUEST)? else {
        return Ok(());
    };
    let rest = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(rest.parse().map_err(|_| StatusCode::BAD_REQUEST)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(())
}

/// Where a request wants to go.
struct Place {
    /// As it was sent.
    host: String,
    /// The path as it is compared.
    path: String,
}

/// Reads host and path; what is not plainly one thing is refused (RFC 9112 sections 3.2 and 3.3).
fn place(request: &Request<Incoming>) -> Result<Place, StatusCode> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    if size(request) > HEAD_BYTES_MAX {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (given, second) = (hosts.next(), hosts.next());
    let given = given
        .map(HeaderValue::to_str)
        .transpose()
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let host = match (authority, given) {
        _ if second.is_some() => return Err(StatusCode::BAD_REQUEST),
        (Some(authority), Some(given)) if !authority.eq_ignore_ascii_case(given) => {
            return Err(StatusCode::BAD_REQUEST);
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) if request.version() < Version::HTTP_11 => "",
        (None, None) => return Err(StatusCode::BAD_REQUEST),
    };
    request_host(host).map_err(|_| StatusCode::BAD_REQUEST)?;
    let path = normalize(request.uri().path()).map_err(|_| StatusCode::BAD_REQUEST)?;
    Ok(Place {
        host: host.to_owned(),
        path: path.into_owned(),
    })
}

/// Bytes of the head, nearly; hyper refuses only what it has not read to its end by then.
fn size(request: &Request<Incoming>) -> usize {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let target = request
        .uri()
        .path_and_query()
        .map_or(0, |rest| rest.as_str().len());
    headers.sum::<usize>() + target
}

async fn go(
    live: &Live,
    common: &Common,
    upstream: &Rc<Upstream>,
    peer: Peer,
    place: &Place,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, StatusCode> {
    let host = request_host(&place.host).unwrap_or(Cow::Borrowed(""));
    let found = live.table.find(&route::Request {
        host: &host,
        path: &place.path,
        query: request.uri().query().unwrap_or_default(),
        method: request.method(),
        headers: request.headers(),
    });
    let target = found.ok_or(StatusCode::NOT_FOUND)?;
    let exchange = Exchange {
        live,
        common,
        target,
        peer: &peer,
        http_host: &place.host,
        host: &host,
        path: &place.path,
    };
    let wanted = wanted_upgrade(&mut request);
    let mut request = request.map(Body::Passed);
    let after = match filters::before(&exchange, &mut request).await {
        Step::On(after) => after,
        Step::Done(answer) => return Ok(answer),
    };
    let answer = match filters::choose(&exchange, &request) {
        Some(to @ Destination::Port(key)) => {
            let host = filters::host(&exchange, &request);
            let mut request = outgoing(request, peer, &place.host, wanted.as_ref())?;
            filters::forward(&exchange, to, host, request.headers_mut());
            forward(live, upstream, key, request, wanted).await
        }
        Some(Destination::Broken(status)) => answer::plain(*status),
        None => answer::plain(StatusCode::INTERNAL_SERVER_ERROR),
    };
    Ok(after.apply(&exchange, answer).await)
}

/// Sends a request to an endpoint of a Service port.
async fn forward(
    live: &Live,
    upstream: &Rc<Upstream>,
    key: &PortKey,
    request: Request<Upload>,
    wanted: Option<Wanted>,
) -> Response<Body> {
    let roster = live.endpoints.get(key);
    let endpoints = roster.map(|roster| &*roster.choices.addresses);
    let endpoints = endpoints.unwrap_or_default();
    match upstream.send(key, endpoints, request).await {
        Ok(answer) => incoming(answer, wanted.map(|wanted| wanted.client)),
        Err(failure) => answer::plain(status_of(failure)),
    }
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::Nobody => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// What a request asks its connection to become, and the client's half of it.
struct Wanted {
    to: HeaderValue,
    client: OnUpgrade,
}

/// Only HTTP/1.1 has upgrades.
fn wanted_upgrade(request: &mut Request<Incoming>) -> Option<Wanted> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let to = headers::upgrade(request.headers())?;
    let client = hyper::upgrade::on(request);
    Some(Wanted { to, client })
}

/// The request as its endpoint gets it.
fn outgoing(
    request: Request<Body>,
    peer: Peer,
    host: &str,
    wanted: Option<&Wanted>,
) -> Result<Request<Upload>, StatusCode> {
    let (mut parts, body) = request.into_parts();
    let client = Client {
        ip: peer.client.ip(),
        port: peer.port,
        tls: peer.tls,
        host,
    };
    headers::forward(&mut parts.headers, &client);
    if let Some(wanted) = wanted {
        headers::ask_upgrade(&mut parts.headers, &wanted.to);
    }
    let rest = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    parts.uri = rest.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    parts.version = Version::HTTP_11;
    Ok(Request::from_parts(parts, Upload::new(body)))
}

/// The answer as the client gets it. Where the endpoint agrees to an upgrade, bytes go to and fro from then on.
fn incoming(mut answer: Response<Incoming>, client: Option<OnUpgrade>) -> Response<Body> {
    let upgraded = headers::upgrade(answer.headers());
    if let (StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(to)) =
        (answer.status(), client, upgraded)
    {
        let endpoint = hyper::upgrade::on(&mut answer);
        tokio::task::spawn_local(carry(client, endpoint));
        headers::end_connection(answer.headers_mut());
        headers::ask_upgrade(answer.headers_mut(), &to);
    } else if answer.status().is_informational() {
        // Nobody has asked for it.
        return answer::plain(StatusCode::BAD_GATEWAY);
    } else {
        headers::end_connection(answer.headers_mut());
    }
    answer
        .headers_mut()
        .entry(SERVER)
        .or_insert(answer::SERVER_NAME);
    *answer.version_mut() = Version::HTTP_11;
    answer.map(Body::Passed)
}

/// Carries the bytes of an upgraded connection until both sides are done.
async fn carry(client: OnUpgrade, endpoint: OnUpgrade) {
    let (Ok(client), Ok(endpoint)) = (client.await, endpoint.await) else {
        return;
    };
    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(%error, "an upgraded connection has ended");
    }
}
