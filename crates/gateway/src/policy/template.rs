//! Texts with variables, as nginx has them in its configuration: `https://$host$request_uri`.

use std::fmt;

use http::{HeaderMap, HeaderName, Method};

/// Longest template, in bytes: longer ones are no URLs.
const TEMPLATE_BYTES_MAX: usize = 2048;

/// A text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    RequestUri,
    EscapedRequestUri,
    Uri,
    Args,
    IsArgs,
    Host,
    HttpHost,
    Scheme,
    RemoteAddr,
    Method,
    Header(HeaderName),
    Cookie(String),
    Argument(String),
    /// Of the expression of the path.
    Capture(usize),
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// A variable that there is not.
    Unknown(String),
    /// Longer than 2048 bytes.
    Long,
    /// It has a line feed or another control character.
    Character,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateError::Unknown(name) => write!(
                f,
                "it has the variable ${name}, which the gateway does not know; there are $request_uri, $escaped_request_uri, \
                 $uri, $args, $is_args, $host, $http_host, $scheme, $remote_addr, $request_method, $http_NAME, \
                 $cookie_NAME, $arg_NAME"
            ),
            TemplateError::Long => write!(f, "it is longer than {TEMPLATE_BYTES_MAX} bytes"),
            TemplateError::Character => f.write_str("it has a control character"),
        }
    }
}

/// What variables stand for.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `Host` as it was sent, with its port.
    pub http_host: &'a str,
    /// The host without port, in lower case.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Path and query as they were sent.
    pub request_uri: &'a str,
    /// The path as it is compared.
    pub path: &'a str,
    /// The client.
    pub remote_addr: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// What the groups of the path's expression have matched.
    pub captures: &'a [&'a str],
}

impl Scope<'_> {
    fn query(&self) -> &str {
        self.request_uri
            .split_once('?')
            .map_or("", |(_, query)| query)
    }
}

impl Template {
    /// Reads `$name`, `${name}` and `$1` to `$9`; everything else stands for itself.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(TemplateError::Character);
        }
        let mut pieces = text.split('$');
        let mut parts = Vec::new();
        parts.extend(
            pieces
                .next()
                .filter(|t| !t.is_empty())
                .map(|t| Part::Text(t.to_owned())),
        );
        for piece in pieces {
            let (name, rest) = name_of(piece);
            parts.push(match name {
                "" => Part::Text("$".to_owned()),
                name => Part::Variable(variable(name)?),
            });
            if !rest.is_empty() {
                parts.push(Part::Text(rest.to_owned()));
            }
        }
        Ok(Template { parts })
    }

    /// The text for a request.
    pub fn render(&self, scope: &Scope<'_>) -> String {
        let mut all = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => all.push_str(text),
                Part::Variable(variable) => write(&mut all, variable, scope),
            }
        }
        all
    }

    /// The highest group of the path's expression that it names.
    pub fn last_capture(&self) -> usize {
        let captures = self.parts.iter().map(|part| match part {
            Part::Variable(Variable::Capture(number)) => *number,
            _ => 0,
        });
        captures.max().unwrap_or(0)
    }

    /// What it begins with, up to its first variable.
    pub fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }
}

fn name_of(piece: &str) -> (&str, &str) {
    if let Some((name, rest)) = piece
        .strip_prefix('{')
        .and_then(|inner| inner.split_once('}'))
    {
        return (name, rest);
    }
    if piece.starts_with(|c: char| c.is_ascii_digit()) {
        return piece.split_at(1);
    }
    let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    piece.split_at(end.unwrap_or(piece.len()))
}

