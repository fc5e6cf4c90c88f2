//! What becomes of headers on the way: those that are for one connection end here, and endpoints are told of the client.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Settings;
use super::request::Peer;

const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED: [HeaderName; 5] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-scheme"),
];

/// Longest request id of a client that is passed on; another one takes the place of a longer one, which no tool makes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Headers that a request gets on its way: five of `X-Forwarded-…`, `X-Real-IP`, `X-Request-ID` and `Host`.
const OWN: usize = 8;

/// What endpoints are told of a request.
pub(super) struct Client<'a> {
    /// Address of the client.
    pub(super) ip: IpAddr,
    /// The connection that it comes by.
    pub(super) peer: &'a Peer,
    /// The host that it asks for, as it has sent it.
    pub(super) host: &'a str,
    /// Whether what stands in the request already is believed.
    pub(super) is_trusted: bool,
}

/// Who the client is: whoever has connected to us, or, where that is somebody whom we trust, the last one in
/// `X-Forwarded-For` whom we do not.
pub(super) fn client_of(peer: IpAddr, headers: &HeaderMap, settings: &Settings) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all(&X_FORWARDED[0]).iter();
    let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let mut before = texts.iter().flat_map(|text| text.split(',')).rev();
    while settings.trusts(client) {
        match before
            .next()
            .and_then(|text| text.trim().parse::<IpAddr>().ok())
        {
            Some(ip) => client = ip.to_canonical(),
            None => break,
        }
    }
    client
}

/// What a request asks its connection to become, if anything: the value of `Upgrade` (RFC 9110 section 7.8). HTTP/2
/// without TLS is not among it: requests would be hidden in it, and whoever wants it may begin with it.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(UPGRADE)?;
    let asked = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let all = headers.get_all(UPGRADE).iter();
    let mut words = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let is_h2c = words.any(|word| word.eq_ignore_ascii_case("h2c"));
    Some(first).filter(|_| asked && !is_h2c).cloned()
}

/// Whether the client of a request takes trailers.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(TE).iter();
    all.any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// The words of all `Connection` headers.
fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Takes away what is for one connection only (RFC 9110 section 7.6.1), and whatever `Connection` names; not what
/// frames the body or routes the request, which no client may take away that way.
pub(super) fn end_connection(headers: &mut HeaderMap) {
    // Few messages have any of them, and to look at all names once is cheaper than to look for each.
    if headers.keys().any(is_for_one_connection) {
        end_named(headers);
    }
}

fn is_for_one_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

fn end_named(headers: &mut HeaderMap) {
    let named = tokens(headers).filter_map(|token| HeaderName::try_from(token).ok());
    let named: Vec<HeaderName> = named
        .filter(|name| *name != HOST && !X_FORWARDED.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    let all: Vec<HeaderName> = headers.keys().cloned().collect();
    for name in all.iter().filter(|name| is_for_one_connection(name)) {
        headers.remove(name);
    }
}

/// Asks for an upgrade, or agrees to it.
pub(super) fn ask_upgrade(headers: &mut HeaderMap, to: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, to.clone());
}

/// Makes the headers of a request those that its endpoint gets. What the client says of other clients is not believed,
/// unless it is trusted.
pub(super) fn forward(headers: &mut HeaderMap, client: &Client<'_>) {
    end_connection(headers);
    end_unwanted(headers, client.is_trusted);
    let scheme = HeaderValue::from_static(match client.peer.tls {
        true => "https",
        false => "http",
    });
    let Said { address, port } = client.peer.said();
    let host = host(headers, client.host);
    let values = [address, &host, port, &scheme, &scheme];
    for (index, (name, value)) in X_FORWARDED.into_iter().zip(values).enumerate() {
        match (client.is_trusted, index) {
            (true, 0) => append(headers, name, value),
            (true, _) if headers.contains_key(&name) => {}
            _ => drop(headers.insert(name, value.clone())),
        }
    }
    let real = match client.ip == client.peer.client.ip().to_canonical() {
        true => address.clone(),
        false => text(client.ip.to_string()),
    };
    headers.insert(REAL_IP, real);
    headers.insert(HOST, host);
}

