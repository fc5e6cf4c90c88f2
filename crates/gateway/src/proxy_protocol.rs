//! The PROXY protocol, versions 1 and 2 (haproxy's doc/proxy-protocol.txt): who the client of a connection is, said by
//! somebody in between before anything else. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::traffic::Announce;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;

/// The longest header that is taken. Version 2 may say 65 535 bytes; certificates of clients and the like need some
/// hundred.
pub(crate) const HEADER_BYTES_MAX: usize = 4096;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// How many bytes it has.
    pub(crate) length: usize,
    /// The client and the address that it has connected to; `None` when the one in between speaks for itself (a health
    /// check), or of another family.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
}

/// Why a connection does not begin with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// More bytes are needed.
    #[error("it ends within the header")]
    Incomplete,
    /// It begins with something else.
    #[error("it begins with no header of the PROXY protocol")]
    Absent,
    /// It begins like one, and goes on as none may.
    #[error("its header of the PROXY protocol is malformed")]
    Malformed,
}

/// Reads what a connection begins with.
pub(crate) fn parse(bytes: &[u8]) -> Result<Header, HeaderError> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    match () {
        () if bytes.len() >= SIGNATURE.len() && begins(SIGNATURE) => binary(bytes),
        () if bytes.len() >= 6 && begins(b"PROXY ") => line(bytes),
        () if begins(SIGNATURE) || begins(b"PROXY ") => Err(HeaderError::Incomplete),
        () => Err(HeaderError::Absent),
    }
}

fn line(bytes: &[u8]) -> Result<Header, HeaderError> {
    let seen = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return Err(match seen.len() < LINE_BYTES_MAX {
            true => HeaderError::Incomplete,
            false => HeaderError::Malformed,
        });
    };
    let text = std::str::from_utf8(&seen[..end]).map_err(|_| HeaderError::Malformed)?;
    let length = end + 2;
    let words: Vec<&str> = text.split(' ').collect();
    let ends = match *words {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, source, target, source_port, target_port] => {
            let source = address(family, source, source_port);
            let target = address(family, target, target_port);
            Some(source.zip(target).ok_or(HeaderError::Malformed)?)
        }
        _ => return Err(HeaderError::Malformed),
    };
    Ok(Header { length, ends })
}

fn address(family: &str, ip: &str, port: &str) -> Option<SocketAddr> {
    let ip: IpAddr = match family {
        "TCP4" => IpAddr::V4(ip.parse().ok()?),
        "TCP6" => IpAddr::V6(ip.parse().ok()?),
        _ => return None,
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (port == "0" || !port.starts_with('0'));
    Some(SocketAddr::new(ip, port.parse().ok().filter(|_| plain)?))
}

fn binary(bytes: &[u8]) -> Result<Header, HeaderError> {
    let Some(&[version_command, family, high, low]) = bytes[SIGNATURE.len()..].first_chunk::<4>()
    else {
        return Err(HeaderError::Incomplete);
    };
    let begin = SIGNATURE.len() + 4;
    let length = begin + usize::from(u16::from_be_bytes([high, low]));
    if length > HEADER_BYTES_MAX || !matches!(version_command, 0x20 | 0x21) {
        return Err(HeaderError::Malformed);
    }
    let Some(rest) = bytes.get(begin..length) else {
        return Err(HeaderError::Incomplete);
    };
    let ends = match (version_command, family) {
        // LOCAL: the one in between speaks for itself.
        (0x20, _) => None,
        (_, 0x11) => {
            let parts: &[u8; 12] = rest.first_chunk().ok_or(HeaderError::Malformed)?;
            let ip = |at: usize| -> IpAddr {
                Ipv4Addr::new(parts[at], parts[at + 1], parts[at + 2], parts[at + 3]).into()
            };
            let port = |at: usize| u16::from_be_bytes([parts[at], parts[at + 1]]);
            Some((
                SocketAddr::new(ip(0), port(8)),
                SocketAddr::new(ip(4), port(10)),
            ))
        }
        (_, 0x21) => {
            let parts: &[u8; 36] = rest.first_chunk().ok_or(HeaderError::Malformed)?;
            let ip = |at: usize| -> IpAddr {
                let mut octets = [0; 16];
                octets.copy_from_slice(&parts[at..at + 16]);
                Ipv6Addr::from(octets).into()
            };
            let port = |at: usize| u16::from_be_bytes([parts[at], parts[at + 1]]);
            Some((
                SocketAddr::new(ip(0), port(32)),
                SocketAddr::new(ip(16), port(34)),
            ))
        }
        _ => None,
    };
    Ok(Header { length, ends })
}

/// The header that says that `client` has connected to `local`.
pub(crate) fn header(version: Announce, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let (client, local) = same_family(client, local);
    match version {
        Announce::V1 => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), local.ip());
            let (from_port, to_port) = (client.port(), local.port());
            format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
        }
        Announce::V2 => {
            let mut bytes = SIGNATURE.to_vec();
            let (family, length) = if client.is_ipv4() {
                (0x11, 12)
            } else {
                (0x21, 36)
            };
            bytes.extend([0x21, family, 0, length]);
            for ip in [client.ip(), local.ip()] {
                match ip {
                    IpAddr::V4(ip) => bytes.extend(ip.octets()),
                    IpAddr::V6(ip) => bytes.extend(ip.octets()),
                }
            }
            bytes.extend(client.port().to_be_bytes());
            bytes.extend(local.port().to_be_bytes());
            bytes
        }
    }
}

