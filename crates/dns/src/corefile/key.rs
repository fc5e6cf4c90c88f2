//! Keys of server blocks: `[scheme://]zone[:port]`, and names of zones.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Error;
use super::lexer::Word;

/// How queries come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// UDP and TCP.
    Dns,
    /// DNS over TLS, RFC 7858.
    Tls,
    /// DNS over HTTPS, RFC 8484.
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Scheme::Dns => 53,
            Scheme::Tls => 853,
            Scheme::Https => 443,
        }
    }

    /// As in a key.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Dns => "dns",
            Scheme::Tls => "tls",
            Scheme::Https => "https",
        }
    }
}

/// The absolute name of a zone in small letters with its final dot; the root is `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(String);

impl Zone {
    /// Reads a name: labels of 1 to 63 bytes, 255 in all (RFC 1035 2.3.4).
    pub fn parse(text: &str) -> Option<Zone> {
        let name = text.trim_end_matches('.');
        if name.is_empty() {
            return (text == ".").then(Zone::root);
        }
        let fits = |label: &str| !label.is_empty() && label.len() <= 63;
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        let whole = text.len() - name.len() <= 1 && name.len() <= 253;
        let right = whole && plain && name.split('.').all(fits);
        right.then(|| Zone(format!("{}.", name.to_ascii_lowercase())))
    }

    /// The zone of everything.
    pub fn root() -> Zone {
        Zone(".".to_string())
    }

    /// With the final dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is below `in-addr.arpa.` or `ip6.arpa.`.
    pub fn is_reverse(&self) -> bool {
        [".in-addr.arpa.", ".ip6.arpa."]
            .iter()
            .any(|end| self.0.ends_with(end) || self.0 == end[1..])
    }

    /// Whether a name (in small letters, absolute) is the zone's own or below it.
    pub fn holds(&self, name: &str) -> bool {
        self.0 == "."
            || name
                .strip_suffix(self.0.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The labels, from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.').filter(|label| !label.is_empty())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One zone that a server block answers for, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// How queries come.
    pub scheme: Scheme,
    /// What they ask for.
    pub zone: Zone,
    /// Where they come to.
    pub port: u16,
}

/// Reads a key; a range of addresses that is no whole label has several zones.
pub(super) fn keys(word: &Word, port: u16) -> Result<Vec<Key>, Error> {
    let text = word.text.as_str();
    let (scheme, rest) = match text.split_once("://") {
        None => (Scheme::Dns, text),
        Some(("dns", rest)) => (Scheme::Dns, rest),
        Some(("tls", rest)) => (Scheme::Tls, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => {
            let words =
                format!("there is no listener for {other}://; possible: dns://, tls://, https://");
            return Err(word.wrong(words));
        }
    };
    let standard = if scheme == Scheme::Dns {
        port
    } else {
        scheme.port()
    };
    let (name, port) = with_port(rest, standard).map_err(|words| word.wrong(words))?;
    let zones = zones(name).ok_or_else(|| {
        word.wrong(format!(
            "{text:?} is no key of a server block, such as example.org, .:53, tls://. or 10.0.0.0/24"
        ))
    })?;
    let key = |zone| Key { scheme, zone, port };
    Ok(zones.into_iter().map(key).collect())
}

/// `example.org:53`; the range of IPv6 addresses has colons of its own, and its port comes after the length.
fn with_port(text: &str, standard: u16) -> Result<(&str, u16), String> {
    let tail = text.rfind('/').map_or(0, |slash| slash + 1);
    let head = if tail == 0 && text.parse::<IpAddr>().is_ok() {
        text.len()
    } else {
        tail
    };
    let Some(colon) = text[head..].rfind(':').map(|colon| colon + head) else {
        return Ok((text, standard));
    };
    let port: Option<u16> = text[colon + 1..].parse().ok().filter(|port| *port > 0);
    match port {
        Some(port) => Ok((&text[..colon], port)),
        None => Err(format!("{:?} is no port, 1 to 65535", &text[colon + 1..])),
    }
}

/// The zones of a name, or of a range of addresses in CIDR notation (RFC 1035 3.5, RFC 3596 2.5).
pub(super) fn zones(text: &str) -> Option<Vec<Zone>> {
    match text.parse::<IpNet>() {
        Ok(range) => reverse(range),
        Err(_) if text.contains('/') => None,
        Err(_) => Zone::parse(text).map(|zone| vec![zone]),
    }
}

fn reverse(range: IpNet) -> Option<Vec<Zone>> {
    let width = match range {
        IpNet::V4(_) => 8,
        IpNet::V6(_) => 4,
    };
    let whole = range.prefix_len().div_ceil(width) * width;
    let subnets = range.trunc().subnets(whole).ok()?;
    subnets
        .map(|subnet| of_whole_labels(subnet, whole / width))
        .collect()
}

fn of_whole_labels(range: IpNet, labels: u8) -> Option<Zone> {
    let labels = usize::from(labels);
    let (mut parts, end): (Vec<String>, &str) = match range.addr() {
        IpAddr::V4(address) => {
            let octets = address.octets();
            (octets.iter().map(u8::to_string).collect(), "in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let nibbles = address
                .octets()
                .into_iter()
                .flat_map(|byte| [byte >> 4, byte & 15]);
            (
                nibbles.map(|nibble| format!("{nibble:x}")).collect(),
                "ip6.arpa.",
            )
        }
    };
    parts.truncate(labels);
    parts.reverse();
    parts.push(end.to_string());
    Zone::parse(&parts.join("."))
}
