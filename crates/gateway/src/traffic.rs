//! How requests get from the gateway to the endpoints of a backend: what is spoken, who is chosen, how long is waited,
//! and when another endpoint is tried. The numbers that nobody has set are those of ingress-nginx.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};

use crate::check::Check;
use crate::endpoint_tls::EndpointTls;
use crate::policy::{self, Template, Upstream};
use crate::sticky::Sticky;

/// Most endpoints that are tried for one request, whatever is written: a request must not go round in a Service that is
/// broken as a whole.
pub const TRIES_MAX: u8 = 10;

/// How requests get to endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// What endpoints speak.
    pub spoken: Spoken,
    /// How an endpoint is chosen; `None` is as its Service says, and where that says nothing, by [`Spread::Ewma`].
    pub spread: Option<Spread>,
    /// An endpoint must take a connection in this time, TLS included.
    pub connect_timeout: Duration,
    /// An endpoint must take some bytes of the request in this time.
    pub send_timeout: Duration,
    /// An endpoint must send some bytes in this time: the head of its answer, and then each part of the body.
    pub read_timeout: Duration,
    /// When another endpoint is tried.
    pub retry: Retry,
    /// Whether connections begin with who the client is.
    pub announce: Option<Announce>,
    /// Endpoints that do not pass this get no requests while there are others.
    pub check: Option<Check>,
    /// Clients stay with their endpoint by a cookie.
    pub sticky: Option<Sticky>,
    /// The name that an endpoint is asked for by TLS (SNI); `None` for none.
    pub tls_name: Option<String>,
    /// Whose certificates are believed, and which one is shown; `None` believes everybody and shows none.
    pub tls: Option<Arc<EndpointTls>>,
}

impl Default for Traffic {
    fn default() -> Self {
        Traffic {
            spoken: Spoken::Http,
            spread: None,
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            announce: None,
            check: None,
            sticky: None,
            tls_name: None,
            tls: None,
        }
    }
}

impl Traffic {
    /// What annotations say, and the defaults for what they do not say.
    pub fn of(upstream: &Upstream) -> Traffic {
        let own = Traffic::default();
        Traffic {
            spoken: match upstream.protocol {
                policy::Protocol::Http => Spoken::Http,
                policy::Protocol::Https => Spoken::Https,
                policy::Protocol::Grpc => Spoken::H2c,
                policy::Protocol::Grpcs => Spoken::H2,
            },
            spread: upstream.balance.as_ref().map(|balance| match balance {
                policy::Balance::RoundRobin => Spread::RoundRobin,
                policy::Balance::Ewma => Spread::Ewma,
                policy::Balance::LeastRequests => Spread::LeastRequests,
                policy::Balance::Hash(template) => Spread::Hash(template.clone()),
            }),
            connect_timeout: upstream.connect_timeout.unwrap_or(own.connect_timeout),
            send_timeout: upstream.send_timeout.unwrap_or(own.send_timeout),
            read_timeout: upstream.read_timeout.unwrap_or(own.read_timeout),
            retry: upstream.retry.as_ref().map_or(own.retry, Retry::of),
            announce: upstream.announce,
            check: upstream.check.clone(),
            sticky: upstream.affinity.as_ref().map(Sticky::of),
            tls_name: upstream.tls_name.clone(),
            tls: upstream.tls.clone(),
        }
    }
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spoken {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/1.1 in TLS.
    Https,
    /// HTTP/2 without TLS, known beforehand (h2c, gRPC).
    H2c,
    /// HTTP/2 in TLS.
    H2,
}

impl Spoken {
    /// Whether it goes through TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Spoken::Https | Spoken::H2)
    }

    /// Whether it is HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Spoken::H2c | Spoken::H2)
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Of two drawn at random the one that should be done sooner: by how fast it has answered lately, where slowness
    /// counts at once and is forgotten little by little, times how many requests it has.
    Ewma,
    /// One after the other.
    RoundRobin,
    /// Of two drawn at random the one with fewer requests.
    LeastRequests,
    /// Where the same text comes out of a request, the same endpoint gets it.
    Hash(Template),
}

/// When another endpoint is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// When an endpoint takes no connection, or it ends before its answer begins.
    pub on_error: bool,
    /// When it does not answer in time.
    pub on_timeout: bool,
    /// When it answers with one of these.
    pub statuses: Vec<StatusCode>,
    /// Also for methods that may do something twice.
    pub any_method: bool,
    /// How many endpoints at most; 1 is none other.
    pub tries: u8,
    /// No further try begins after this time.
    pub within: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            on_error: true,
            on_timeout: true,
            statuses: Vec::new(),
            any_method: false,
            tries: 3,
            within: None,
        }
    }
}

impl Retry {
    fn of(said: &policy::Retry) -> Retry {
        let tries = said.tries.unwrap_or(u32::from(TRIES_MAX));
        Retry {
            on_error: said.on_error,
            on_timeout: said.on_timeout,
            statuses: said.on_status.clone(),
            any_method: said.any_method,
            tries: u8::try_from(tries).unwrap_or(TRIES_MAX).min(TRIES_MAX),
            within: said.within,
        }
    }

    /// Whether a request of this method may be sent a second time.
    pub fn may_repeat(&self, method: &Method) -> bool {
        self.any_method || method.is_idempotent()
    }
}

/// The versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announce {
    /// Text.
    V1,
    /// Binary.
    V2,
}
