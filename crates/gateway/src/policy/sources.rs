//! From where requests may come.

use std::net::IpAddr;

use ipnet::IpNet;

/// Lists of addresses. Empty ones let everybody in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Only these, when there are any.
    pub allowed: Vec<IpNet>,
    /// Not these, even when they are allowed.
    pub denied: Vec<IpNet>,
}

impl Sources {
    /// Whether there is anything to look at.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty() && self.denied.is_empty()
    }

    /// Whether a client may ask.
    pub fn admit(&self, client: IpAddr) -> bool {
        let allowed = self.allowed.is_empty() || covers(&self.allowed, client);
        allowed && !covers(&self.denied, client)
    }
}

/// Whether one of the ranges has the address; an IPv4 address may come in IPv6's clothes.
pub(super) fn covers(ranges: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    ranges.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_denied_are_not_let_in_even_when_allowed() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        let admits = |sources: &Sources, client: &str| sources.admit(client.parse().unwrap());
        let both = Sources {
            allowed: nets(&["203.0.113.0/24", "2001:db8::/32"]),
            denied: nets(&["203.0.113.7/32"]),
        };
        assert!(admits(&both, "203.0.113.2") && admits(&both, "::ffff:203.0.113.2"));
        assert!(admits(&both, "2001:db8::1"));
        assert!(!admits(&both, "203.0.113.7") && !admits(&both, "198.51.100.1"));
        let only_denied = Sources {
            allowed: vec![],
            denied: nets(&["203.0.113.7/32"]),
        };
        assert!(admits(&only_denied, "198.51.100.1") && !admits(&only_denied, "203.0.113.7"));
        assert!(admits(&Sources::default(), "198.51.100.1"));
    }
}
