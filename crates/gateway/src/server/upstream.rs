//! Requests on their way to endpoints: who is chosen, over which connection, for how long is waited, and who is next.
//!
//! ```text
//!   send ─▶ Group::pick ─▶ Pool or dial ─▶ ask ─▶ answer, with a Ticket until the end of its body
//!             ▲                              │ refused, broken, silent, or a status that is not wanted
//!             └── budget, tries, deadline ◀──┘
//! ```

mod dial;
mod http1;
mod pool;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http2;
use portolan_model::PortKey;
use tokio::time::{Instant, timeout, timeout_at};

pub(super) use self::dial::Tls;
use self::dial::dial;
pub(super) use self::http1::Opened;
use self::http1::{Connection, Home, Lost};
pub(super) use self::pool::Place;
use self::pool::{Pool, Sender};
use super::body::{BodyError, Progress, Stage, Upload};
use super::limits::IDLE_LOOK;
use crate::balance::{Group, Outcome};
use crate::endpoint_tls::EndpointTls;
use crate::proxy_protocol;
use crate::quick::Quick;
use crate::roster::Roster;
use crate::traffic::{Spoken, Traffic};

/// Why no endpoint has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no endpoint.
    Nobody,
    /// Too many requests are under way.
    Full,
    /// None of those that were tried takes a connection, or the one that did has closed it or does not speak HTTP.
    Broken,
    /// The one that was chosen does not answer.
    Silent,
    /// The client does not go on with its request.
    ClientSilent,
    /// What the client has sent is malformed, or it has gone.
    ClientBroken,
}

/// A request for a Service port, but for itself.
pub(super) struct Job<'a> {
    pub(super) key: &'a PortKey,
    pub(super) roster: &'a Arc<Roster>,
    pub(super) traffic: &'a Traffic,
    /// What it is told apart by, where endpoints are chosen by a hash.
    pub(super) hash: u64,
    /// The endpoint that its client has had before.
    pub(super) wanted: Option<SocketAddr>,
    /// Endpoints that get requests only when nobody else is left.
    pub(super) sick: Vec<SocketAddr>,
    /// The client, and the address that it has connected to.
    pub(super) ends: (SocketAddr, SocketAddr),
}

/// The connections of a thread, and what it knows of endpoints.
pub(super) struct Upstream {
    pool: RefCell<Pool>,
    groups: RefCell<HashMap<PortKey, Rc<RefCell<Group>>, BuildHasherDefault<Quick>>>,
    tls: Tls,
}

/// A request that is under way to an endpoint, until it is dropped.
pub(super) struct Ticket {
    group: Rc<RefCell<Group>>,
    endpoint: SocketAddr,
    began: Instant,
    /// Counts a stream of a connection of HTTP/2.
    stream: Option<Rc<()>>,
}

