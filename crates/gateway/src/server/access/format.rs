//! What a line of the access log says: JSON with names of ours, or a template with nginx' variables.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use portolan_k8s::Timestamp;
use portolan_model::PortKey;

use super::super::body::Body;
use super::super::request::Peer;
use crate::policy::credentials;
use crate::route::Target;

/// Longest template, in bytes: four times the longest that anybody has shown in public.
const TEMPLATE_BYTES_MAX: usize = 4096;

/// What ingress-nginx writes unless it is told otherwise (`log-format-upstream`).
const NGINX: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
    \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] \
    $upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id";

/// What lines of JSON have.
const JSON: &str = "{\"time\":$time_iso8601,\"status\":$status,\"method\":$request_method,\"host\":$http_host,\
    \"target\":$request_uri,\"protocol\":$server_protocol,\"scheme\":$scheme,\"client\":$remote_addr,\
    \"peer\":$realip_remote_addr,\"bytes\":$body_bytes_sent,\"whole\":$whole,\"took_ms\":$request_ms,\
    \"endpoint\":$upstream_addr,\"endpoint_status\":$upstream_status,\"endpoint_ms\":$upstream_header_ms,\
    \"backend\":$proxy_upstream_name,\"route\":$route,\"request_id\":$req_id,\"trace\":$http_traceparent,\
    \"user_agent\":$http_user_agent,\"referer\":$http_referer}";

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// A text and what comes behind it.
    parts: Vec<(String, Variable)>,
    end: String,
    style: Style,
    /// Headers that it names.
    headers: Vec<HeaderName>,
}

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// As values of JSON, with their quotes.
    Json,
    /// Within quotes of JSON.
    JsonText,
    /// As nginx does: what is missing is `-`, and what is not plain ASCII is `\xHH`.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    TimeIso,
    TimeLocal,
    TimeSeconds,
    Client,
    Peer,
    User,
    Request,
    RequestBytes,
    RequestId,
    Method,
    Target,
    Path,
    Query,
    Protocol,
    Scheme,
    Header(usize),
    Status,
    Bytes,
    IsWhole,
    TookSeconds,
    TookMs,
    Backend,
    Nothing,
    Endpoint,
    EndpointStatus,
    EndpointSeconds,
    EndpointHeaderSeconds,
    EndpointHeaderMs,
    Namespace,
    Ingress,
    Service,
    ServicePort,
    Route,
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A variable that there is not.
    #[error("the variable ${0} is not known; docs/gateway.md has those that are")]
    Unknown(String),
    /// It names nothing.
    #[error(
        "it is none of off, json, nginx and a template with variables such as $remote_addr and $status"
    )]
    Plain,
    /// It is too long, or has a control character.
    #[error("it is longer than 4096 bytes, or has a control character")]
    Character,
}

impl Format {
    /// Lines of JSON.
    pub fn json() -> Format {
        read(JSON, Style::Json).expect("invariant: the text is ours, and a test reads it")
    }

    /// `json`, `nginx` (what ingress-nginx writes), or a template with nginx' variables. Values in a template that begins
    /// with `{` are written as JSON has them within quotes.
    pub fn parse(text: &str) -> Result<Format, FormatError> {
        match text {
            "json" => read(JSON, Style::Json),
            "nginx" => read(NGINX, Style::Text),
            _ if !text.contains('$') => Err(FormatError::Plain),
            _ if text.len() > TEMPLATE_BYTES_MAX || text.chars().any(char::is_control) => {
                Err(FormatError::Character)
            }
            _ if text.starts_with('{') => read(text, Style::JsonText),
            _ => read(text, Style::Text),
        }
    }

    /// The line of a request, without its end.
    pub(in super::super) fn line(&self, line: &Line, outcome: &Outcome<'_>) -> String {
        let mut all = String::with_capacity(512);
        for (text, variable) in &self.parts {
            all.push_str(text);
            value(*variable, line, outcome).write(&mut all, self.style);
        }
        all.push_str(&self.end);
        all
    }
}

fn read(text: &str, style: Style) -> Result<Format, FormatError> {
    let mut format = Format {
        parts: Vec::new(),
        end: String::new(),
        style,
        headers: Vec::new(),
    };
    let mut before = String::new();
    let mut left = text;
    while let Some((plain, rest)) = left.split_once('$') {
        before.push_str(plain);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let braced = rest.strip_prefix('{').and_then(|r| r.split_once('}'));
        let (name, rest) = match braced {
            Some(pair) => pair,
            None => rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len())),
        };
        left = rest;
        if name.is_empty() {
            before.push('$');
            continue;
        }
        let variable = variable(name, &mut format.headers)
            .ok_or_else(|| FormatError::Unknown(name.to_owned()))?;
        format.parts.push((std::mem::take(&mut before), variable));
    }
    format.end = before + left;
    Ok(format)
}

