//! Canaries: Ingresses whose backends get some of the requests of another Ingress' paths.

use http::HeaderName;
use regex::RegexBuilder;

use super::{Reader, Settings};
use crate::policy::{Canary, HeaderRule};
use crate::route::{Destination, REGEX_BYTES_MAX};

/// Which requests a canary gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ingress) struct CanaryRule {
    header: Option<(HeaderName, HeaderRule)>,
    cookie: Option<String>,
    weight: u32,
    total: u32,
}

impl CanaryRule {
    /// The canary with this backend.
    pub(in crate::ingress) fn with(&self, to: Destination) -> Canary {
        Canary {
            to,
            header: self.header.clone(),
            cookie: self.cookie.clone(),
            weight: self.weight,
            total: self.total,
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>, settings: &mut Settings) {
    if reader.flag("canary") != Some(true) {
        return;
    }
    let header = reader.header_name("canary-by-header").map(|name| {
        let rule = header_rule(reader);
        (name, rule)
    });
    let total = reader
        .number::<u32>("canary-weight-total", "a whole number")
        .filter(|total| *total > 0);
    let total = total.unwrap_or(100);
    let weight = reader
        .number::<u32>("canary-weight", "a whole number")
        .unwrap_or(0);
    if weight > total {
        reader.wrong(
            "canary-weight",
            &format!("It is more than {total}, which are all requests; all requests are taken."),
        );
    }
    let cookie = reader.text("canary-by-cookie").map(str::to_owned);
    let is_idle = header.is_none() && cookie.is_none() && !reader.has("canary-weight");
    if is_idle {
        reader.wrong(
            "canary",
            "It gets no requests: set canary-by-header, canary-by-cookie or canary-weight.",
        );
    }
    settings.canary = Some(CanaryRule {
        header,
        cookie,
        weight: weight.min(total),
        total,
    });
}

/// A value comes before an expression, as with ingress-nginx.
fn header_rule(reader: &mut Reader<'_>) -> HeaderRule {
    if let Some(value) = reader.text("canary-by-header-value") {
        return HeaderRule::Value(value.to_owned());
    }
    let Some(text) = reader.text("canary-by-header-pattern") else {
        return HeaderRule::AlwaysNever;
    };
    match RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build() {
        Ok(pattern) => HeaderRule::Pattern(pattern),
        Err(error) => {
            reader.wrong(
                "canary-by-header-pattern",
                &format!("It is no regular expression, and matches nothing: {error}."),
            );
            // A header with no value is refused by HTTP, so that nothing equals this.
            HeaderRule::Value("\0".to_owned())
        }
    }
}
