//! The route model: which requests, and what happens to them. Ingress objects become these values; objects of Gateway
//! API can become the same ones.

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use portolan_model::PortKey;
use regex::{Regex, RegexBuilder};

use crate::host::Host;
use crate::policy::Policy;
use crate::problem::ObjectName;
use crate::traffic::Traffic;

/// Largest compiled regular expression, in bytes. Expressions that people write for paths need a hundredth of it; one
/// that needs more is refused as a Problem of its Ingress.
pub const REGEX_BYTES_MAX: usize = 256 * 1024;

/// One match that leads to a target.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which hosts.
    pub host: Host,
    /// Which paths.
    pub path: PathMatch,
    /// What else must hold.
    pub conditions: Conditions,
    /// What happens to the request.
    pub target: Arc<Target>,
    /// Who has it when two routes match the same.
    pub rank: Rank,
}

impl Route {
    /// Routes in the order in which they are tried where several match: the longest path, then the most conditions,
    /// then the oldest object.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        let length = self.path.text().len();
        (
            Reverse((length, self.conditions.count())),
            self.rank.clone(),
        )
    }
}

/// Which paths a route is for; the texts are normalised ([`crate::normalize`]).
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// This one.
    Exact(String),
    /// Every path that begins with the same elements; a slash at the end of either does not count.
    Prefix(String),
    /// Every path that this expression is for.
    Regex(Pattern),
}

impl PathMatch {
    /// As it was written, but normalised.
    pub fn text(&self) -> &str {
        match self {
            PathMatch::Exact(text) | PathMatch::Prefix(text) => text,
            PathMatch::Regex(pattern) => &pattern.text,
        }
    }
}

/// A regular expression for paths. It takes time linear in the length of the path, whatever it is.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    is_loose: bool,
    regex: Regex,
}

impl Pattern {
    /// Compiles `text`. A loose one is for every path that begins with what it matches, and case does not matter, as
    /// with ingress-nginx; any other one is for whole paths. The error is in words.
    pub fn new(text: &str, is_loose: bool) -> Result<Pattern, String> {
        let whole = match is_loose {
            true => format!("^(?:{text})"),
            false => format!("^(?:{text})$"),
        };
        let regex = RegexBuilder::new(&whole)
            .case_insensitive(is_loose)
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Pattern {
            text: text.to_owned(),
            is_loose,
            regex,
        })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is for `path`.
    pub fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// The whole match and what its groups have matched; empty for a group that has no part in it.
    pub fn captures<'p>(&self, path: &'p str) -> Option<Vec<&'p str>> {
        let found = self.regex.captures(path)?;
        let groups = found
            .iter()
            .map(|group| group.map_or("", |group| group.as_str()));
        Some(groups.collect())
    }

    /// How many groups it has.
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.is_loose == other.is_loose
    }
}

impl Eq for Pattern {}

/// What must hold besides host and path; all of it. Empty holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The method.
    pub method: Option<Method>,
    /// Headers and their values; of several headers of one name, any may have it.
    pub headers: Vec<(HeaderName, String)>,
    /// Parameters of the query and their values; of several of one name, the first counts.
    pub query: Vec<(String, String)>,
}

impl Conditions {
    /// Whether all of them hold.
    pub fn hold(&self, request: &Request<'_>) -> bool {
        let header = |(name, value): &(HeaderName, String)| {
            let mut given = request.headers.get_all(name).iter();
            given.any(|given| given.as_bytes() == value.as_bytes())
        };
        let parameter = |(name, value): &(String, String)| {
            first_parameter(request.query, name.as_bytes()).is_some_and(|v| v == value.as_bytes())
        };
        self.method
            .as_ref()
            .is_none_or(|method| method == request.method)
            && self.headers.iter().all(header)
            && self.query.iter().all(parameter)
    }

    /// Whether they hold for every request.
    pub fn is_empty(&self) -> bool {
        self.count() == (false, 0, 0)
    }

    /// How many there are, in the order in which Gateway API compares them.
    fn count(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }
}

/// The value of the first parameter with this name, decoded.
fn first_parameter(query: &str, name: &[u8]) -> Option<Vec<u8>> {
    let parameters = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut named = parameters.filter(|(given, _)| form_decoded(given) == name);
    named.next().map(|(_, value)| form_decoded(value))
}

/// Decodes as forms do: `+` is a blank, and a `%` that begins nothing stands for itself.
fn form_decoded(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut all = Vec::with_capacity(rest.len());
    while let [first, tail @ ..] = rest {
        let (byte, left) = match (first, tail) {
            (b'%', [high, low, left @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, left),
                _ => (b'%', tail),
            },
            (b'+', _) => (b' ', tail),
            (byte, _) => (*byte, tail),
        };
        all.push(byte);
        rest = left;
    }
    all
}

fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

/// What of a request decides where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// As [`crate::request_host`] gives it; empty for none.
    pub host: &'a str,
    /// As [`crate::normalize`] gives it.
    pub path: &'a str,
    /// Without its question mark; empty for none.
    pub query: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// Who is first where two objects want the same: the older object, then the smaller name, then what is written first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// `metadata.creationTimestamp`, seconds since the epoch.
    pub created: i64,
    /// The object.
    pub object: ObjectName,
    /// Counts what the object has, in its order.
    pub index: usize,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is written.
    pub origin: Origin,
    /// What is done to requests before, and to answers after.
    pub policy: Arc<Policy>,
    /// Who may get the request.
    pub backends: Vec<Backend>,
    /// How it gets there.
    pub traffic: Arc<Traffic>,
}

