//! What pages of other origins may do (Fetch standard, section 3.2).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// What pages of other origins may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Vec<Origin>,
    /// `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    /// `Access-Control-Allow-Headers`.
    pub headers: HeaderValue,
    /// `Access-Control-Expose-Headers`, if any.
    pub exposed: Option<HeaderValue>,
    /// Whether cookies are sent.
    pub credentials: bool,
    /// Seconds for which a browser remembers it.
    pub max_age: u64,
}

/// Whose pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Everybody's.
    Any,
    /// Those of this scheme, host and port.
    Exact(String),
    /// Those of the hosts below a name: what stands before and behind the `*`.
    Below(String, String),
}

impl Origin {
    /// Reads `*`, `https://a.com:8443` or `https://*.a.com`; `None` for what is none.
    pub fn parse(text: &str) -> Option<Origin> {
        if text == "*" {
            return Some(Origin::Any);
        }
        let (scheme, rest) = text.split_once("://")?;
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        let scheme_fine = !scheme.is_empty()
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let host = rest.strip_prefix("*.").unwrap_or(rest);
        if !scheme_fine || host.is_empty() || !host.chars().all(fine) {
            return None;
        }
        let text = text.to_ascii_lowercase();
        Some(match text.split_once('*') {
            Some((before, behind)) => Origin::Below(before.to_owned(), behind.to_owned()),
            None => Origin::Exact(text),
        })
    }

    fn covers(&self, origin: &str) -> bool {
        match self {
            Origin::Any => true,
            Origin::Exact(text) => text.eq_ignore_ascii_case(origin),
            Origin::Below(before, behind) => {
                let origin = origin.to_ascii_lowercase();
                let middle = origin
                    .strip_prefix(&**before)
                    .and_then(|rest| rest.strip_suffix(&**behind));
                middle.is_some_and(|label| !label.is_empty() && !label.contains([':', '/']))
            }
        }
    }
}

impl Cors {
    /// Whether a request asks what it may do, and nothing else.
    pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
        method == Method::OPTIONS
            && headers.contains_key(ORIGIN)
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Writes into the headers of an answer what a page of `origin` may do; whatever the backend has said of it is
    /// overwritten.
    pub fn answer(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            answer.remove(name);
        }
        let any = self.origins.contains(&Origin::Any);
        let origin = match (any, origin) {
            (true, _) => HeaderValue::from_static("*"),
            (false, origin) => {
                // What the answer says depends on who asks.
                answer.append(VARY, HeaderValue::from_static("Origin"));
                let covered = |text: &str| self.origins.iter().any(|of| of.covers(text));
                match origin.filter(|origin| origin.to_str().is_ok_and(covered)) {
                    Some(origin) => origin.clone(),
                    None => return,
                }
            }
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            answer.insert(
                ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
        if let Some(exposed) = &self.exposed {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    /// The headers of the answer to a preflight.
    pub fn preflight(&self, origin: Option<&HeaderValue>) -> HeaderMap {
        let mut answer = HeaderMap::new();
        self.answer(origin, &mut answer);
        if answer.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            answer.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
            answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            origins: origins
                .iter()
                .map(|text| Origin::parse(text).unwrap())
                .collect(),
            methods: HeaderValue::from_static("GET"),
            headers: HeaderValue::from_static("X-A"),
            exposed: Some(HeaderValue::from_static("X-B")),
            credentials: true,
            max_age: 60,
        }
    }

    #[test]
    fn only_listed_origins_are_answered() {
        let cors = cors(&["https://a.com", "https://*.b.com:8443"]);
        let allowed = |origin: &str| {
            let origin = HeaderValue::from_str(origin).unwrap();
            let headers = cors.preflight(Some(&origin));
            headers.get(ACCESS_CONTROL_ALLOW_ORIGIN) == Some(&origin)
        };
        assert!(
            allowed("https://a.com") && allowed("https://A.com") && allowed("https://x.b.com:8443")
        );
        for origin in [
            "http://a.com",
            "https://a.com.evil.com",
            "https://b.com:8443",
            "https://x.b.com",
            "https://evil.com:1/.b.com:8443",
            "null",
        ] {
            assert!(!allowed(origin), "{origin}");
        }
        assert!(
            cors.preflight(None)
                .get(ACCESS_CONTROL_ALLOW_METHODS)
                .is_none()
        );
    }

    #[test]
    fn answers_say_what_is_allowed_and_depend_on_the_origin() {
        let mut answer = HeaderMap::new();
        answer.insert(
            ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("http://backend"),
        );
        cors(&["*"]).answer(None, &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "X-B");
        assert!(answer.get(VARY).is_none());
        let mut answer = HeaderMap::new();
        cors(&["https://a.com"]).answer(None, &mut answer);
        assert_eq!(answer[VARY], "Origin");
        assert!(answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    }

    #[test]
    fn origins_are_read() {
        for wrong in [
            "a.com",
            "https://",
            "https://*",
            "https://a.com/x",
            "https://a.*.com",
            "https://a b",
            "://a",
        ] {
            assert_eq!(Origin::parse(wrong), None, "{wrong}");
        }
    }
}