fn variable(name: &str, headers: &mut Vec<HeaderName>) -> Option<Variable> {
    Some(match name {
        "time_iso8601" => Variable::TimeIso,
        "time_local" => Variable::TimeLocal,
        "msec" => Variable::TimeSeconds,
        "remote_addr" | "the_real_ip" => Variable::Client,
        "realip_remote_addr" => Variable::Peer,
        "remote_user" => Variable::User,
        "request" => Variable::Request,
        "request_length" => Variable::RequestBytes,
        "req_id" | "request_id" => Variable::RequestId,
        "request_method" => Variable::Method,
        "request_uri" => Variable::Target,
        "uri" | "document_uri" => Variable::Path,
        "args" | "query_string" => Variable::Query,
        "server_protocol" => Variable::Protocol,
        "scheme" => Variable::Scheme,
        "status" => Variable::Status,
        "body_bytes_sent" | "bytes_sent" | "upstream_response_length" => Variable::Bytes,
        "whole" => Variable::IsWhole,
        "request_time" => Variable::TookSeconds,
        "request_ms" => Variable::TookMs,
        "proxy_upstream_name" => Variable::Backend,
        "proxy_alternative_upstream_name" => Variable::Nothing,
        "upstream_addr" => Variable::Endpoint,
        "upstream_status" => Variable::EndpointStatus,
        "upstream_response_time" => Variable::EndpointSeconds,
        "upstream_header_time" => Variable::EndpointHeaderSeconds,
        "upstream_header_ms" => Variable::EndpointHeaderMs,
        "namespace" => Variable::Namespace,
        "ingress_name" => Variable::Ingress,
        "service_name" => Variable::Service,
        "service_port" => Variable::ServicePort,
        "route" => Variable::Route,
        "host" => header(HOST, headers),
        _ => {
            let name = name.strip_prefix("http_")?.replace('_', "-");
            header(name.parse().ok()?, headers)
        }
    })
}

fn header(name: HeaderName, headers: &mut Vec<HeaderName>) -> Variable {
    let known = headers.iter().position(|known| *known == name);
    Variable::Header(known.unwrap_or_else(|| {
        headers.push(name);
        headers.len() - 1
    }))
}

/// What the line of a request says of the request itself.
pub(in super::super) struct Line {
    peer: Rc<Peer>,
    method: Method,
    uri: Uri,
    version: Version,
    head_bytes: usize,
    id: Option<HeaderValue>,
    user: Option<String>,
    headers: Vec<Option<HeaderValue>>,
}

impl Line {
    /// What `format` needs of a request.
    pub(in super::super) fn of(format: &Format, peer: &Rc<Peer>, request: &Request<Body>) -> Line {
        let headers = request.headers();
        let needs = |wanted| format.parts.iter().any(|(_, of)| *of == wanted);
        let user = needs(Variable::User)
            .then(|| credentials(headers))
            .flatten();
        let named = format.headers.iter().map(|name| match *name {
            // HTTP/2 has it in the target.
            HOST => headers.get(HOST).cloned().or_else(|| authority(request)),
            ref name => headers.get(name).cloned(),
        });
        Line {
            peer: Rc::clone(peer),
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            head_bytes: match needs(Variable::RequestBytes) {
                true => length(request),
                false => 0,
            },
            id: headers.get("x-request-id").cloned(),
            user: user.map(|(name, _)| name),
            headers: named.collect(),
        }
    }

    fn target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |rest| rest.as_str())
    }

    fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_3 => "HTTP/3.0",
            _ => "HTTP/1.1",
        }
    }
}

fn authority(request: &Request<Body>) -> Option<HeaderValue> {
    let authority = request.uri().authority()?;
    HeaderValue::from_str(authority.as_str()).ok()
}

/// Bytes of the head as HTTP/1.1 writes it, and of the body as far as its length is told.
fn length(request: &Request<Body>) -> usize {
    let headers: &HeaderMap = request.headers();
    let fields = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    let target = request
        .uri()
        .path_and_query()
        .map_or(1, |rest| rest.as_str().len());
    let body = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let body: usize = body.and_then(|text| text.parse().ok()).unwrap_or(0);
    let line = request.method().as_str().len() + target + " HTTP/1.1\r\n".len() + 1;
    (fields.sum::<usize>() + line + 2).saturating_add(body)
}

