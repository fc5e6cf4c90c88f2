//! What is done to requests and answers on their way, and how backends are spoken to.

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::reader::{
    CHECK_FALL, CHECK_HOST, CHECK_INTERVAL, CHECK_PATH, CHECK_RISE, CHECK_TIMEOUT, PROXY_PROTOCOL,
};
use super::{EndpointTlsWanted, Reader, Settings};
use crate::check::{Check, INTERVAL_MIN};
use crate::policy::{
    Affinity, Balance, Compression, Cors, CorsOrigin, Mirror, Protocol, Retry, Upstream,
};
use crate::problem::ObjectName;
use crate::traffic::Announce;

/// What ingress-nginx lets pages of other origins use.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,\
    Authorization";
const CORS_SECONDS: u64 = 1_728_000;

/// What nginx makes smaller, unless it is told otherwise.
const TYPES: &str = "application/atom+xml application/javascript application/x-javascript application/json \
    application/rss+xml application/vnd.ms-fontobject application/x-font-ttf application/x-web-app-manifest+json \
    application/xhtml+xml application/xml font/opentype image/svg+xml image/x-icon text/css text/html \
    text/javascript text/plain text/x-component";

pub(super) fn read(reader: &mut Reader<'_>, settings: &mut Settings, of: &ObjectName) {
    let policy = &mut settings.policy;
    policy.cors = cors(reader);
    policy.host = reader.template("upstream-vhost");
    policy.forwarded_prefix = reader.header_value("x-forwarded-prefix");
    policy.mirror = mirror(reader);
    policy.compression = compression(reader);
    policy.is_unlogged = reader.flag("enable-access-log") == Some(false);
    policy.upstream = upstream(reader);
    policy.hsts = hsts(reader);
    settings.endpoint_tls = endpoint_tls(reader, of);
    settings.stand_in = (
        reader.text("default-backend").map(str::to_owned),
        match reader.flag("disable-proxy-intercept-errors") {
            Some(true) => Vec::new(),
            _ => reader.statuses("custom-http-errors"),
        },
    );
    settings.header_map = reader.text("custom-headers").map(|text| {
        let (namespace, name) = text.split_once('/').unwrap_or((&of.namespace, text));
        ObjectName::new(namespace, name)
    });
}

fn cors(reader: &mut Reader<'_>) -> Option<Cors> {
    if reader.flag("enable-cors") != Some(true) {
        return None;
    }
    let text = reader.text("cors-allow-origin").unwrap_or("*");
    let mut origins = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        match CorsOrigin::parse(item) {
            Some(origin) => origins.push(origin),
            None => {
                let words = format!(
                    "{item:?} is none of *, https://a.com and https://*.a.com; it is left out."
                );
                reader.wrong("cors-allow-origin", &words);
            }
        }
    }
    let mut value = |name, default: &'static str| {
        let value = reader.header_value(name);
        value.unwrap_or(HeaderValue::from_static(default))
    };
    let (methods, headers) = (
        value("cors-allow-methods", CORS_METHODS),
        value("cors-allow-headers", CORS_HEADERS),
    );
    Some(Cors {
        origins,
        methods,
        headers,
        exposed: reader.header_value("cors-expose-headers"),
        credentials: reader.flag("cors-allow-credentials").unwrap_or(true),
        max_age: reader
            .number("cors-max-age", "a number of seconds")
            .unwrap_or(CORS_SECONDS),
    })
}

fn mirror(reader: &mut Reader<'_>) -> Option<Mirror> {
    let text = reader.text("mirror-target")?;
    if !text.starts_with("http://") {
        reader.wrong(
            "mirror-target",
            "It must begin with http://; copies are sent without TLS. Nothing is copied.",
        );
        return None;
    }
    Some(Mirror {
        url: reader.template("mirror-target")?,
        host: reader.header_value("mirror-host"),
        with_body: reader.text("mirror-request-body") != Some("off"),
    })
}

/// Only the ConfigMap turns it on, as with ingress-nginx.
fn compression(reader: &mut Reader<'_>) -> Option<Compression> {
    let level = |reader: &mut Reader<'_>, on: &str, level: &str, default: u32, max: u32| {
        let on = reader.flag(on) == Some(true);
        let level = reader
            .number::<u32>(level, "a whole number")
            .unwrap_or(default)
            .min(max);
        on.then_some(level)
    };
    let gzip = level(reader, "use-gzip", "gzip-level", 1, 9);
    let brotli = level(reader, "enable-brotli", "brotli-level", 4, 11);
    let gzip_min = reader.size("gzip-min-length").unwrap_or(256);
    let brotli_min = reader.size("brotli-min-length").unwrap_or(20);
    let types = match gzip.is_some() {
        true => reader.text("gzip-types"),
        false => reader.text("brotli-types"),
    };
    let on = gzip.is_some() || brotli.is_some();
    on.then(|| Compression {
        gzip,
        brotli,
        types: types
            .unwrap_or(TYPES)
            .split_whitespace()
            .map(str::to_ascii_lowercase)
            .collect(),
        bytes_min: match gzip.is_some() {
            true => gzip_min,
            false => brotli_min,
        },
    })
}

