//! Reads values of annotations, and of the ConfigMap for those that are not there, and keeps what is said of them.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use ipnet::IpNet;

use super::catalog::{self, Standing};
use super::{NGINX, Note, OURS};
use crate::policy::Template;

/// Ours: connections to endpoints begin with who the client is.
pub(super) const PROXY_PROTOCOL: &str = "backend-proxy-protocol";

/// Ours: what of an endpoint is checked, and how.
pub(super) const CHECK_PATH: &str = "health-check-path";
pub(super) const CHECK_HOST: &str = "health-check-host";
pub(super) const CHECK_INTERVAL: &str = "health-check-interval";
pub(super) const CHECK_TIMEOUT: &str = "health-check-timeout";
pub(super) const CHECK_FALL: &str = "health-check-fall";
pub(super) const CHECK_RISE: &str = "health-check-rise";

/// All of ours.
const OWN: [&str; 7] = [
    PROXY_PROTOCOL,
    CHECK_PATH,
    CHECK_HOST,
    CHECK_INTERVAL,
    CHECK_TIMEOUT,
    CHECK_FALL,
    CHECK_RISE,
];

/// Reads the values of one Ingress.
pub(in crate::ingress) struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    config: &'a BTreeMap<String, String>,
    /// Whether the ConfigMap itself is read, and what is wrong is told of it.
    is_of_config: bool,
    /// Whether what the specification leaves open is done as ingress-nginx did.
    pub(super) is_compatible: bool,
    /// Something that restricts access is wrong.
    pub(super) is_unsafe: bool,
    notes: BTreeMap<String, Note>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        annotations: &'a BTreeMap<String, String>,
        config: &'a BTreeMap<String, String>,
        is_compatible: bool,
    ) -> Self {
        Reader {
            annotations,
            config,
            is_of_config: false,
            is_compatible,
            is_unsafe: false,
            notes: BTreeMap::new(),
        }
    }

    pub(super) fn of_config(
        annotations: &'a BTreeMap<String, String>,
        config: &'a BTreeMap<String, String>,
        is_compatible: bool,
    ) -> Self {
        Reader {
            is_of_config: true,
            ..Reader::new(annotations, config, is_compatible)
        }
    }

    /// The value of an annotation, or else of the ConfigMap, without blanks around it; `None` when it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let own = self.annotations.get(&format!("{NGINX}{name}"));
        let global = || self.config.get(name).filter(|_| catalog::is_config(name));
        let text = own.or_else(global)?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The value of one of our own annotations.
    pub(super) fn own(&self, name: &str) -> Option<&'a str> {
        let text = self.annotations.get(&format!("{OURS}{name}"))?.trim();
        (!text.is_empty()).then_some(text)
    }

    /// Says that one of our own cannot be carried out.
    pub(super) fn own_wrong(&mut self, name: &str, words: &str) {
        let key = format!("{OURS}{name}");
        let note = Note {
            value: self.annotations.get(&key).cloned().unwrap_or_default(),
            name: key.clone(),
            standing: Standing::Refused,
            words: words.to_owned(),
            reason: "InvalidAnnotation",
        };
        self.notes.insert(key, note);
    }

    /// A time of one of our own annotations, of at least so long.
    pub(super) fn own_time(&mut self, name: &str, min: Duration) -> Option<Duration> {
        let parsed = time(self.own(name)?).filter(|time| *time >= min);
        if parsed.is_none() {
            let words = format!(
                "It must be a time such as 500ms, 30s, 5m, of at least {min:?}; it is left out."
            );
            self.own_wrong(name, &words);
        }
        parsed
    }

    /// A number from 1 to 100 of one of our own annotations.
    pub(super) fn own_count(&mut self, name: &str) -> Option<u32> {
        let parsed = self.own(name)?.parse().ok();
        let parsed = parsed.filter(|number| (1..=100).contains(number));
        if parsed.is_none() {
            self.own_wrong(name, "It must be a number from 1 to 100; it is left out.");
        }
        parsed
    }

    /// Whether the Ingress itself has the annotation.
    pub(super) fn has(&self, name: &str) -> bool {
        self.annotations.contains_key(&format!("{NGINX}{name}"))
    }

    /// Says that a value cannot be carried out.
    pub(super) fn wrong(&mut self, name: &str, words: &str) {
        self.note(name, Standing::Refused, words, "InvalidAnnotation");
    }

    /// Says that something which restricts access cannot be carried out: nobody gets in.
    pub(super) fn unsafe_to_serve(&mut self, name: &str, words: &str) {
        self.is_unsafe = true;
        let words = format!(
            "{words} It restricts access: all requests are answered with 503 until it is mended."
        );
        self.note(name, Standing::Refused, &words, "AccessClosed");
    }

    /// Says what differs.
    pub(super) fn differs(&mut self, name: &str, words: &str) {
        self.note(name, Standing::Different, words, "");
    }

    fn note(&mut self, name: &str, standing: Standing, words: &str, reason: &'static str) {
        let key = match self.is_of_config {
            true => name.to_owned(),
            false => format!("{NGINX}{name}"),
        };
        let value = match self.is_of_config {
            true => self.config.get(&key),
            false => self.annotations.get(&key),
        };
        // A wrong value of the ConfigMap is told of the ConfigMap only.
        let Some(value) = value else {
            return;
        };
        let note = Note {
            name: key.clone(),
            value: value.clone(),
            standing,
            words: words.to_owned(),
            reason,
        };
        self.notes.insert(key, note);
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        match self.text(name)?.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "on" => Some(true),
            "false" | "0" | "f" | "off" => Some(false),
            _ => {
                self.wrong(name, "It must be \"true\" or \"false\"; it is left out.");
                None
            }
        }
    }

    pub(super) fn number<T: FromStr>(&mut self, name: &str, what: &str) -> Option<T> {
        let parsed = self.text(name)?.parse().ok();
        if parsed.is_none() {
            self.wrong(name, &format!("It must be {what}; it is left out."));
        }
        parsed
    }

    /// Seconds, or a number with `ms`, `s`, `m`, `h`.
    pub(super) fn time(&mut self, name: &str) -> Option<Duration> {
        let parsed = time(self.text(name)?);
        if parsed.is_none() {
            self.wrong(
                name,
                "It must be a number of seconds, or a time such as 500ms, 30s, 5m; it is left out.",
            );
        }
        parsed
    }

    /// Bytes, as nginx writes them.
    pub(super) fn size(&mut self, name: &str) -> Option<u64> {
        let parsed = size(self.text(name)?);
        if parsed.is_none() {
            self.wrong(
                name,
                "It must be a size such as 512k, 8m, 1g, or 0 for any; it is left out.",
            );
        }
        parsed
    }

    /// Ranges of addresses, separated by commas; the error is the one that is none.
    pub(super) fn ranges(&self, name: &str) -> Option<Result<Vec<IpNet>, String>> {
        let items = self
            .text(name)?
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        Some(
            items
                .map(|item| range(item).ok_or_else(|| item.to_owned()))
                .collect(),
        )
    }

    pub(super) fn template(&mut self, name: &str) -> Option<Template> {
        match Template::parse(self.text(name)?) {
            Ok(template) => Some(template),
            Err(error) => {
                self.wrong(name, &format!("It cannot be carried out: {error}."));
                None
            }
        }
    }

    pub(super) fn header_value(&mut self, name: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_str(self.text(name)?).ok();
        if parsed.is_none() {
            self.wrong(
                name,
                "It has characters that no header may have; it is left out.",
            );
        }
        parsed
    }

    pub(super) fn header_name(&mut self, name: &str) -> Option<HeaderName> {
        let parsed = HeaderName::try_from(self.text(name)?).ok();
        if parsed.is_none() {
            self.wrong(name, "It must be the name of a header; it is left out.");
        }
        parsed
    }

    /// Statuses, separated by commas.
    pub(super) fn statuses(&mut self, name: &str) -> Vec<StatusCode> {
        let Some(text) = self.text(name) else {
            return Vec::new();
        };
        let parsed = text.split(',').map(|item| {
            let status = item
                .trim()
                .parse::<u16>()
                .ok()
                .filter(|number| (400..600).contains(number));
            status.and_then(|number| StatusCode::from_u16(number).ok())
        });
        match parsed.collect::<Option<Vec<_>>>() {
            Some(statuses) => statuses,
            None => {
                self.wrong(
                    name,
                    "It must be statuses from 400 to 599, separated by commas; it is left out.",
                );
                Vec::new()
            }
        }
    }

    /// A status of a redirect.
    pub(super) fn redirect_status(&mut self, name: &str, default: StatusCode) -> StatusCode {
        let Some(number) = self.number::<u16>(name, "301, 302, 303, 307 or 308") else {
            return default;
        };
        match number {
            301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(number).unwrap_or(default),
            _ => {
                self.wrong(
                    name,
                    "It must be 301, 302, 303, 307 or 308; it is left out.",
                );
                default
            }
        }
    }

    /// A note for each annotation of ingress-nginx and of ours, in the order of their names.
    pub(super) fn finish(mut self) -> Vec<Note> {
        for (key, value) in self.annotations {
            let (standing, words, reason) = match (key.strip_prefix(NGINX), key.starts_with(OURS)) {
                (Some(name), _) => catalog::standing(name),
                (None, true) if key.strip_prefix(OURS).is_some_and(|n| OWN.contains(&n)) => {
                    (Standing::Supported, String::new(), "")
                }
                (None, true) => catalog::unknown_of_ours(),
                (None, false) => continue,
            };
            self.notes.entry(key.clone()).or_insert_with(|| Note {
                name: key.clone(),
                value: value.clone(),
                standing,
                words,
                reason,
            });
        }
        self.notes.into_values().collect()
    }

    /// A note for each key of the ConfigMap that is not carried out.
    pub(super) fn finish_config(mut self) -> Vec<Note> {
        for (key, value) in self
            .config
            .iter()
            .filter(|(key, _)| !catalog::is_config(key))
        {
            let words = "The gateway does not read this key; remove it, or see docs/gateway.md for its own options.";
            self.notes.entry(key.clone()).or_insert_with(|| Note {
                name: key.clone(),
                value: value.clone(),
                standing: Standing::Refused,
                words: words.to_owned(),
                reason: "KeyNotSupported",
            });
        }
        let notes = self.notes.into_values();
        notes
            .filter(|note| note.standing == Standing::Refused)
            .collect()
    }
}

