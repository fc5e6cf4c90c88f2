//! One request: what it asks for, where it goes, and what comes back.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, SERVER, SET_COOKIE, TE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use portolan_model::PortKey;
use tokio::sync::OwnedSemaphorePermit;

use super::answer;
use super::body::{Body, Download, Upload};
use super::filters::{self, Common, Exchange, Step};
use super::headers::{self, Client, Said};
use super::limits::HEAD_BYTES_MAX;
use super::record::Record;
use super::upstream::{Answer, Failure, Job, Opened, Ticket, Upstream};
use super::{Live, Settings};
use crate::host::request_host;
use crate::path::{normalize, resolved};
use crate::policy::cookie;
use crate::roster::Roster;
use crate::route::{self, Destination};
use crate::tally::Seat;
use crate::traffic::{Spoken, Spread};

/// The connection that a request comes by.
#[derive(Debug)]
pub(super) struct Peer {
    /// The client, or whoever stands in front.
    pub(super) client: SocketAddr,
    /// The address that it has connected to.
    pub(super) local: SocketAddr,
    /// Whether it speaks TLS.
    pub(super) tls: bool,
    /// The name that it has asked for by TLS (SNI).
    pub(super) server_name: Option<Box<str>>,
    /// What endpoints are told of it, made once.
    said: OnceCell<Said>,
    /// It counts as a connection as long as somebody knows it.
    pub(super) _seat: Option<(Option<OwnedSemaphorePermit>, Seat)>,
}

impl Peer {
    /// A connection that has not said anything yet.
    pub(super) fn new(client: SocketAddr, local: SocketAddr, tls: bool) -> Peer {
        Peer {
            client,
            local,
            tls,
            server_name: None,
            said: OnceCell::new(),
            _seat: None,
        }
    }

    /// What endpoints are told of it.
    pub(super) fn said(&self) -> &Said {
        let said = || Said::of(self.client.ip(), self.local.port());
        self.said.get_or_init(said)
    }
}

/// What requests of a thread are served by.
pub(super) struct Serving<'a> {
    pub(super) live: &'a Live,
    pub(super) upstream: &'a Rc<Upstream>,
    pub(super) settings: &'a Settings,
    pub(super) common: &'a Common,
    /// What is written down of the request.
    pub(super) record: &'a Record,
}

