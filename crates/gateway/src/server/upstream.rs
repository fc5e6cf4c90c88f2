//! Requests on their way to endpoints: who is chosen, over which connection, for how long is waited, and who is next.
//!
//! ```text
//!   send ─▶ Group::pick ─▶ Pool or dial ─▶ ask ─▶ answer, with a Ticket until the end of its body
//!             ▲                              │ refused, broken, silent, or a status that is not wanted
//!             └── budget, tries, deadline ◀──┘
//! ```

mod dial;
mod pool;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use portolan_model::PortKey;
use tokio::time::{Instant, timeout, timeout_at};

pub(super) use self::dial::Tls;
use self::dial::dial;
pub(super) use self::pool::Place;
use self::pool::{Pool, Sender};
use super::body::{Progress, Stage, Upload};
use super::limits::IDLE_LOOK;
use crate::balance::{Group, Outcome};
use crate::endpoint_tls::EndpointTls;
use crate::proxy_protocol;
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
    groups: RefCell<HashMap<PortKey, Rc<RefCell<Group>>>>,
    tls: Tls,
}

/// A request that is under way to an endpoint, until it is dropped.
pub(super) struct Ticket {
    upstream: Rc<Upstream>,
    group: Rc<RefCell<Group>>,
    endpoint: SocketAddr,
    began: Instant,
    /// Counts a stream of a connection of HTTP/2.
    stream: Option<Rc<()>>,
    /// The connection of HTTP/1 that it goes over, if that is good for another one.
    connection: Option<Box<(Place, http1::SendRequest<Upload>)>>,
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

    fn answered(&self, answer: &Response<Incoming>) {
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
        if let Some(connection) = self.connection.take() {
            let (place, sender) = *connection;
            self.upstream.keep_after(place, sender);
        }
    }
}