/// A header has one family: where they differ, IPv4 is written as IPv6.
fn same_family(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let (one, other) = (plain(one), plain(other));
    let mapped = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    match one.is_ipv4() == other.is_ipv4() {
        true => (one, other),
        false => (mapped(one), mapped(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let pairs = [
            ("203.0.113.2:4000", "198.51.100.1:443"),
            ("[2001:db8::2]:4000", "[fd00:198::1]:443"),
        ];
        for (client, local) in pairs.map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())) {
            for version in [Announce::V1, Announce::V2] {
                let mut bytes = header(version, client, local);
                let length = bytes.len();
                let ends = Some((client, local));
                for cut in 0..length {
                    assert_eq!(parse(&bytes[..cut]), Err(HeaderError::Incomplete), "{cut}");
                }
                bytes.extend(b"GET / HTTP/1.1\r\n");
                assert_eq!(parse(&bytes), Ok(Header { length, ends }));
            }
        }
        let mixed = header(
            Announce::V1,
            "203.0.113.2:1".parse().unwrap(),
            "[2001:db8::2]:2".parse().unwrap(),
        );
        assert_eq!(
            mixed,
            b"PROXY TCP6 ::ffff:203.0.113.2 2001:db8::2 1 2\r\n".to_vec()
        );
    }

    #[test]
    fn somebody_in_between_may_speak_for_itself() {
        let header = |length| Header { length, ends: None };
        assert_eq!(parse(b"PROXY UNKNOWN\r\nGET"), Ok(header(15)));
        let local = [SIGNATURE.as_slice(), &[0x20, 0, 0, 2, 9, 9]].concat();
        assert_eq!(parse(&local), Ok(header(18)));
        let unix = [SIGNATURE.as_slice(), &[0x21, 0x31, 0, 1, 9]].concat();
        assert_eq!(parse(&unix), Ok(header(17)));
    }

    #[test]
    fn nonsense_is_refused() {
        let long = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 100]].concat();
        let v2 = |rest: &[u8]| [SIGNATURE.as_slice(), rest].concat();
        for bytes in [
            b"PROXY TCP4 203.0.113.2 198.51.100.1 4000\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::2 198.51.100.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.2 198.51.100.1 01 2\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.2 198.51.100.1 1 65536\r\n".to_vec(),
            b"PROXY TCP4 203.0.113.2 198.51.100.1 +1 2\r\n".to_vec(),
            b"PROXY UDP4 203.0.113.2 198.51.100.1 1 2\r\n".to_vec(),
            long,
            v2(&[0x11, 0x11, 0, 0]),
            v2(&[0x21, 0x11, 0, 3, 1, 2, 3]),
            v2(&[0x21, 0x11, 0x10, 0x01]),
        ] {
            assert_eq!(parse(&bytes), Err(HeaderError::Malformed), "{bytes:?}");
        }
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(HeaderError::Absent));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..64), v2 in any::<bool>()) {
            let begin: &[u8] = if v2 { SIGNATURE } else { b"PROXY " };
            let all = [begin, &bytes].concat();
            if let Ok(header) = parse(&all) {
                prop_assert!(header.length <= all.len());
            }
            let _ = parse(&bytes);
        }
    }
}