/// Answers a request.
pub(super) async fn handle(
    serving: &Serving<'_>,
    peer: &Peer,
    mut request: Request<Body>,
) -> Response<Body> {
    let is_grpc = answer::is_grpc(request.headers());
    let asks_upgrade = headers::upgrade(request.headers()).is_some();
    let is_http1 = request.version() <= Version::HTTP_11;
    if serving.live.table.is_resolving
        && let Err(status) = resolve(&mut request)
    {
        return answer::status(status, is_grpc);
    }
    let result = match place(serving, peer, &request) {
        Ok(place) => go(serving, peer, &place, request).await,
        Err(status) => Err(status),
    };
    let mut answer = result.unwrap_or_else(|status| answer::status(status, is_grpc));
    let is_refused = answer.status() == StatusCode::BAD_REQUEST;
    let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_http1 && (is_refused || (asks_upgrade && !is_upgraded)) {
        // Nobody has read along with what may stand behind an upgrade, and who sends nonsense may send more.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}

/// Gives a request the path that nginx would look for, and its endpoint gets that one, too: two readings of one path
/// are what attacks are made of.
fn resolve(request: &mut Request<Body>) -> Result<(), StatusCode> {
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
    /// As it is compared, where that is something else.
    compared: Option<String>,
    /// The path as it is compared.
    path: String,
}

/// Reads host and path; what is not plainly one thing is refused (RFC 9112 sections 3.2 and 3.3).
fn place(serving: &Serving<'_>, peer: &Peer, request: &Request<Body>) -> Result<Place, StatusCode> {
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
    let compared = request_host(host).map_err(|_| StatusCode::BAD_REQUEST)?;
    let certificates = &serving.live.certificates;
    if let Some(name) = peer.server_name.as_deref()
        && certificates.differ(name, &compared)
    {
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    let path = normalize(request.uri().path()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let is_same = compared == host;
    Ok(Place {
        host: host.to_owned(),
        compared: (!is_same).then(|| compared.into_owned()),
        path: path.into_owned(),
    })
}

/// Bytes of the head, nearly; hyper refuses only what it has not read to its end by then.
fn size(request: &Request<Body>) -> usize {
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
    serving: &Serving<'_>,
    peer: &Peer,
    place: &Place,
    mut request: Request<Body>,
) -> Result<Response<Body>, StatusCode> {
    let host = place.compared.as_deref().unwrap_or(&place.host);
    let found = serving.live.table.find(&route::Request {
        host,
        path: &place.path,
        query: request.uri().query().unwrap_or_default(),
        method: request.method(),
        headers: request.headers(),
    });
    let target = found.ok_or(StatusCode::NOT_FOUND)?;
    let is_trusted = serving.settings.trusts(peer.client.ip());
    let client = headers::client_of(peer.client.ip(), request.headers(), serving.settings);
    serving.record.found(&serving.live.table, target, client);
    let exchange = Exchange {
        live: serving.live,
        common: serving.common,
        target,
        peer,
        http_host: &place.host,
        client,
        is_trusted,
        is_grpc: answer::is_grpc(request.headers()),
        https_port: serving.settings.https_port,
        host,
        path: &place.path,
    };
    let wanted = wanted_upgrade(&mut request, target.traffic.spoken);
    let after = match filters::before(&exchange, &mut request).await {
        Step::On(after) => after,
        Step::Done(answer) => return Ok(answer),
    };
    let answer = match filters::choose(&exchange, &request) {
        Some(to @ Destination::Port(key)) => {
            let hash = hash(&exchange, &request);
            let host = filters::host(&exchange, &request);
            let mut request = outgoing(&exchange, serving, request, &place.host, wanted.as_ref());
            filters::forward(&exchange, to, host, request.headers_mut());
            forward(serving, &exchange, key, hash, request, wanted).await
        }
        Some(Destination::Broken(status)) => answer::status(*status, exchange.is_grpc),
        None => answer::status(StatusCode::INTERNAL_SERVER_ERROR, exchange.is_grpc),
    };
    Ok(after.apply(&exchange, answer).await)
}

/// What a request is told apart by, where endpoints are chosen by a hash: what its Ingress says, and else its client.
fn hash(exchange: &Exchange<'_>, request: &Request<Body>) -> u64 {
    match &exchange.target.traffic.spread {
        Some(Spread::Hash(template)) => Roster::hash(exchange.render(template, request).as_bytes()),
        _ => match exchange.client {
            IpAddr::V4(ip) => Roster::hash(&ip.octets()),
            IpAddr::V6(ip) => Roster::hash(&ip.octets()),
        },
    }
}

/// Sends a request to an endpoint of a Service port.
async fn forward(
    serving: &Serving<'_>,
    exchange: &Exchange<'_>,
    key: &PortKey,
    hash: u64,
    request: Request<Upload>,
    wanted: Option<Wanted>,
) -> Response<Body> {
    let Some(roster) = serving.live.endpoints.get(key) else {
        return answer::status(StatusCode::SERVICE_UNAVAILABLE, exchange.is_grpc);
    };
    let traffic = &exchange.target.traffic;
    let sticky = traffic.sticky.as_ref();
    let wish = sticky.map(|sticky| {
        let given = cookie(request.headers(), &sticky.name);
        sticky.wish(roster, given, fastrand::u128(..))
    });
    let job = Job {
        key,
        roster,
        traffic,
        hash,
        wanted: wish.as_ref().and_then(|wish| wish.endpoint),
        sick: match &traffic.check {
            Some(check) => serving.common.checks.sick(key, check),
            None => Vec::new(),
        },
        ends: (exchange.peer.client, exchange.peer.local),
    };
    serving.record.sent(key);
    match serving.upstream.send(&job, request).await {
        Ok((answer, ticket)) => {
            let endpoint = ticket.endpoint();
            serving.record.heard(endpoint, answer.status());
            let record = serving.record;
            let mut answer = incoming(answer, ticket, traffic.read_timeout, wanted, record);
            let random = &mut || fastrand::u128(..);
            let told = sticky.zip(wish).and_then(|(sticky, wish)| {
                sticky.cookie(roster, wish, endpoint, exchange.peer.tls, random)
            });
            if let Some(cookie) = told {
                answer.headers_mut().append(SET_COOKIE, cookie);
            }
            answer
        }
        Err(failure) => answer::status(status_of(failure), exchange.is_grpc),
    }
}

fn status_of(failure: Failure) -> StatusCode {
    match failure {
        Failure::Nobody | Failure::Full => StatusCode::SERVICE_UNAVAILABLE,
        Failure::Broken => StatusCode::BAD_GATEWAY,
        Failure::Silent => StatusCode::GATEWAY_TIMEOUT,
        Failure::ClientSilent => StatusCode::REQUEST_TIMEOUT,
        Failure::ClientBroken => StatusCode::BAD_REQUEST,
    }
}

/// What a request asks its connection to become, and the client's half of it.
struct Wanted {
    to: HeaderValue,
    client: OnUpgrade,
}

/// Only HTTP/1.1 has upgrades, on both sides.
fn wanted_upgrade(request: &mut Request<Body>, spoken: Spoken) -> Option<Wanted> {
    if request.version() != Version::HTTP_11 || spoken.is_http2() {
        return None;
    }
    let to = headers::upgrade(request.headers())?;
    let client = hyper::upgrade::on(request);
    Some(Wanted { to, client })
}

/// The request as its endpoint gets it, but for what its protocol needs.
fn outgoing(
    exchange: &Exchange<'_>,
    serving: &Serving<'_>,
    request: Request<Body>,
    host: &str,
    wanted: Option<&Wanted>,
) -> Request<Upload> {
    let (mut parts, body) = request.into_parts();
    let client = Client {
        ip: exchange.client,
        peer: exchange.peer,
        host,
        is_trusted: exchange.is_trusted,
    };
    let takes_trailers = headers::takes_trailers(&parts.headers);
    headers::forward(&mut parts.headers, &client);
    if let Some(wanted) = wanted {
        headers::ask_upgrade(&mut parts.headers, &wanted.to);
    }
    if takes_trailers && exchange.target.traffic.spoken.is_http2() {
        parts
            .headers
            .insert(TE, HeaderValue::from_static("trailers"));
    }
    let rest = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(rest.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let limit = serving.settings.limits.client_timeout;
    Request::from_parts(parts, Upload::new(body, limit))
}

/// The answer as the client gets it. Where the endpoint agrees to an upgrade, bytes go to and fro from then on.
fn incoming(
    answer: Response<Answer>,
    ticket: Ticket,
    limit: Duration,
    wanted: Option<Wanted>,
    record: &Record,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    if head.status.is_informational() {
        let agreed = headers::upgrade(&head.headers);
        let (Some(endpoint), Some(wanted), Some(to)) = (body.opened(), wanted, agreed) else {
            // Nobody has asked for it.
            return answer::plain(StatusCode::BAD_GATEWAY);
        };
        let peer = record.peer();
        let carrying = async move {
            carry(wanted.client, endpoint, ticket).await;
            drop(peer);
        };
        tokio::task::spawn_local(record.tracker().track_future(carrying));
        headers::end_connection(&mut head.headers);
        headers::ask_upgrade(&mut head.headers, &to);
        return finished(Response::from_parts(head, Body::empty()));
    }
    headers::end_connection(&mut head.headers);
    let body = Body::Answer(Download::new(body, limit, ticket));
    finished(Response::from_parts(head, body))
}

fn finished(mut answer: Response<Body>) -> Response<Body> {
    let named = answer.headers_mut().entry(SERVER);
    named.or_insert(answer::SERVER_NAME);
    *answer.version_mut() = Version::HTTP_11;
    answer
}

/// Carries the bytes of an upgraded connection until both sides are done.
async fn carry(client: OnUpgrade, mut endpoint: Opened, _ticket: Ticket) {
    let Ok(client) = client.await else {
        return;
    };
    let mut client = TokioIo::new(client);
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(%error, "an upgraded connection has ended");
    }
}