/// What has become of one try.
enum Tried {
    Answer(Response<Incoming>),
    /// No answer; whether the endpoint is to be blamed, and the request, if nothing of it was sent.
    No(Failure, bool, Option<Box<Request<Upload>>>),
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
            upstream: Rc::clone(self),
            group: shared,
            endpoint,
            began: now,
            stream: None,
            connection: None,
        })
    }

    /// Sends a request to one of the endpoints, and to others as long as that can be done without doing something twice.
    pub(super) async fn send(
        self: &Rc<Self>,
        job: &Job<'_>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Ticket), Failure> {
        let retry = &job.traffic.retry;
        let deadline = retry.within.map(|within| Instant::now() + within);
        let may_repeat = request.body().is_end_stream() && retry.may_repeat(request.method());
        let mut tried = Vec::new();
        let mut ticket = self.pick(job, &tried)?;
        // A copy costs as much as all else here, and is of no use where nobody else can get it.
        let may_repeat = may_repeat && retry.tries > 1 && ticket.group.borrow().has_several();
        loop {
            let spare = may_repeat.then(|| copied(&request));
            let result = self.attempt(job, &mut ticket, request).await;
            let (failure, blamed, again) = match result {
                Tried::Answer(answer) if !retry.statuses.contains(&answer.status()) => {
                    ticket.answered(&answer);
                    return Ok((answer, ticket));
                }
                Tried::Answer(answer) => {
                    ticket.answered(&answer);
                    let next = spare.filter(|_| self.may_go_on(job, deadline, tried.len() + 1));
                    let Some(spare) = next else {
                        return Ok((answer, ticket));
                    };
                    tried.push(ticket.endpoint);
                    match self.pick(job, &tried) {
                        Ok(other) => (ticket, request) = (other, spare),
                        // Nobody else is there: this is the answer after all.
                        Err(_) => return Ok((answer, ticket)),
                    }
                    continue;
                }
                Tried::No(failure, blamed, unsent) => {
                    let unsent = unsent.map(|unsent| *unsent);
                    (failure, blamed, unsent.or(spare))
                }
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
            let again = again.filter(|_| covered || !blamed).ok_or(failure)?;
            if !self.may_go_on(job, deadline, tried.len()) {
                return Err(failure);
            }
            ticket = self.pick(job, &tried).map_err(|_| failure)?;
            request = again;
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
        request: Request<Upload>,
    ) -> Tried {
        let place = Place::of(ticket.endpoint, job.traffic, job.key);
        let announcement = job.traffic.announce.map(|version| {
            let (client, local) = job.ends;
            proxy_protocol::header(version, client, local)
        });
        let mut request = framed(request, &place);
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
                            return Tried::No(Failure::Broken, true, Some(Box::new(request)));
                        }
                        Err(_) => {
                            return Tried::No(Failure::Silent, true, Some(Box::new(request)));
                        }
                    }
                }
            };
            match self.ask(job, &place, ticket, sender, request, keeps).await {
                // It was closed in this very moment.
                Tried::No(Failure::Broken, _, Some(unsent)) if was_kept => request = *unsent,
                tried => return tried,
            }
        }
    }

    /// Sends a request over a connection, and waits for the head of the answer.
    async fn ask(
        self: &Rc<Self>,
        job: &Job<'_>,
        place: &Place,
        ticket: &mut Ticket,
        sender: Sender,
        request: Request<Upload>,
        keeps: bool,
    ) -> Tried {
        let progress = request.body().progress();
        progress.moved.set(Instant::now());
        let result = match sender {
            Sender::Http1(mut sender) => {
                let answer = answered(job.traffic, &progress, sender.try_send_request(request));
                let answer = answer.await;
                if matches!(answer, Some(Ok(_))) && keeps {
                    ticket.connection = Some(Box::new((place.clone(), sender)));
                }
                answer
            }
            Sender::Http2(mut sender, streams) => {
                ticket.stream = Some(Rc::clone(&streams));
                let shared = Sender::Http2(sender.clone(), streams);
                if keeps && !self.pool.borrow().has(place, &shared) {
                    let mut pool = self.pool.borrow_mut();
                    pool.put(place.clone(), shared, Instant::now());
                }
                answered(job.traffic, &progress, sender.try_send_request(request)).await
            }
        };
        match (result, progress.stage.get()) {
            (Some(Ok(answer)), _) => Tried::Answer(answer),
            (_, Stage::Silent) => Tried::No(Failure::ClientSilent, false, None),
            (_, Stage::Broken) => Tried::No(Failure::ClientBroken, false, None),
            (Some(Err(mut error)), _) => {
                let unsent = error.take_message().map(Box::new);
                let error = error.into_error();
                tracing::debug!(endpoint = %place.address, %error, "an endpoint has not answered");
                Tried::No(Failure::Broken, true, unsent)
            }
            (None, _) => Tried::No(Failure::Silent, true, None),
        }
    }

    /// Once the answer has been read to its end, the connection is good for another request. As a rule that is now.
    fn keep_after(self: &Rc<Self>, place: Place, mut sender: http1::SendRequest<Upload>) {
        if sender.is_ready() {
            let mut pool = self.pool.borrow_mut();
            pool.put(place, Sender::Http1(sender), Instant::now());
            return;
        }
        if sender.is_closed() {
            return;
        }
        let upstream = Rc::clone(self);
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                let mut pool = upstream.pool.borrow_mut();
                pool.put(place, Sender::Http1(sender), Instant::now());
            }
        });
    }
}

/// Sends a request of our own over a connection of its own; what its answer says.
pub(super) async fn question(
    place: &Place,
    own: Option<&EndpointTls>,
    tls: &Tls,
    request: Request<Upload>,
) -> io::Result<StatusCode> {
    let request = framed(request, place);
    let answer = match dial(place, None, own, tls).await? {
        Sender::Http1(mut sender) => sender.send_request(request).await,
        Sender::Http2(mut sender, _) => sender.send_request(request).await,
    };
    Ok(answer.map_err(io::Error::other)?.status())
}

/// The same request once more; it has no body.
fn copied(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// The form that a request has in the protocol: HTTP/2 has scheme and host in the target, HTTP/1.1 only the path.
fn framed(mut request: Request<Upload>, place: &Place) -> Request<Upload> {
    let has_authority = request.uri().authority().is_some();
    match place.spoken {
        Spoken::Http | Spoken::Https => *request.version_mut() = Version::HTTP_11,
        Spoken::H2c | Spoken::H2 if has_authority => {}
        Spoken::H2c | Spoken::H2 => {
            *request.version_mut() = Version::HTTP_2;
            let scheme = if place.spoken.is_tls() {
                "https"
            } else {
                "http"
            };
            let host = request.headers_mut().remove(HOST);
            let given = host.as_ref().map(HeaderValue::as_bytes);
            let rest = request.uri().path_and_query().cloned();
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
                *request.uri_mut() = uri;
            }
        }
    }
    request
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