/// What has become of a request.
pub(in super::super) struct Outcome<'a> {
    pub(in super::super) status: StatusCode,
    pub(in super::super) bytes: u64,
    pub(in super::super) is_whole: bool,
    pub(in super::super) took: Duration,
    pub(in super::super) client: Option<IpAddr>,
    pub(in super::super) target: Option<&'a Arc<Target>>,
    pub(in super::super) backend: Option<&'a PortKey>,
    /// Who has answered, and with what status.
    pub(in super::super) endpoint: Option<(SocketAddr, StatusCode)>,
    /// From when the request was sent to endpoints to the head of the answer, and to the end of it.
    pub(in super::super) endpoint_took: Option<(Duration, Duration)>,
}

enum Value<'a> {
    Missing,
    Flag(bool),
    Whole(u64),
    /// With three digits behind the point.
    Parts(f64),
    Text(Cow<'a, str>),
    Shown(&'a dyn fmt::Display),
}

fn value<'a>(variable: Variable, line: &'a Line, outcome: &'a Outcome<'_>) -> Value<'a> {
    let text = |text: &'a str| Value::Text(Cow::Borrowed(text));
    let owned = |text: String| Value::Text(Cow::Owned(text));
    let maybe = |text: Option<&'a str>| text.map_or(Value::Missing, |t| Value::Text(t.into()));
    let header = |value: &'a HeaderValue| Value::Text(String::from_utf8_lossy(value.as_bytes()));
    let origin = outcome.target.map(|target| &target.origin);
    let parts = |value: Option<f64>| value.map_or(Value::Missing, Value::Parts);
    let ms = |took: Duration| took.as_micros() as f64 / 1000.0;
    let endpoint = outcome.endpoint.as_ref();
    match variable {
        Variable::TimeIso => owned(format!("{:.3}", Timestamp::now())),
        Variable::TimeLocal => owned(
            Timestamp::now()
                .strftime("%d/%b/%Y:%H:%M:%S +0000")
                .to_string(),
        ),
        Variable::TimeSeconds => Value::Parts(Timestamp::now().as_millisecond() as f64 / 1000.0),
        Variable::Client => {
            let ip = outcome
                .client
                .unwrap_or_else(|| line.peer.client.ip().to_canonical());
            owned(ip.to_string())
        }
        Variable::Peer => owned(line.peer.client.ip().to_canonical().to_string()),
        Variable::User => maybe(line.user.as_deref()),
        Variable::Request => owned(format!(
            "{} {} {}",
            line.method,
            line.target(),
            line.protocol()
        )),
        Variable::RequestBytes => Value::Whole(line.head_bytes as u64),
        Variable::RequestId => line.id.as_ref().map_or(Value::Missing, header),
        Variable::Method => text(line.method.as_str()),
        Variable::Target => text(line.target()),
        Variable::Path => text(line.uri.path()),
        Variable::Query => maybe(line.uri.query()),
        Variable::Protocol => text(line.protocol()),
        Variable::Scheme => text(if line.peer.tls { "https" } else { "http" }),
        Variable::Header(index) => {
            let found = line.headers.get(index).and_then(Option::as_ref);
            found.map_or(Value::Missing, header)
        }
        Variable::Status => Value::Whole(u64::from(outcome.status.as_u16())),
        Variable::Bytes => Value::Whole(outcome.bytes),
        Variable::IsWhole => Value::Flag(outcome.is_whole),
        Variable::TookSeconds => Value::Parts(outcome.took.as_secs_f64()),
        Variable::TookMs => Value::Parts(ms(outcome.took)),
        Variable::Backend => outcome.backend.map_or(Value::Missing, |key| {
            let (service, port) = (&key.service, backend_port(outcome));
            owned(format!("{}-{}{port}", service.namespace, service.name))
        }),
        Variable::Nothing => Value::Missing,
        Variable::Endpoint => endpoint.map_or(Value::Missing, |(at, _)| Value::Shown(at)),
        Variable::EndpointStatus => endpoint.map_or(Value::Missing, |(_, status)| {
            Value::Whole(u64::from(status.as_u16()))
        }),
        Variable::EndpointSeconds => parts(outcome.endpoint_took.map(|(_, all)| all.as_secs_f64())),
        Variable::EndpointHeaderSeconds => {
            parts(outcome.endpoint_took.map(|(head, _)| head.as_secs_f64()))
        }
        Variable::EndpointHeaderMs => parts(outcome.endpoint_took.map(|(head, _)| ms(head))),
        Variable::Namespace => maybe(origin.map(|origin| &*origin.object.namespace)),
        Variable::Ingress => maybe(origin.map(|origin| &*origin.object.name)),
        Variable::Service => maybe(outcome.backend.map(|key| &*key.service.name)),
        Variable::ServicePort => maybe(outcome.backend.map(|key| &*key.port)),
        Variable::Route => origin.map_or(Value::Missing, |origin| Value::Shown(origin)),
    }
}

