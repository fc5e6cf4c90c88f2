//! Host names: in rules, and in requests.

use std::borrow::Cow;
use std::fmt;

/// Longest host of a request or rule, in bytes: DNS has no longer names (RFC 1035 section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label of a name, in bytes (RFC 1035 section 2.3.4).
const LABEL_BYTES_MAX: usize = 63;

/// Which hosts a rule is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// All of them, also a request that names none.
    Any,
    /// Every host with exactly one label before this name: `foo.com` stands for `*.foo.com`.
    Wildcard(Box<str>),
    /// This one.
    Exact(Box<str>),
}

impl Host {
    /// Reads a host as a rule has it: nothing, a name, or a name whose first label is `*`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Host, HostError> {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            _ if text.is_empty() => Ok(Host::Any),
            Some(name) => check_name(name).map(|()| Host::Wildcard(name.into())),
            None if text.parse::<std::net::IpAddr>().is_ok() => Err(HostError::Address),
            None => check_name(&text).map(|()| Host::Exact(text.into())),
        }
    }

    /// Whether a request for `host`, as [`request_host`] gives it, is one of those.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Wildcard(name) => wildcard_of(host) == Some(&**name),
            Host::Exact(name) => **name == *host,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Wildcard(name) => write!(f, "*.{name}"),
            Host::Exact(name) => f.write_str(name),
        }
    }
}

/// The name behind the first label: the key of the wildcard that covers `host`.
pub(crate) fn wildcard_of(host: &str) -> Option<&str> {
    let (label, rest) = host.split_once('.')?;
    (!label.is_empty() && !rest.is_empty()).then_some(rest)
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostError {
    /// Longer than [`HOST_BYTES_MAX`].
    Long,
    /// A label is empty, too long, or has a character that names do not have.
    Label,
    /// An IP address where a name must stand.
    Address,
    /// What stands behind the colon is no port.
    Port,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Long => write!(f, "it is longer than {HOST_BYTES_MAX} bytes"),
            HostError::Label => f.write_str("it is no DNS name"),
            HostError::Address => f.write_str("it is an IP address, and must be a name"),
            HostError::Port => f.write_str("what stands behind its colon is no port"),
        }
    }
}

/// The host of a request as rules are matched with it: without port, in lower case, without the dot that may end a
/// name. Empty stands for a request that names no host.
pub fn request_host(text: &str) -> Result<Cow<'_, str>, HostError> {
    if text.is_empty() {
        return Ok(Cow::Borrowed(""));
    }
    if let Some(literal) = text.strip_prefix('[') {
        return bracketed(literal);
    }
    let name = without_port(text)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    let name: Cow<str> = match name.bytes().any(|b| b.is_ascii_uppercase()) {
        true => name.to_ascii_lowercase().into(),
        false => name.into(),
    };
    // Names with an underscore are used, though no rule can have one.
    check_labels(&name, |b| b == b'_').map(|()| name)
}

fn without_port(text: &str) -> Result<&str, HostError> {
    match text.split_once(':') {
        None => Ok(text),
        Some((name, port)) => check_port(port).map(|()| name),
    }
}

/// RFC 3986 section 3.2.3: the port may be empty.
fn check_port(port: &str) -> Result<(), HostError> {
    let fine = port.bytes().all(|b| b.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok());
    fine.then_some(()).ok_or(HostError::Port)
}

/// An IPv6 address with its brackets, of which the first is taken away.
fn bracketed(literal: &str) -> Result<Cow<'_, str>, HostError> {
    let (address, rest) = literal.split_once(']').ok_or(HostError::Label)?;
    let address: std::net::Ipv6Addr = address.parse().map_err(|_| HostError::Label)?;
    match rest.strip_prefix(':') {
        Some(port) => check_port(port)?,
        None if rest.is_empty() => {}
        None => return Err(HostError::Port),
    }
    Ok(format!("[{address}]").into())
}

fn check_name(name: &str) -> Result<(), HostError> {
    check_labels(name, |_| false)
}

fn check_labels(name: &str, also: impl Fn(u8) -> bool) -> Result<(), HostError> {
    if name.len() > HOST_BYTES_MAX {
        return Err(HostError::Long);
    }
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || also(b);
    let fine = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let all = name.split('.').all(fine);
    all.then_some(()).ok_or(HostError::Label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_requests_are_told_from_nonsense() {
        let fine = [
            ("", ""),
            ("foo.com", "foo.com"),
            ("FOO.bar.com:8080", "foo.bar.com"),
            ("foo.com.", "foo.com"),
            ("foo.com.:80", "foo.com"),
            ("foo.com:", "foo.com"),
            ("a_b.foo.com", "a_b.foo.com"),
            ("10.1.0.2:80", "10.1.0.2"),
            ("[FD00::1]:80", "[fd00::1]"),
        ];
        for (given, host) in fine {
            assert_eq!(request_host(given).as_deref(), Ok(host), "{given}");
        }
        let long = format!("{}.com", "a.".repeat(125));
        let wrong = [
            "foo..com",
            ".",
            "foo.com..",
            ".foo.com",
            "foo com",
            "foo.com/x",
            "a@foo.com",
            "foo.com:80:80",
            "foo.com:x",
            "foo.com:99999",
            "[fd00::1",
            "[fd00::1]x",
            "[foo]",
            "-a.com",
            "a-.com",
            "fö.com",
            "a\0.com",
            &format!("{}.com", "a".repeat(64)),
            &long,
        ];
        for given in wrong {
            assert!(request_host(given).is_err(), "{given}");
        }
        assert_eq!(request_host(&long), Err(HostError::Long));
    }

    #[test]
    fn hosts_of_rules_are_names() {
        assert_eq!(Host::parse(""), Ok(Host::Any));
        assert_eq!(
            Host::parse("*.Foo.com"),
            Ok(Host::Wildcard("foo.com".into()))
        );
        for wrong in [
            "*",
            "*foo.com",
            "a.*.com",
            "*.*.com",
            "foo.com.",
            "foo.com:80",
            "a_b.com",
            "*.",
        ] {
            assert_eq!(Host::parse(wrong), Err(HostError::Label), "{wrong}");
        }
        assert_eq!(Host::parse("10.1.0.2"), Err(HostError::Address));
        assert_eq!(Host::parse("fd00::1"), Err(HostError::Address));
    }
}