/// Gives a request an id, unless its client has; everybody who hears of the request hears the same one.
pub(super) fn identify(headers: &mut HeaderMap) {
    let id = headers
        .get(REQUEST_ID)
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
    if id.is_none() {
        // One step for all that is told to endpoints.
        headers.reserve(OWN);
        headers.insert(REQUEST_ID, made(fastrand::u128(..)));
    }
}

/// A number in 32 hexadecimal digits.
fn made(number: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0xf)];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

/// What is said of every request of a connection.
#[derive(Clone, Debug)]
pub(super) struct Said {
    /// The address of the client.
    address: HeaderValue,
    /// The port that it has connected to.
    port: HeaderValue,
}

impl Said {
    pub(super) fn of(client: IpAddr, port: u16) -> Said {
        Said {
            address: text(client.to_canonical().to_string()),
            port: HeaderValue::from(port),
        }
    }
}

/// The host as the request has it; where that is in its target, made from it.
fn host(headers: &HeaderMap, host: &str) -> HeaderValue {
    let given = headers.get(HOST).filter(|given| *given == host);
    given.cloned().unwrap_or_else(|| text(host.to_owned()))
}

/// Takes away what endpoints must not get from this client, and makes one header of several with cookies.
fn end_unwanted(headers: &mut HeaderMap, is_trusted: bool) {
    let is_special = |name: &HeaderName| {
        let name = name.as_str();
        is_ambiguous(name)
            || matches!(
                name,
                "expect" | "http2-settings" | "cookie" | "traceparent" | "tracestate" | "forwarded"
            )
    };
    // As above: most requests have none of them.
    if !headers.keys().any(is_special) {
        return;
    }
    let ambiguous = headers.keys().filter(|name| is_ambiguous(name.as_str()));
    let ambiguous: Vec<HeaderName> = ambiguous.cloned().collect();
    for name in ambiguous {
        headers.remove(name);
    }
    headers.remove(EXPECT);
    headers.remove(HTTP2_SETTINGS);
    join_cookies(headers);
    if !traced(headers) {
        headers.remove(TRACEPARENT);
        headers.remove(TRACESTATE);
    }
    if !is_trusted {
        headers.remove(FORWARDED);
    }
}

/// Names with an underscore: many servers take `x_real_ip` for `X-Real-IP`, so that a client could say what only we may
/// (nginx drops them as well).
fn is_ambiguous(name: &str) -> bool {
    name.as_bytes().contains(&b'_')
}

/// Whether it carries one trace of W3C Trace Context, which is passed on as it is: version, trace, parent and flags.
fn traced(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return false;
    };
    let text = value.to_str().unwrap_or_default();
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex = |part: &str, length: usize| {
        let digits = part
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        part.len() == length && digits
    };
    let [version, trace, parent, flags, rest @ ..] = &*parts else {
        return false;
    };
    let is_known = *version != "ff" && (*version != "00" || rest.is_empty());
    let is_some = |part: &str| part.bytes().any(|byte| byte != b'0');
    is_known
        && is_hex(version, 2)
        && is_hex(trace, 32)
        && is_hex(parent, 16)
        && is_hex(flags, 2)
        && is_some(trace)
        && is_some(parent)
}

/// Adds a word to a list that may stand in several headers.
fn append(headers: &mut HeaderMap, name: HeaderName, word: &HeaderValue) {
    let all = headers.get_all(&name).iter().chain([word]);
    let words: Vec<&str> = all.filter_map(|value| value.to_str().ok()).collect();
    let joined = words.join(", ");
    headers.insert(name, text(joined));
}

