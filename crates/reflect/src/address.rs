//! Addresses and CIDRs as people write them.
//!
//! Old clusters hold values like `172.30.0.041` and `203.0.113.000/025` (the API accepted them for years, and reads
//! the numbers as decimal). They are normalised here, so that no other program gets to see, and misread, them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Reads an address; leading zeros do not make octal numbers, IPv4 in IPv6 clothes is IPv4, blanks at the ends go.
pub(crate) fn parse_ip(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let plain = || text.parse::<IpAddr>().ok();
    sloppy_v4(text).or_else(plain).map(|ip| ip.to_canonical())
}

/// Reads `address/prefix`; bits behind the prefix are cleared.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.trim().split_once('/')?;
    let prefix = decimal(prefix, 3)?;
    let net = IpNet::new(parse_ip(address)?, u8::try_from(prefix).ok()?).ok()?;
    Some(net.trunc())
}

fn sloppy_v4(text: &str) -> Option<IpAddr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?, 8)?).ok()?;
    }
    parts
        .next()
        .is_none()
        .then(|| Ipv4Addr::from(octets).into())
}

fn decimal(text: &str, digits_max: usize) -> Option<u32> {
    let fits = (1..=digits_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_but_meant_addresses_are_normalised() {
        for (text, expected) in [
            ("172.30.0.041", Some("172.30.0.41")),
            (" 1.2.3.004 ", Some("1.2.3.4")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("fd00::0001", Some("fd00::1")),
            ("1.2.3", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("1.2.3.+4", None),
            ("", None),
            ("None", None),
        ] {
            assert_eq!(
                parse_ip(text).map(|ip| ip.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
        for (text, expected) in [
            ("203.0.113.000/025", Some("203.0.113.0/25")),
            (" 10.1.2.3/8", Some("10.0.0.0/8")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0/33", None),
            ("10.0.0.0", None),
        ] {
            assert_eq!(
                parse_cidr(text).map(|net| net.to_string()).as_deref(),
                expected,
                "{text}"
            );
        }
    }
}