impl Target {
    /// The backend for a number that was drawn at random: each as often as its weight says. `None` when no backend
    /// has any weight.
    pub fn choose(&self, drawn: u64) -> Option<&Destination> {
        if let [Backend { to, weight: 1.. }] = &*self.backends {
            return Some(to);
        }
        let total: u64 = self.backends.iter().map(|b| u64::from(b.weight)).sum();
        let mut left = drawn.checked_rem(total)?;
        self.backends.iter().find_map(|backend| {
            let weight = u64::from(backend.weight);
            let chosen = left < weight;
            left = left.saturating_sub(weight);
            chosen.then_some(&backend.to)
        })
    }
}

/// Where a target is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// `Ingress`.
    pub kind: &'static str,
    /// The object.
    pub object: ObjectName,
    /// The field, e.g. `spec.rules[0].http.paths[1]`.
    pub field: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.kind, self.object, self.field)
    }
}

/// Somebody who may get a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where requests go.
    pub to: Destination,
    /// Its share beside those of the others.
    pub weight: u32,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The endpoints of a Service port.
    Port(PortKey),
    /// Nowhere, as a Problem says: they are answered with this status.
    Broken(StatusCode),
}

/// An object that has rules for a host: whatever they do not match goes to its default backend.
#[derive(Clone, Debug)]
pub struct HostClaim {
    /// Which hosts.
    pub host: Host,
    /// The default backend of the object, if it has one.
    pub fallback: Option<Arc<Target>>,
    /// The oldest one that has a default backend is heard.
    pub rank: Rank,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_together() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        let request = Request {
            host: "",
            path: "/",
            query: "q=a%20b&q=c&e&bad=%zz%f",
            method: &Method::GET,
            headers: &headers,
        };
        let header = |value: &str| (HeaderName::from_static("x-a"), value.to_owned());
        let parameter = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let holds = |method, headers: &[_], query: &[_]| {
            let (headers, query) = (headers.to_vec(), query.to_vec());
            Conditions {
                method,
                headers,
                query,
            }
            .hold(&request)
        };
        assert!(holds(None, &[], &[]));
        assert!(holds(
            Some(Method::GET),
            &[header("1"), header("2")],
            &[parameter("q", "a b")]
        ));
        assert!(holds(
            None,
            &[],
            &[parameter("e", ""), parameter("bad", "%zz%f")]
        ));
        assert!(!holds(Some(Method::PUT), &[], &[]));
        assert!(!holds(None, &[header("3")], &[]));
        assert!(!holds(None, &[], &[parameter("q", "c")]));
        assert!(!holds(None, &[], &[parameter("none", "")]));
    }

    #[test]
    fn backends_get_their_shares() {
        let backend = |status: u16, weight| Backend {
            to: Destination::Broken(StatusCode::from_u16(status).unwrap()),
            weight,
        };
        let origin = Origin {
            kind: "Ingress",
            object: ObjectName::default(),
            field: String::new(),
        };
        let target = |backends| Target {
            origin: origin.clone(),
            policy: Arc::default(),
            backends,
            traffic: Arc::default(),
        };
        let three = target(vec![backend(501, 1), backend(502, 0), backend(503, 3)]);
        let chosen: Vec<_> = (0..8).filter_map(|drawn| three.choose(drawn)).collect();
        let status = |status: u16| Destination::Broken(StatusCode::from_u16(status).unwrap());
        let count = |wanted: u16| chosen.iter().filter(|to| ***to == status(wanted)).count();
        assert_eq!((count(501), count(502), count(503)), (2, 0, 6));
        assert_eq!(target(vec![backend(501, 0)]).choose(7), None);
        assert_eq!(target(vec![]).choose(7), None);
        assert_eq!(target(vec![backend(501, 2)]).choose(7), Some(&status(501)));
    }

    #[test]
    fn expressions_match_whole_paths_or_beginnings_and_are_not_too_large() {
        let loose = Pattern::new("/api/v[0-9]+|/b$", true).unwrap();
        assert!(loose.matches("/API/v12/x") && loose.matches("/b"));
        assert!(!loose.matches("/x/api/v1") && !loose.matches("/b/c"));
        let whole = Pattern::new("/api/v[0-9]+|/b", false).unwrap();
        assert!(whole.matches("/api/v12") && whole.matches("/b"));
        assert!(
            !whole.matches("/API/v12") && !whole.matches("/api/v12/x") && !whole.matches("/b/c")
        );
        assert!(whole != Pattern::new("/api/v[0-9]+|/b", true).unwrap());
        let groups = Pattern::new("/a(/x)?/(.*)", false).unwrap();
        assert_eq!(groups.captures("/a/b/c").unwrap(), ["/a/b/c", "", "b/c"]);
        assert_eq!((groups.captures("/z"), groups.groups()), (None, 2));
        assert!(Pattern::new("/(", true).is_err());
        let error = Pattern::new("(a{1000}){1000}", true).unwrap_err();
        assert!(error.contains("size limit"), "{error}");
    }
}