/// `Strict-Transport-Security` (RFC 6797): on by the ConfigMap, or where the gateway does as ingress-nginx did.
fn hsts(reader: &mut Reader<'_>) -> Option<HeaderValue> {
    if !reader.flag("hsts").unwrap_or(reader.is_compatible) {
        return None;
    }
    let seconds = reader
        .number::<u64>("hsts-max-age", "a number of seconds")
        .unwrap_or(31_536_000);
    let mut text = format!("max-age={seconds}");
    if reader.flag("hsts-include-subdomains").unwrap_or(true) {
        text.push_str("; includeSubDomains");
    }
    if reader.flag("hsts-preload").unwrap_or(false) {
        text.push_str("; preload");
    }
    HeaderValue::from_str(&text).ok()
}

fn upstream(reader: &mut Reader<'_>) -> Upstream {
    Upstream {
        protocol: protocol(reader),
        connect_timeout: reader.time("proxy-connect-timeout"),
        read_timeout: reader.time("proxy-read-timeout"),
        send_timeout: reader.time("proxy-send-timeout"),
        retry: retry(reader),
        balance: balance(reader),
        check: check(reader),
        affinity: affinity(reader),
        tls_name: reader.text("proxy-ssl-name").map(str::to_owned),
        tls: None,
        announce: announce(reader),
    }
}

/// Whoever asks for certificates to be checked is not served without.
fn endpoint_tls(reader: &mut Reader<'_>, of: &ObjectName) -> Option<EndpointTlsWanted> {
    let verifies = reader.flag("proxy-ssl-verify") == Some(true);
    let sends_name = reader.flag("proxy-ssl-server-name");
    let has_name = reader.text("proxy-ssl-name").is_some();
    let Some(secret) = reader.text("proxy-ssl-secret") else {
        if verifies {
            let words = "It needs proxy-ssl-secret, the name of a Secret with the authorities of endpoints in ca.crt.";
            reader.unsafe_to_serve("proxy-ssl-verify", words);
        }
        return None;
    };
    let (namespace, name) = secret.split_once('/').unwrap_or((&of.namespace, secret));
    if *namespace != *of.namespace {
        let words = "A Secret of another namespace is not read, since whoever writes the Ingress may not be allowed to.";
        reader.unsafe_to_serve("proxy-ssl-secret", words);
        return None;
    }
    Some(EndpointTlsWanted {
        secret: ObjectName::new(namespace, name),
        verifies,
        sends_name: sends_name.unwrap_or(has_name),
    })
}

fn announce(reader: &mut Reader<'_>) -> Option<Announce> {
    match reader.own(PROXY_PROTOCOL)? {
        "v1" => Some(Announce::V1),
        "v2" => Some(Announce::V2),
        _ => {
            reader.own_wrong(
                PROXY_PROTOCOL,
                "It must be \"v1\" or \"v2\"; it is left out.",
            );
            None
        }
    }
}

fn check(reader: &mut Reader<'_>) -> Option<Check> {
    let path = reader.own(CHECK_PATH)?;
    if !Check::is_path(path) {
        reader.own_wrong(
            CHECK_PATH,
            "It must be a path such as /healthz; nothing is checked.",
        );
        return None;
    }
    let host = reader.own(CHECK_HOST);
    let is_host = host.is_none_or(Check::is_host);
    if !is_host {
        reader.own_wrong(
            CHECK_HOST,
            "It must be a host; the endpoint's address is taken.",
        );
    }
    let usual = Check::of(path);
    Some(Check {
        host: host.filter(|_| is_host).map(str::to_owned),
        interval: reader
            .own_time(CHECK_INTERVAL, INTERVAL_MIN)
            .unwrap_or(usual.interval),
        timeout: reader
            .own_time(CHECK_TIMEOUT, Duration::from_millis(1))
            .unwrap_or(usual.timeout),
        fall: reader.own_count(CHECK_FALL).unwrap_or(usual.fall),
        rise: reader.own_count(CHECK_RISE).unwrap_or(usual.rise),
        path: usual.path,
    })
}

fn protocol(reader: &mut Reader<'_>) -> Protocol {
    let text = reader
        .text("backend-protocol")
        .unwrap_or("HTTP")
        .to_ascii_uppercase();
    match text.as_str() {
        "HTTP" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "GRPC" => Protocol::Grpc,
        "GRPCS" => Protocol::Grpcs,
        "AUTO_HTTP" => {
            reader.differs(
                "backend-protocol",
                "HTTP is spoken to endpoints; set HTTPS where they speak TLS.",
            );
            Protocol::Http
        }
        _ => {
            reader.wrong(
                "backend-protocol",
                "It must be HTTP, HTTPS, GRPC or GRPCS (FastCGI is not spoken); HTTP is taken.",
            );
            Protocol::Http
        }
    }
}