/// The name of the port behind a hyphen, if it has one.
fn backend_port(outcome: &Outcome<'_>) -> String {
    let port = outcome.backend.map(|key| &*key.port).unwrap_or_default();
    match port.is_empty() {
        true => String::new(),
        false => format!("-{port}"),
    }
}

impl Value<'_> {
    fn write(&self, all: &mut String, style: Style) {
        let _ = match (self, style) {
            (Value::Missing, Style::Json) => write!(all, "null"),
            (Value::Missing, Style::JsonText) => Ok(()),
            (Value::Missing, Style::Text) => write!(all, "-"),
            (Value::Flag(flag), _) => write!(all, "{flag}"),
            (Value::Whole(number), _) => write!(all, "{number}"),
            (Value::Parts(number), _) => write!(all, "{number:.3}"),
            (Value::Shown(shown), Style::Json) => write!(all, "\"{shown}\""),
            (Value::Shown(shown), _) => write!(all, "{shown}"),
            (Value::Text(text), Style::Json) => {
                all.push('"');
                json(all, text);
                all.write_char('"')
            }
            (Value::Text(text), Style::JsonText) => return json(all, text),
            (Value::Text(text), Style::Text) => return plain(all, text),
        };
    }
}

fn json(all: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => all.push_str("\\\""),
            '\\' => all.push_str("\\\\"),
            c if c.is_control() => drop(write!(all, "\\u{:04x}", u32::from(c))),
            c => all.push(c),
        }
    }
}

fn plain(all: &mut String, text: &str) {
    if text.is_empty() {
        all.push('-');
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' | 0..32 | 127.. => drop(write!(all, "\\x{byte:02X}")),
            _ => all.push(char::from(byte)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            peer: Rc::new(Peer::new(
                "10.0.0.9:4000".parse().unwrap(),
                "10.0.0.1:80".parse().unwrap(),
                false,
            )),
            method: Method::GET,
            uri: "/a?b=c".parse().unwrap(),
            version: Version::HTTP_11,
            head_bytes: 77,
            id: Some(HeaderValue::from_static("id1")),
            user: None,
            headers: vec![None, Some(HeaderValue::from_static("a \"b\" \\ \t~"))],
        }
    }

    fn outcome() -> Outcome<'static> {
        Outcome {
            status: StatusCode::OK,
            bytes: 12,
            is_whole: true,
            took: Duration::from_micros(1500),
            client: Some("203.0.113.2".parse().unwrap()),
            target: None,
            backend: None,
            endpoint: Some(("10.1.0.2:80".parse().unwrap(), StatusCode::OK)),
            endpoint_took: Some((Duration::from_micros(900), Duration::from_millis(1))),
        }
    }

    #[test]
    fn templates_are_written_as_nginx_writes_them() {
        let said = |text: &str| Format::parse(text).unwrap().line(&line(), &outcome());
        let cases = [
            (
                "$remote_addr - $remote_user \"$request\" $status ${body_bytes_sent}B",
                "203.0.113.2 - - \"GET /a?b=c HTTP/1.1\" 200 12B",
            ),
            (
                "$http_referer $http_user_agent",
                "- a \\x22b\\x22 \\x5C \\x09~",
            ),
            (
                "$request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr $upstream_status $req_id",
                "0.002 [-] [-] 10.1.0.2:80 200 id1",
            ),
            ("100$ $request_length $uri $args", "100$ 77 /a b=c"),
        ];
        for (text, wanted) in cases {
            assert_eq!(said(text), wanted, "{text}");
        }
        let of_nginx = said("nginx");
        assert!(of_nginx.starts_with("203.0.113.2 - - ["), "{of_nginx}");
        assert!(of_nginx.ends_with(" 12 0.001 200 id1"), "{of_nginx}");
    }

    #[test]
    fn json_is_json() {
        let text = Format::json().line(&line(), &outcome());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["took_ms"], 1.5);
        assert_eq!(
            (&value["route"], &value["whole"]),
            (&serde_json::Value::Null, &true.into())
        );
        let own = Format::parse("{\"a\": \"$http_x $http_y\", \"n\": $status}").unwrap();
        let text = own.line(&line(), &outcome());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["a"], " a \"b\" \\ \t~");
    }

    #[test]
    fn what_is_no_format_is_told() {
        assert_eq!(
            Format::parse("$upstream_cache"),
            Err(FormatError::Unknown("upstream_cache".to_owned()))
        );
        assert_eq!(Format::parse("common"), Err(FormatError::Plain));
        assert_eq!(Format::parse("$status\n"), Err(FormatError::Character));
        let long = "$status".repeat(TEMPLATE_BYTES_MAX);
        assert_eq!(Format::parse(&long), Err(FormatError::Character));
    }
}
