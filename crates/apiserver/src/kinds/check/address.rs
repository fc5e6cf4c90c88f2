//! IP addresses and networks.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::kind::FieldError;

/// Reads an address as the API always has: octets of IPv4 may have leading zeros, which mean nothing.
pub fn parse(value: &str) -> Option<IpAddr> {
    value.parse().ok().or_else(|| {
        let octets: Vec<u8> = value.split('.').map(octet).collect::<Option<_>>()?;
        <[u8; 4]>::try_from(octets)
            .ok()
            .map(|octets| IpAddr::V4(Ipv4Addr::from(octets)))
    })
}

fn octet(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

/// Checks an address.
pub fn ip(field: &str, value: &str, errors: &mut Vec<FieldError>) -> Option<IpAddr> {
    let address = parse(value);
    if address.is_none() {
        errors.push(FieldError::invalid(
            field,
            value,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ));
    }
    address
}

/// Checks a network.
pub fn cidr(field: &str, value: &str, errors: &mut Vec<FieldError>) {
    let parsed = value.split_once('/').and_then(|(address, prefix)| {
        let prefix_length = prefix.parse().ok().filter(|_| prefix.len() <= 3)?;
        IpNet::new(parse(address)?, prefix_length).ok()
    });
    if parsed.is_none() {
        errors.push(FieldError::invalid(
            field,
            value,
            "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ));
    }
}

/// Checks that an address can be one that packets from elsewhere go to.
pub fn not_special(field: &str, value: &str, address: IpAddr, errors: &mut Vec<FieldError>) {
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (
            ip.segments()[0] & 0xffc0 == 0xfe80,
            ip.segments()[0] & 0xff0f == 0xff02,
        ),
    };
    let wrong = [
        (
            address.is_unspecified(),
            "may not be unspecified (0.0.0.0 or ::)",
        ),
        (
            address.is_loopback(),
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        ),
        (
            link_local,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        ),
        (
            link_local_multicast,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ];
    errors.extend(
        wrong
            .iter()
            .filter(|(is, _)| *is)
            .map(|(_, text)| FieldError::invalid(field, value, *text)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_spellings_are_understood() {
        assert_eq!(parse("172.30.0.041"), Some("172.30.0.41".parse().unwrap()));
        assert_eq!(parse("1.2.3.004"), Some("1.2.3.4".parse().unwrap()));
        assert_eq!(parse("1.2.3"), None);
        assert_eq!(parse("1.2.3.256"), None);
        assert_eq!(parse("::ffff:1"), Some("::ffff:1".parse().unwrap()));
    }

    #[test]
    fn networks() {
        let wrong = |value: &str| {
            let mut errors = Vec::new();
            cidr("f", value, &mut errors);
            !errors.is_empty()
        };
        assert!(!wrong("10.0.0.0/8"));
        assert!(!wrong("203.0.113.000/025"));
        assert!(!wrong("fd00::/8"));
        assert!(wrong("10.0.0.0"));
        assert!(wrong("10.0.0.0/33"));
    }
}