fn balance(reader: &mut Reader<'_>) -> Option<Balance> {
    if let Some(template) = reader.template("upstream-hash-by") {
        return Some(Balance::Hash(template));
    }
    match reader.text("load-balance")? {
        "round_robin" => Some(Balance::RoundRobin),
        "ewma" => Some(Balance::Ewma),
        "least_conn" => Some(Balance::LeastRequests),
        _ => {
            reader.wrong(
                "load-balance",
                "It must be \"ewma\", \"round_robin\" or \"least_conn\"; it is left out.",
            );
            None
        }
    }
}

fn affinity(reader: &mut Reader<'_>) -> Option<Affinity> {
    match reader.text("affinity")? {
        "cookie" => {}
        _ => {
            reader.wrong("affinity", "It must be \"cookie\"; it is left out.");
            return None;
        }
    }
    let fine = |name: &String| {
        name.chars()
            .all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    };
    let name = reader.text("session-cookie-name").map(str::to_owned);
    let name = name.unwrap_or_else(|| "INGRESSCOOKIE".to_owned());
    let is_fine = fine(&name);
    if !is_fine {
        reader.wrong(
            "session-cookie-name",
            "It must be a name of a cookie (RFC 6265); INGRESSCOOKIE is taken.",
        );
    }
    let max_age = reader.number("session-cookie-max-age", "a number of seconds");
    let expires = reader.number("session-cookie-expires", "a number of seconds");
    Some(Affinity {
        name: match is_fine {
            true => name,
            false => "INGRESSCOOKIE".to_owned(),
        },
        path: attribute(reader, "session-cookie-path"),
        domain: attribute(reader, "session-cookie-domain"),
        max_age: max_age.or(expires),
        same_site: same_site(reader),
        secure: reader.flag("session-cookie-secure"),
        change_on_failure: reader
            .flag("session-cookie-change-on-failure")
            .unwrap_or(false),
        is_persistent: is_persistent(reader),
        is_partitioned: reader.flag("session-cookie-partitioned").unwrap_or(false),
    })
}

/// What can stand in an attribute of a cookie (RFC 6265 section 4.1.1).
fn attribute(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    let text = reader.text(name)?;
    let is_fine = text.bytes().all(|b| b.is_ascii_graphic() && b != b';');
    if !is_fine {
        reader.wrong(
            name,
            "It has a blank, a semicolon or a letter that cookies cannot have; it is left out.",
        );
    }
    is_fine.then(|| text.to_owned())
}

fn same_site(reader: &mut Reader<'_>) -> Option<String> {
    let text = reader.text("session-cookie-samesite")?;
    let known = ["None", "Lax", "Strict"];
    let found = known
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(text));
    if found.is_none() {
        let words = "It must be \"None\", \"Lax\" or \"Strict\"; it is left out.";
        reader.wrong("session-cookie-samesite", words);
    }
    found.map(str::to_owned)
}

fn is_persistent(reader: &mut Reader<'_>) -> bool {
    match reader.text("affinity-mode").unwrap_or("balanced") {
        "balanced" => false,
        "persistent" => true,
        _ => {
            let words = "It must be \"balanced\" or \"persistent\"; balanced is taken.";
            reader.wrong("affinity-mode", words);
            false
        }
    }
}

/// nginx' words (`proxy_next_upstream`): its default is `error timeout`, three tries.
fn retry(reader: &mut Reader<'_>) -> Option<Retry> {
    let within = reader
        .time("proxy-next-upstream-timeout")
        .filter(|time| *time > Duration::ZERO);
    let tries = reader.number::<u32>("proxy-next-upstream-tries", "a whole number");
    let words = reader.text("proxy-next-upstream");
    if words.is_none() && tries.is_none() && within.is_none() {
        return None;
    }
    let mut retry = Retry {
        on_error: false,
        on_timeout: false,
        on_status: Vec::new(),
        any_method: false,
        tries: tries.filter(|tries| *tries > 0),
        within,
    };
    for word in words.unwrap_or("error timeout").split_whitespace() {
        let status = word
            .strip_prefix("http_")
            .and_then(|number| number.parse().ok());
        match word {
            "error" | "invalid_header" => retry.on_error = true,
            "timeout" => retry.on_timeout = true,
            "non_idempotent" => retry.any_method = true,
            "off" => retry.tries = Some(1),
            _ => match status.and_then(|number: u16| StatusCode::from_u16(number).ok()) {
                Some(status) => retry.on_status.push(status),
                None => reader.wrong(
                    "proxy-next-upstream",
                    &format!("{word:?} is none of nginx' words; it is left out."),
                ),
            },
        }
    }
    Some(retry)
}
