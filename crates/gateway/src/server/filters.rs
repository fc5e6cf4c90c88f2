//! What is done to a request before it goes to an endpoint, and to its answer on the way back.
//!
//! ```text
//!   request ─▶ before ─▶ choose ─▶ endpoint ─▶ After::apply ─▶ client
//!                └── an answer of our own ──────────┘
//! ```

use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};

use super::answer;
use super::body::Body;
use super::request::Peer;
use crate::route::{Destination, Filter, Target};

/// Paths that certificate authorities ask for without TLS (RFC 8555 section 8.3).
const ACME: &str = "/.well-known/acme-challenge/";

/// What filters may know besides the request.
pub(super) struct Exchange<'a> {
    /// What the request matches.
    pub(super) target: &'a Target,
    /// The connection that it comes by.
    pub(super) peer: &'a Peer,
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

/// What is done to an answer; also to those of our own, but for those that are no request at all.
#[derive(Default)]
pub(super) struct After {}

impl After {
    /// Does it.
    pub(super) async fn apply(
        self,
        _exchange: &Exchange<'_>,
        answer: Response<Body>,
    ) -> Response<Body> {
        answer
    }
}

/// The filters of a target in their order, until one of them has an answer. They see the request as the client has sent
/// it: headers for its endpoint come later.
pub(super) async fn before(exchange: &Exchange<'_>, request: &mut Request<Body>) -> Step {
    for filter in &exchange.target.filters {
        let answer = match filter {
            Filter::RequireTls(status) => require_tls(exchange, *status, request),
        };
        if let Some(answer) = answer {
            return Step::Done(answer);
        }
    }
    Step::On(After::default())
}

/// Which of the target's backends gets the request.
pub(super) fn choose<'a>(
    exchange: &Exchange<'a>,
    _request: &Request<Body>,
) -> Option<&'a Destination> {
    exchange.target.choose(fastrand::u64(..))
}

fn require_tls(
    exchange: &Exchange<'_>,
    status: StatusCode,
    request: &Request<Body>,
) -> Option<Response<Body>> {
    if exchange.peer.tls || exchange.path.starts_with(ACME) {
        return None;
    }
    // Without a host there is nowhere to send the client to.
    let host = exchange.host;
    if host.is_empty() {
        return Some(answer::plain(StatusCode::BAD_REQUEST));
    }
    let rest = request
        .uri()
        .path_and_query()
        .map_or("/", PathAndQuery::as_str);
    let location = match exchange.peer.https_port {
        443 => format!("https://{host}{rest}"),
        port => format!("https://{host}:{port}{rest}"),
    };
    Some(answer::redirect(status, &location))
}
