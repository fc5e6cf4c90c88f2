//! What is done to the requests of a route besides sending them to a backend, as values.
//!
//! Whoever reads objects makes a [`Policy`] (for Ingresses, `ingress::annotation`); the server asks the functions of the
//! submodules what to do, in the order that docs/gateway.md gives. All of it is pure: addresses, headers, time and
//! random numbers are arguments.

mod canary;
mod compression;
mod cors;
mod limits;
mod password;
mod redirect;
mod sources;
mod template;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::route::Destination;

pub use canary::{Canary, HeaderRule};
pub use compression::{Coding, Compression};
pub use cors::{Cors, Origin as CorsOrigin};
pub use limits::{Held, LIMITED_CLIENTS_MAX, Limiter, Limits, Rate, Turn};
pub use password::{HashError, Login, Users, credentials};
pub use redirect::{Redirect, Rewrite};
pub use sources::Sources;
pub use template::{Scope, Template, TemplateError, cookie};

/// Everything that is done to requests of a route. The default does nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Something that restricts access cannot be carried out, as a Problem says: nobody gets in, and the answer is 503.
    pub closed: bool,
    /// Requests without TLS are sent to the same place with TLS, by this status. Challenges of ACME (RFC 8555
    /// section 8.3) come without TLS, and go on.
    pub require_tls: Option<StatusCode>,
    /// From where requests may come.
    pub sources: Sources,
    /// An allowed source or a login is enough; otherwise both are needed.
    pub satisfy_any: bool,
    /// All requests are sent somewhere else.
    pub redirect: Option<Redirect>,
    /// What pages of other origins may do.
    pub cors: Option<Cors>,
    /// How often a client may ask.
    pub limits: Limits,
    /// Largest body of a request, in bytes; `None` for any.
    pub body_max: Option<u64>,
    /// Names and passwords that let in.
    pub login: Option<Login>,
    /// A service that is asked whether a request may go on.
    pub judge: Option<Judge>,
    /// Another backend for some of the requests.
    pub canary: Option<Canary>,
    /// Another path for the backend.
    pub rewrite: Option<Rewrite>,
    /// Another `Host` for the backend.
    pub host: Option<Template>,
    /// `X-Forwarded-Prefix` for the backend.
    pub forwarded_prefix: Option<HeaderValue>,
    /// Headers that every answer gets.
    pub answer_headers: Vec<(HeaderName, HeaderValue)>,
    /// `Strict-Transport-Security` of answers by TLS.
    pub hsts: Option<HeaderValue>,
    /// Who gets a copy of each request, whose answers are thrown away.
    pub mirror: Option<Mirror>,
    /// Who answers instead of the backend.
    pub stand_in: Option<StandIn>,
    /// How answers are made smaller.
    pub compression: Option<Compression>,
    /// How the backend is spoken to.
    pub upstream: Upstream,
    /// Requests are not written into the access log.
    pub is_unlogged: bool,
}

/// A service that is asked whether a request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judge {
    /// Where it is asked: an `http://` URL.
    pub url: Template,
    /// By which method; that of the request if `None`.
    pub method: Option<Method>,
    /// Where people are sent who are not let in with 401: a URL, to which the place they wanted is added.
    pub sign_in: Option<Template>,
    /// The parameter of that URL that says where they wanted to go.
    pub return_parameter: String,
    /// What `X-Auth-Request-Redirect` says; the path and the query if `None`.
    pub return_to: Option<Template>,
    /// Headers of its answer that the request takes along.
    pub passed: Vec<HeaderName>,
}

/// Who gets a copy of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// An `http://` URL.
    pub url: Template,
    /// Its `Host`; that of the URL if `None`.
    pub host: Option<HeaderValue>,
    /// Whether bodies are copied, too.
    pub with_body: bool,
}

/// Who answers instead of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The one who does.
    pub to: Destination,
    /// Whether it also does when the backend has no endpoints.
    pub when_empty: bool,
    /// Statuses of the backend at which it does.
    pub at: Vec<StatusCode>,
    /// `X-Namespace`, `X-Ingress-Name`, `X-Service-Name` and `X-Service-Port` for it.
    pub told: Arc<[(HeaderName, HeaderValue)]>,
}

/// How a backend is spoken to. `None` is the gateway's own choice everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upstream {
    /// The protocol.
    pub protocol: Protocol,
    /// An endpoint must take a connection in this time.
    pub connect_timeout: Option<Duration>,
    /// Longest silence of an endpoint.
    pub read_timeout: Option<Duration>,
    /// Longest time in which an endpoint takes nothing of a request.
    pub send_timeout: Option<Duration>,
    /// When another endpoint is tried.
    pub retry: Option<Retry>,
    /// How an endpoint is chosen.
    pub balance: Option<Balance>,
    /// Whether the gateway checks endpoints itself.
    pub check: Option<crate::check::Check>,
    /// Clients stay with their endpoint by a cookie.
    pub affinity: Option<Affinity>,
    /// The name that an endpoint's certificate must have, and that it is asked for.
    pub tls_name: Option<String>,
    /// Whose certificates are believed, and which one is shown; `None` believes everybody and shows none.
    pub tls: Option<Arc<crate::endpoint_tls::EndpointTls>>,
    /// Whether connections begin with who the client is (PROXY protocol).
    pub announce: Option<crate::traffic::Announce>,
}

/// What is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP with TLS.
    Https,
    /// gRPC: HTTP/2 without TLS.
    Grpc,
    /// gRPC with TLS.
    Grpcs,
}

/// When another endpoint is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// After an endpoint could not be reached, or ended the connection.
    pub on_error: bool,
    /// After an endpoint did not answer in time.
    pub on_timeout: bool,
    /// After these statuses.
    pub on_status: Vec<StatusCode>,
    /// Also requests that are not idempotent.
    pub any_method: bool,
    /// Tries in all; `None` for as many as there are endpoints.
    pub tries: Option<u32>,
    /// No new try after this time.
    pub within: Option<Duration>,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// By turns.
    RoundRobin,
    /// The better one of two, by what their answers took lately.
    Ewma,
    /// The one of two with fewer requests.
    LeastRequests,
    /// Always the same one for the same text.
    Hash(Template),
}

/// A cookie by which a client stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Its name.
    pub name: String,
    /// Its path; `/` if `None`.
    pub path: Option<String>,
    /// Its domain.
    pub domain: Option<String>,
    /// Seconds for which the client keeps it; for the session if `None`.
    pub max_age: Option<u64>,
    /// Its attribute `SameSite`, as written.
    pub same_site: Option<String>,
    /// Whether only TLS carries it; if `None`, when the request came by TLS.
    pub secure: Option<bool>,
    /// Whether a client whose endpoint fails stays with the next one.
    pub change_on_failure: bool,
    /// Whether clients stay even where others have come since.
    pub is_persistent: bool,
    /// Whether each site that the page is within has a cookie of its own (CHIPS).
    pub is_partitioned: bool,
}