fn variable(name: &str) -> Result<Variable, TemplateError> {
    let unknown = || TemplateError::Unknown(name.to_owned());
    Ok(match name {
        "request_uri" => Variable::RequestUri,
        "escaped_request_uri" => Variable::EscapedRequestUri,
        "uri" | "document_uri" => Variable::Uri,
        "args" | "query_string" => Variable::Args,
        "is_args" => Variable::IsArgs,
        "host" | "best_http_host" | "server_name" => Variable::Host,
        "http_host" => Variable::HttpHost,
        "scheme" | "pass_access_scheme" => Variable::Scheme,
        "remote_addr" | "binary_remote_addr" | "the_real_ip" => Variable::RemoteAddr,
        "request_method" => Variable::Method,
        _ => {
            if let Some(header) = name.strip_prefix("http_") {
                let header = header.replace('_', "-").parse().map_err(|_| unknown())?;
                Variable::Header(header)
            } else if let Some(cookie) = name.strip_prefix("cookie_") {
                Variable::Cookie(cookie.to_owned())
            } else if let Some(argument) = name.strip_prefix("arg_") {
                Variable::Argument(argument.to_owned())
            } else {
                Variable::Capture(name.parse().ok().filter(|n| *n < 10).ok_or_else(unknown)?)
            }
        }
    })
}

fn write(all: &mut String, variable: &Variable, scope: &Scope<'_>) {
    let text = match variable {
        Variable::RequestUri => scope.request_uri,
        Variable::EscapedRequestUri => return escape(all, scope.request_uri),
        Variable::Uri => scope.path,
        Variable::Args => scope.query(),
        Variable::IsArgs if scope.query().is_empty() => "",
        Variable::IsArgs => "?",
        Variable::Host => scope.host,
        Variable::HttpHost => scope.http_host,
        Variable::Scheme => scope.scheme,
        Variable::RemoteAddr => scope.remote_addr,
        Variable::Method => scope.method.as_str(),
        Variable::Header(name) => {
            let value = scope
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok());
            value.unwrap_or_default()
        }
        Variable::Cookie(name) => cookie(scope.headers, name).unwrap_or_default(),
        Variable::Argument(name) => {
            let mut pairs = scope
                .query()
                .split('&')
                .filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(given, _)| given == name);
            found.map_or("", |(_, value)| value)
        }
        Variable::Capture(number) => scope.captures.get(*number).copied().unwrap_or_default(),
    };
    all.push_str(text);
}

/// The value of a cookie of a request.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(http::header::COOKIE).iter();
    let mut pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(given, _)| given.trim() == name);
    found.map(|(_, value)| value.trim())
}

/// As a value within a query.
fn escape(all: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => all.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => all.push(char::from(byte)),
            _ => all.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-user", "ann".parse().unwrap());
        headers.insert("cookie", "a=1; who=me".parse().unwrap());
        let scope = Scope {
            http_host: "A.com:8080",
            host: "a.com",
            scheme: "https",
            request_uri: "/x%20y?q=1&r=2",
            path: "/x%20y",
            remote_addr: "203.0.113.2",
            method: &Method::GET,
            headers: &headers,
            captures: &["/x", "one", "two"],
        };
        Template::parse(text).unwrap().render(&scope)
    }

    #[test]
    fn variables_stand_for_what_the_request_has() {
        let cases = [
            ("plain", "plain"),
            ("https://$host$request_uri", "https://a.com/x%20y?q=1&r=2"),
            (
                "$scheme://$http_host/in?rd=$escaped_request_uri",
                "https://A.com:8080/in?rd=%2Fx%2520y%3Fq%3D1%26r%3D2",
            ),
            ("${uri}$is_args$args", "/x%20y?q=1&r=2"),
            ("/$2/$1$9", "/two/one"),
            (
                "$http_x_user/$cookie_who/$arg_r/$request_method/$remote_addr",
                "ann/me/2/GET/203.0.113.2",
            ),
            ("cost: 5$", "cost: 5$"),
        ];
        for (text, expected) in cases {
            assert_eq!(rendered(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        let unknown = TemplateError::Unknown("upstream_addr".into());
        assert_eq!(Template::parse("$upstream_addr"), Err(unknown));
        assert_eq!(Template::parse("a\nb"), Err(TemplateError::Character));
        let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
        assert_eq!(Template::parse(&long), Err(TemplateError::Long));
        assert_eq!(Template::parse("/$3$1").unwrap().last_capture(), 3);
        assert_eq!(
            Template::parse("http://a/$uri").unwrap().beginning(),
            "http://a/"
        );
    }
}
