//! One request: what it asks for, where it goes, and what comes back.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::{HOST, SERVER};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Live;
use super::answer::{self, Body};
use super::headers::{self, Client};
use super::limits::HEAD_BYTES_MAX;
use super::upstream::{Failure, Upload, Upstream};
use crate::host::request_host;
use crate::path::normalize;
use crate::route::{self, Destination, Filter, Target};

/// Paths that certificate authorities ask for without TLS (RFC 8555 section 8.3).
const ACME: &str = "/.well-known/acme-challenge/";

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
    upstream: &Rc<Upstream>,
    peer: Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let result = match place(&request) {
        Ok(place) => go(live, upstream, peer, &place, request).await,
        Err(status) => Err(status),
    };
    result.unwrap_or_else(answer::plain)
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
    upstream: &Rc<Upstream>,
    peer: Peer,
    place: &Place,
    request: Request<Incoming>,
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
    if let Some(answer) = redirect(target, peer, &host, &place.path, request.uri()) {
        return Ok(answer);
    }
    match target.choose(fastrand::u64(..)) {
        Some(Destination::Port(key)) => {
            let endpoints = live
                .endpoints
                .get(key)
                .map(|all| &**all)
                .unwrap_or_default();
            let (request, client_upgrade) = outgoing(request, peer, &place.host)?;
            let answer = upstream.send(key, endpoints, request).await;
            answer
                .map(|answer| incoming(answer, client_upgrade))
                .map_err(status_of)
        }
        Some(Destination::Broken(status)) => Err(*status),
        None => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::Nobody => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The answer of the filters, if one of them has one.
fn redirect(
    target: &Target,
    peer: Peer,
    host: &str,
    path: &str,
    uri: &Uri,
) -> Option<Response<Body>> {
    let wanted = target.filters.iter().find_map(|filter| match filter {
        Filter::RequireTls(status) => (!peer.tls && !path.starts_with(ACME)).then_some(*status),
    });
    let status = wanted?;
    // Without a host there is nowhere to send the client to.
    if host.is_empty() {
        return Some(answer::plain(StatusCode::BAD_REQUEST));
    }
    let rest = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let location = match peer.https_port {
        443 => format!("https://{host}{rest}"),
        port => format!("https://{host}:{port}{rest}"),
    };
    Some(answer::redirect(status, &location))
}

/// The request as its endpoint gets it, and the client's half of an upgrade that it asks for.
fn outgoing(
    request: Request<Incoming>,
    peer: Peer,
    host: &str,
) -> Result<(Request<Upload>, Option<OnUpgrade>), StatusCode> {
    let mut request = request;
    let wanted = match request.version() {
        Version::HTTP_11 => headers::upgrade(request.headers()),
        _ => None,
    };
    let upgrade = wanted.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut parts, body) = request.into_parts();
    let client = Client {
        ip: peer.client.ip(),
        port: peer.port,
        tls: peer.tls,
        host,
    };
    headers::forward(&mut parts.headers, &client);
    if let Some(to) = &wanted {
        headers::ask_upgrade(&mut parts.headers, to);
    }
    let rest = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    parts.uri = rest.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    parts.version = Version::HTTP_11;
    Ok((Request::from_parts(parts, Upload::new(body)), upgrade))
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
    answer.map(Either::Left)
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