impl Ticket {
    /// The endpoint.
    pub(super) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }

    fn judge(&self, outcome: Outcome) {
        let mut group = self.group.borrow_mut();
        group.judge(self.endpoint, outcome, Instant::now());
    }

    fn answered(&self, answer: &Response<Answer>) {
        // An endpoint that says of itself that it cannot serve is no better than one that does not answer.
        self.judge(match answer.status().as_u16() {
            502..=504 => Outcome::Failed,
            _ => Outcome::Answered(self.began.elapsed()),
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.group.borrow_mut().end(self.endpoint);
    }
}

/// What has become of one try.
enum Tried {
    Answer(Response<Answer>),
    /// No answer; whether the endpoint is to be blamed.
    No(Failure, bool),
}

/// A request, as far as it is still here: its body goes with the first try that sends something of it.
struct Outgoing {
    head: Parts,
    body: Option<Upload>,
    /// It has no body, and does nothing twice when it is sent twice.
    may_repeat: bool,
}

impl Outgoing {
    /// Whether it can be sent once more.
    fn is_here(&mut self) -> bool {
        if self.body.is_none() && self.may_repeat {
            self.body = Some(Upload::empty());
        }
        self.body.is_some()
    }
}

/// The body of an answer, as it comes.
pub(super) enum Answer {
    Http1(http1::Answer),
    Http2(Incoming),
}

impl Answer {
    /// The connection, where it is HTTP no more.
    pub(super) fn opened(self) -> Option<Opened> {
        match self {
            Answer::Http1(http1::Answer::Opened(opened)) => Some(*opened),
            _ => None,
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Answer::Http1(body) => Pin::new(body).poll_frame(cx),
            Answer::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Http1(body) => body.is_end_stream(),
            Answer::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Http1(body) => body.size_hint(),
            Answer::Http2(body) => body.size_hint(),
        }
    }
}

impl Upstream {
    /// No connections yet.
    pub(super) fn new(tls: Tls) -> Upstream {
        Upstream {
            pool: RefCell::default(),
            groups: RefCell::default(),
            tls,
        }
    }

    /// Closes idle connections in time, for ever.
    pub(super) async fn keep(self: Rc<Self>) {
        let mut look = tokio::time::interval(IDLE_LOOK);
        loop {
            let now = look.tick().await;
            self.pool.borrow_mut().trim(now);
        }
    }

    /// Forgets Service ports that are not there any more.
    pub(super) fn forget(&self, known: impl Fn(&PortKey) -> bool) {
        self.groups.borrow_mut().retain(|key, _| known(key));
    }

    /// What is known of the endpoints of a Service port, as they are by now.
    fn group(&self, job: &Job<'_>, now: Instant) -> Rc<RefCell<Group>> {
        let mut groups = self.groups.borrow_mut();
        if let Some(group) = groups.get(job.key) {
            group.borrow_mut().follow(job.roster, now);
            return Rc::clone(group);
        }
        let turn = fastrand::usize(..);
        let group = Group::new(Arc::clone(job.roster), turn, now);
        let group = Rc::new(RefCell::new(group));
        groups.insert(job.key.clone(), Rc::clone(&group));
        group
    }

    /// The endpoint for a try.
    fn pick(self: &Rc<Self>, job: &Job<'_>, tried: &[SocketAddr]) -> Result<Ticket, Failure> {
        let now = Instant::now();
        let shared = self.group(job, now);
        let mut group = shared.borrow_mut();
        if !group.has_room() {
            return Err(Failure::Full);
        }
        let spread = job.traffic.spread.as_ref();
        let random = &mut || fastrand::u64(..);
        let wanted = job.wanted.filter(|wanted| !job.sick.contains(wanted));
        let wanted = wanted.and_then(|wanted| group.take(wanted, now, tried));
        let well = wanted.or_else(|| match job.sick.is_empty() {
            true => None,
            false => {
                let avoided = [tried, &job.sick].concat();
                group.pick(spread, job.hash, now, &avoided, random)
            }
        });
        let picked = well.or_else(|| group.pick(spread, job.hash, now, tried, random));
        let endpoint = picked.ok_or(Failure::Nobody)?;
        group.begin(endpoint);
        drop(group);
        Ok(Ticket {
            group: shared,
            endpoint,
            began: now,
            stream: None,
        })
    }

    /// Sends a request to one of the endpoints, and to others as long as that can be done without doing something twice.
    pub(super) async fn send(
        self: &Rc<Self>,
        job: &Job<'_>,
        request: Request<Upload>,
    ) -> Result<(Response<Answer>, Ticket), Failure> {
        let retry = &job.traffic.retry;
        let deadline = retry.within.map(|within| Instant::now() + within);
        let may_repeat = request.body().is_end_stream() && retry.may_repeat(request.method());
        let (head, body) = request.into_parts();
        let mut tried = Vec::new();
        let mut ticket = self.pick(job, &tried)?;
        let mut request = Outgoing {
            head,
            body: Some(body),
            may_repeat,
        };
        loop {
            let (failure, blamed) = match self.attempt(job, &mut ticket, &mut request).await {
                Tried::Answer(answer) => {
                    ticket.answered(&answer);
                    let is_wanted = !retry.statuses.contains(&answer.status());
                    if is_wanted
                        || !request.is_here()
                        || !self.may_go_on(job, deadline, tried.len() + 1)
                    {
                        return Ok((answer, ticket));
                    }
                    tried.push(ticket.endpoint);
                    match self.pick(job, &tried) {
                        Ok(other) => ticket = other,
                        // Nobody else is there: this is the answer after all.
                        Err(_) => return Ok((answer, ticket)),
                    }
                    continue;
                }
                Tried::No(failure, blamed) => (failure, blamed),
            };
            let covered = match failure {
                Failure::Broken => retry.on_error,
                Failure::Silent => retry.on_timeout,
                _ => false,
            };
            // A connection that was closed while it was idle says nothing about its endpoint, which may be the only one.
            if blamed {
                ticket.judge(Outcome::Failed);
                tried.push(ticket.endpoint);
            }
            let may = (covered || !blamed) && request.is_here();
            if !may || !self.may_go_on(job, deadline, tried.len()) {
                return Err(failure);
            }
            ticket = self.pick(job, &tried).map_err(|_| failure)?;
        }
    }

    /// Whether there is time, budget and leave for one more try after so many.
    fn may_go_on(&self, job: &Job<'_>, deadline: Option<Instant>, tries: usize) -> bool {
        let now = Instant::now();
        tries < usize::from(job.traffic.retry.tries)
            && deadline.is_none_or(|deadline| now < deadline)
            && self.group(job, now).borrow_mut().may_retry(now)
    }

    /// One try at the endpoint of the ticket.
    async fn attempt(
        self: &Rc<Self>,
        job: &Job<'_>,
        ticket: &mut Ticket,
        request: &mut Outgoing,
    ) -> Tried {
        let place = Place::of(ticket.endpoint, job.traffic, job.key);
        let announcement = job.traffic.announce.map(|version| {
            let (client, local) = job.ends;
            proxy_protocol::header(version, client, local)
        });
        frame(&mut request.head, &place);
        // A connection that has said who its client is serves no other.
        let keeps = announcement.is_none();
        let mut kept = match keeps {
            true => self.pool.borrow_mut().take(&place, Instant::now()),
            false => None,
        };
        loop {
            let was_kept = kept.is_some();
            let sender = match kept.take() {
                Some(sender) => sender,
                None => {
                    // Much is done rarely here: in a box, it costs nothing where a connection is there already.
                    let dialed = Box::pin(dial(
                        &place,
                        announcement.as_deref(),
                        job.traffic.tls.as_deref(),
                        &self.tls,
                    ));
                    match timeout(job.traffic.connect_timeout, dialed).await {
                        Ok(Ok(sender)) => sender,
                        Ok(Err(error)) => {
                            tracing::debug!(endpoint = %place.address, %error, "an endpoint takes no connection");
                            return Tried::No(Failure::Broken, true);
                        }
                        Err(_) => return Tried::No(Failure::Silent, true),
                    }
                }
            };
            let Some(body) = request.body.take() else {
                return Tried::No(Failure::Broken, false);
            };
            body.progress().moved.set(Instant::now());
            let home = keeps.then(|| (Rc::clone(self), place.clone()));
            let tried = match sender {
                Sender::Http1(connection) => {
                    let home = home.map(|(upstream, place)| Home { upstream, place });
                    ask_http1(job, request, body, connection, home, was_kept).await
                }
                Sender::Http2(sender, streams) => {
                    ticket.stream = Some(Rc::clone(&streams));
                    if let Some((upstream, place)) = home {
                        let shared = Sender::Http2(sender.clone(), streams);
                        let mut pool = upstream.pool.borrow_mut();
                        if !pool.has(&place, &shared) {
                            pool.put(place, shared, Instant::now());
                        }
                    }
                    Box::pin(ask_http2(job, request, body, sender)).await
                }
            };
            match tried {
                // It was closed in this very moment.
                Tried::No(Failure::Broken, _) if was_kept && request.body.is_some() => {}
                tried => return tried,
            }
        }
    }
}

/// Sends a request over a connection of HTTP/1.1, and waits for the head of the answer.
async fn ask_http1(
    job: &Job<'_>,
    request: &mut Outgoing,
    body: Upload,
    connection: Box<Connection>,
    home: Option<Home>,
    was_kept: bool,
) -> Tried {
    let progress = body.progress();
    let asked = connection.ask(&request.head, body, job.traffic, home).await;
    match (asked, progress.stage.get()) {
        (Ok(answer), _) => Tried::Answer(answer.map(Answer::Http1)),
        (_, Stage::Silent) => Tried::No(Failure::ClientSilent, false),
        (Err(Lost::Client), _) | (_, Stage::Broken) => Tried::No(Failure::ClientBroken, false),
        (Err(Lost::Silent), _) => Tried::No(Failure::Silent, true),
        (Err(Lost::Unsent(body)), _) => {
            request.body = Some(body);
            Tried::No(Failure::Broken, true)
        }
        (Err(Lost::Broken(error, has_come)), _) => {
            tracing::debug!(%error, "an endpoint has not answered");
            // An endpoint may have ended the connection before it has seen the request (RFC 9112 section 9.3.1).
            if was_kept && !has_come && job.traffic.retry.on_error {
                request.is_here();
            }
            Tried::No(Failure::Broken, true)
        }
    }
}

/// The same by HTTP/2.
async fn ask_http2(
    job: &Job<'_>,
    request: &mut Outgoing,
    body: Upload,
    mut sender: http2::SendRequest<Upload>,
) -> Tried {
    let progress = body.progress();
    // A copy costs as much as all else here, and is of no use where nobody else can get it.
    request.may_repeat &= job.traffic.retry.tries > 1 && job.roster.choices.addresses.len() > 1;
    let head = match request.may_repeat {
        true => request.head.clone(),
        false => std::mem::replace(&mut request.head, Request::new(()).into_parts().0),
    };
    let whole = Request::from_parts(head, body);
    let result = answered(job.traffic, &progress, sender.try_send_request(whole)).await;
    match (result, progress.stage.get()) {
        (Some(Ok(answer)), _) => Tried::Answer(answer.map(Answer::Http2)),
        (_, Stage::Silent) => Tried::No(Failure::ClientSilent, false),
        (_, Stage::Broken) => Tried::No(Failure::ClientBroken, false),
        (Some(Err(mut error)), _) => {
            if let Some(unsent) = error.take_message() {
                let (head, body) = unsent.into_parts();
                (request.head, request.body) = (head, Some(body));
            }
            let error = error.into_error();
            tracing::debug!(%error, "an endpoint has not answered");
            Tried::No(Failure::Broken, true)
        }
        (None, _) => Tried::No(Failure::Silent, true),
    }
}

/// Sends a request of our own over a connection of its own; what its answer says.
pub(super) async fn question(
    place: &Place,
    own: Option<&EndpointTls>,
    tls: &Tls,
    request: Request<Upload>,
) -> io::Result<StatusCode> {
    let (mut head, body) = request.into_parts();
    frame(&mut head, place);
    match dial(place, None, own, tls).await? {
        Sender::Http1(connection) => {
            let asked = connection.ask(&head, body, &Traffic::default(), None).await;
            match asked {
                Ok(answer) => Ok(answer.status()),
                Err(Lost::Broken(error, _)) => Err(error),
                Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        Sender::Http2(mut sender, _) => {
            let answer = sender.send_request(Request::from_parts(head, body)).await;
            Ok(answer.map_err(io::Error::other)?.status())
        }
    }
}

/// Gives a request the form that it has in the protocol: HTTP/2 has scheme and host in the target, HTTP/1.1 only the path.
fn frame(head: &mut Parts, place: &Place) {
    let has_authority = head.uri.authority().is_some();
    match place.spoken {
        Spoken::Http | Spoken::Https => head.version = Version::HTTP_11,
        Spoken::H2c | Spoken::H2 if has_authority => {}
        Spoken::H2c | Spoken::H2 => {
            head.version = Version::HTTP_2;
            let scheme = if place.spoken.is_tls() {
                "https"
            } else {
                "http"
            };
            let host = head.headers.remove(HOST);
            let given = host.as_ref().map(HeaderValue::as_bytes);
            let rest = head.uri.path_and_query().cloned();
            let with_host = |host: &[u8]| {
                let builder = Uri::builder().scheme(scheme).authority(host);
                builder.path_and_query(rest.clone()?).build().ok()
            };
            let own = place.address.to_string();
            let uri = given
                .filter(|host| !host.is_empty())
                .and_then(with_host)
                .or_else(|| with_host(own.as_bytes()));
            if let Some(uri) = uri {
                head.uri = uri;
            }
        }
    }
}

/// Waits for the head of an answer: as long as the endpoint takes the body in time, the client sends it, and then the
/// answer comes in time.
async fn answered<T>(
    traffic: &Traffic,
    progress: &Progress,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let limit = match progress.stage.get() {
            Stage::Sent => traffic.read_timeout,
            _ => traffic.send_timeout,
        };
        let until = progress.moved.get() + limit;
        match timeout_at(until, answer.as_mut()).await {
            Ok(answer) => return Some(answer),
            Err(_) if progress.moved.get() + limit > until => {}
            // It is the client's turn, and the body of the request looks after that.
            Err(_) if progress.stage.get() == Stage::Client => progress.moved.set(Instant::now()),
            Err(_) => return None,
        }
    }
}