/// An address is a range of one.
pub(super) fn range(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok();
    let one = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    net.or_else(one).map(|net| net.trunc())
}

fn time(text: &str) -> Option<Duration> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "" | "s" => number.checked_mul(1000)?,
        "ms" => number,
        "m" => number.checked_mul(60_000)?,
        "h" => number.checked_mul(3_600_000)?,
        _ => return None,
    };
    Some(Duration::from_millis(millis))
}

fn size(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_as_nginx_does() {
        assert_eq!(time("60"), Some(Duration::from_secs(60)));
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("5m"), Some(Duration::from_secs(300)));
        assert_eq!((time("x"), time("1d"), time("")), (None, None, None));
        assert_eq!(time(&u64::MAX.to_string()), None);
        assert_eq!(
            (size("8m"), size("1G"), size("0"), size("10")),
            (Some(8 << 20), Some(1 << 30), Some(0), Some(10))
        );
        assert_eq!(
            (size("8mb"), size("-1"), size(&format!("{}g", u64::MAX))),
            (None, None, None)
        );
    }

    #[test]
    fn an_address_is_a_range_of_one() {
        assert_eq!(range("203.0.113.2").unwrap().to_string(), "203.0.113.2/32");
        assert_eq!(
            range("203.0.113.2/24").unwrap().to_string(),
            "203.0.113.0/24"
        );
        assert_eq!(range("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(range("203.0.113"), None);
    }
}
