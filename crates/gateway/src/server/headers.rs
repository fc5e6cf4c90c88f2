//! What becomes of headers on the way: those that are for one connection end here, and endpoints are told of the client.

use std::net::IpAddr;

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
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

/// What endpoints are told of a request.
pub(super) struct Client<'a> {
    /// Address of the client.
    pub(super) ip: IpAddr,
    /// Port that it has connected to.
    pub(super) port: u16,
    /// Whether by TLS.
    pub(super) tls: bool,
    /// The host that it asks for, as it has sent it.
    pub(super) host: &'a str,
}

/// What a request asks its connection to become, if anything: the value of `Upgrade` (RFC 9110 section 7.8).
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers).any(|token| token.eq_ignore_ascii_case("upgrade"));
    headers.get(UPGRADE).filter(|_| asked).cloned()
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
    let named = tokens(headers).filter_map(|token| HeaderName::try_from(token).ok());
    let named: Vec<HeaderName> = named
        .filter(|name| *name != HOST && !X_FORWARDED.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Asks for an upgrade, or agrees to it.
pub(super) fn ask_upgrade(headers: &mut HeaderMap, to: &HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, to.clone());
}

/// Makes the headers of a request those that its endpoint gets. What the client says of other clients is not believed.
pub(super) fn forward(headers: &mut HeaderMap, client: &Client<'_>) {
    end_connection(headers);
    headers.remove(EXPECT);
    headers.remove(FORWARDED);
    join_cookies(headers);
    let scheme = match client.tls {
        true => "https",
        false => "http",
    };
    let ip = client.ip.to_canonical().to_string();
    let port = client.port.to_string();
    let values = [&ip, client.host, &port, scheme, scheme];
    for (name, value) in X_FORWARDED.into_iter().zip(values) {
        set(headers, name, value);
    }
    set(headers, REAL_IP, &ip);
    set(headers, HOST, client.host);
    let id = headers
        .get(REQUEST_ID)
        .filter(|id| id.len() <= REQUEST_ID_BYTES_MAX);
    if id.is_none() {
        let id = fastrand::u128(..);
        set(headers, REQUEST_ID, &format!("{id:032x}"));
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
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
        let ip = "203.0.113.2".parse().unwrap();
        forward(
            &mut all,
            &Client {
                ip,
                port: 443,
                tls: true,
                host: "a.com:443",
            },
        );
        all
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
            "x-request-id",
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
    fn request_ids_are_kept_or_made() {
        assert_eq!(
            forwarded(&[("x-request-id", "mine")])["x-request-id"],
            "mine"
        );
        assert_eq!(forwarded(&[])["x-request-id"].len(), 32);
        let mut long = HeaderMap::new();
        long.insert(
            "x-request-id",
            "x".repeat(REQUEST_ID_BYTES_MAX + 1).parse().unwrap(),
        );
        let ip = "203.0.113.2".parse().unwrap();
        forward(
            &mut long,
            &Client {
                ip,
                port: 80,
                tls: false,
                host: "",
            },
        );
        assert_eq!(long["x-request-id"].len(), 32);
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
    }
}
