//! Another backend for some of the requests: by a header, then by a cookie, then by chance.

use http::{HeaderMap, HeaderName};
use regex::Regex;

use super::template::cookie;
use crate::route::Destination;

/// Another backend for some of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Where those requests go.
    pub to: Destination,
    /// The header that decides, if it does.
    pub header: Option<(HeaderName, HeaderRule)>,
    /// The cookie that decides, by `always` and `never`.
    pub cookie: Option<String>,
    /// How many of `total` requests that nothing else decides about.
    pub weight: u32,
    /// As many are meant by all requests; at least 1.
    pub total: u32,
}

/// Which values of a header lead to the canary.
#[derive(Clone, Debug)]
pub enum HeaderRule {
    /// `always`; and `never` leads away from it.
    AlwaysNever,
    /// This one.
    Value(String),
    /// What this expression finds something in.
    Pattern(Regex),
}

impl PartialEq for HeaderRule {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (HeaderRule::AlwaysNever, HeaderRule::AlwaysNever) => true,
            (HeaderRule::Value(a), HeaderRule::Value(b)) => a == b,
            (HeaderRule::Pattern(a), HeaderRule::Pattern(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl Eq for HeaderRule {}

impl Canary {
    /// Whether a request goes there; `drawn` is a number drawn at random.
    pub fn takes(&self, headers: &HeaderMap, drawn: u32) -> bool {
        let by_header = self.header.as_ref().and_then(|(name, rule)| {
            let value = headers.get(name)?.to_str().ok()?;
            rule.decides(value)
        });
        let by_cookie = || {
            let value = cookie(headers, self.cookie.as_deref()?)?;
            HeaderRule::AlwaysNever.decides(value)
        };
        let by_chance = || drawn % self.total.max(1) < self.weight;
        by_header.or_else(by_cookie).unwrap_or_else(by_chance)
    }
}

impl HeaderRule {
    fn decides(&self, value: &str) -> Option<bool> {
        match self {
            HeaderRule::AlwaysNever => match value {
                "always" => Some(true),
                "never" => Some(false),
                _ => None,
            },
            HeaderRule::Value(wanted) => (value == wanted).then_some(true),
            HeaderRule::Pattern(pattern) => pattern.is_match(value).then_some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn canary(rule: HeaderRule) -> Canary {
        Canary {
            to: Destination::Broken(StatusCode::SERVICE_UNAVAILABLE),
            header: Some((HeaderName::from_static("x-canary"), rule)),
            cookie: Some("canary".into()),
            weight: 30,
            total: 100,
        }
    }

    fn takes(canary: &Canary, header: &str, cookie: &str, drawn: u32) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("x-canary", header.parse().unwrap());
        headers.insert("cookie", format!("a=b; canary={cookie}").parse().unwrap());
        canary.takes(&headers, drawn)
    }

    #[test]
    fn the_header_decides_before_the_cookie_and_the_cookie_before_chance() {
        let canary = canary(HeaderRule::AlwaysNever);
        assert!(takes(&canary, "always", "never", 99) && !takes(&canary, "never", "always", 0));
        assert!(takes(&canary, "x", "always", 99) && !takes(&canary, "x", "never", 0));
        assert!(
            takes(&canary, "x", "x", 29)
                && !takes(&canary, "x", "x", 30)
                && takes(&canary, "x", "x", 129)
        );
        let share = (0..1000)
            .filter(|drawn| canary.takes(&HeaderMap::new(), *drawn))
            .count();
        assert_eq!(share, 300);
    }

    #[test]
    fn values_and_expressions_lead_there_only() {
        let value = canary(HeaderRule::Value("eu".into()));
        assert!(takes(&value, "eu", "never", 99) && !takes(&value, "always", "never", 0));
        let pattern = canary(HeaderRule::Pattern(Regex::new("^(eu|us)$").unwrap()));
        assert!(takes(&pattern, "us", "never", 99) && !takes(&pattern, "usa", "never", 0));
    }
}