/// A value without another copy of it. What is no value is empty, which none of ours is.
fn text(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

/// HTTP/2 may send each cookie by itself; HTTP/1 has one header (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if all.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = HeaderMap::new();
        for (name, value) in pairs {
            all.append(*name, HeaderValue::from_static(value));
        }
        all
    }

    fn forwarded(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut all = headers(pairs);
        told(&mut all, false);
        all
    }

    fn told(headers: &mut HeaderMap, is_trusted: bool) {
        let client = "203.0.113.2:4711".parse().unwrap();
        let local = "198.51.100.1:443".parse().unwrap();
        let peer = Peer::new(client, local, true);
        let client = Client {
            ip: client.ip(),
            peer: &peer,
            host: "a.com:443",
            is_trusted,
        };
        forward(headers, &client);
    }

    #[test]
    fn what_is_for_one_connection_ends_here() {
        let all = forwarded(&[
            ("connection", "close, X-Mine"),
            ("connection", "host, x-forwarded-for"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
        ]);
        let mut names: Vec<&str> = all.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expected = [
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-forwarded-scheme",
            "x-other",
            "x-real-ip",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_client_is_told_and_not_believed() {
        let all = forwarded(&[
            ("x-forwarded-for", "10.1.0.2"),
            ("x-real-ip", "10.1.0.2"),
            ("forwarded", "for=x"),
            ("host", "b.com"),
        ]);
        let expected = [
            ("x-forwarded-for", "203.0.113.2"),
            ("x-forwarded-host", "a.com:443"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-scheme", "https"),
            ("x-real-ip", "203.0.113.2"),
            ("host", "a.com:443"),
        ];
        for (name, value) in expected {
            assert_eq!(
                all.get_all(name).iter().collect::<Vec<_>>(),
                [value],
                "{name}"
            );
        }
        assert!(all.get("forwarded").is_none());
    }

    #[test]
    fn who_is_trusted_is_believed() {
        let settings = Settings {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            ..Settings::default()
        };
        let given = headers(&[
            ("x-forwarded-for", "198.51.100.7, 203.0.113.2"),
            ("x-forwarded-for", "10.1.0.9"),
            ("x-forwarded-proto", "http"),
        ]);
        let of = |peer: &str| client_of(peer.parse().unwrap(), &given, &settings).to_string();
        assert_eq!(
            of("10.1.0.3"),
            "203.0.113.2",
            "the last one whom nobody trusts"
        );
        assert_eq!(of("203.0.113.5"), "203.0.113.5");
        let mut all = given.clone();
        told(&mut all, true);
        assert_eq!(
            all["x-forwarded-for"],
            "198.51.100.7, 203.0.113.2, 10.1.0.9, 203.0.113.2"
        );
        assert_eq!(all["x-forwarded-proto"], "http");
        assert_eq!(all["x-forwarded-port"], "443");
    }

    #[test]
    fn traces_are_passed_on_whole_or_not_at_all() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let pair = [("traceparent", good), ("tracestate", "a=1")];
        let all = forwarded(&pair);
        assert!(all["traceparent"] == good && all["tracestate"] == "a=1");
        for bad in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let all = forwarded(&[("traceparent", bad), ("tracestate", "a=1")]);
            assert!(
                !all.contains_key("traceparent") && !all.contains_key("tracestate"),
                "{bad}"
            );
        }
        assert!(!forwarded(&[pair[0], pair[0]]).contains_key("traceparent"));
    }

    #[test]
    fn names_that_are_taken_for_others_go() {
        let all = forwarded(&[("x_real_ip", "10.1.0.2"), ("x-mine", "1")]);
        assert!(!all.contains_key("x_real_ip") && all.contains_key("x-mine"));
    }

    #[test]
    fn request_ids_are_kept_or_made() {
        let identified = |mut all: HeaderMap| {
            identify(&mut all);
            all["x-request-id"].clone()
        };
        assert_eq!(identified(headers(&[("x-request-id", "mine")])), "mine");
        assert_eq!(identified(headers(&[])).len(), 32);
        let number = 0x0123_4567_89ab_cdef_0011_2233_4455_66ff;
        assert_eq!(made(number), "0123456789abcdef00112233445566ff");
        let mut long = HeaderMap::new();
        long.insert(
            "x-request-id",
            "x".repeat(REQUEST_ID_BYTES_MAX + 1).parse().unwrap(),
        );
        assert_eq!(identified(long).len(), 32);
    }

    #[test]
    fn cookies_become_one_header() {
        assert_eq!(
            forwarded(&[("cookie", "a=1"), ("cookie", "b=2")])["cookie"],
            "a=1; b=2"
        );
    }

    #[test]
    fn upgrades_are_asked_for_twice() {
        let both = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(upgrade(&both).unwrap(), "websocket");
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&headers(&[("connection", "upgrade")])).is_none());
        let h2c = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "x, H2C"),
        ];
        assert!(upgrade(&headers(&h2c)).is_none());
    }
}
