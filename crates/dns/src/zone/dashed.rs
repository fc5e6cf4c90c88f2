//! Addresses as labels: `10-0-0-1`, `fd00--1`; and as names of reverse zones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest such label: eight groups of four digits with dashes between.
const DASHED_BYTES_MAX: usize = 39;

/// Labels of an address below `ip6.arpa`.
const NIBBLES: usize = 32;

/// Appends the label of `address` with its length before it. An IPv6 address that ends with a colon gets a 0 there,
/// since a label may not end with a dash.
pub(crate) fn write(out: &mut Vec<u8>, address: IpAddr) {
    let start = out.len();
    out.push(0);
    match address {
        IpAddr::V4(address) => write_v4(out, address),
        IpAddr::V6(address) => write_v6(out, address),
    }
    out[start] = (out.len() - start - 1) as u8;
}

fn write_v4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

fn write_v6(out: &mut Vec<u8>, address: Ipv6Addr) {
    use std::io::Write;
    let start = out.len();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{address}");
    for byte in &mut out[start..] {
        if matches!(*byte, b':' | b'.') {
            *byte = b'-';
        }
    }
    if out.last() == Some(&b'-') {
        out.push(b'0');
    }
}

/// The address that a label stands for, however it is written (`010-0-0-1` is none).
pub(crate) fn read(label: &[u8]) -> Option<IpAddr> {
    if label.len() > DASHED_BYTES_MAX {
        return None;
    }
    let mut text = [0; DASHED_BYTES_MAX];
    let text = &mut text[..label.len()];
    text.copy_from_slice(label);
    let dashes = label.iter().filter(|byte| **byte == b'-').count();
    let four = dashes == 3 && !label.windows(2).any(|pair| pair == b"--");
    let colon = if four { b'.' } else { b':' };
    for byte in text.iter_mut() {
        match *byte {
            b'-' => *byte = colon,
            b'.' | b':' => return None,
            _ => {}
        }
    }
    let text = std::str::from_utf8(text).ok()?;
    match four {
        true => text.parse().ok().map(IpAddr::V4),
        false => text.parse().ok().map(IpAddr::V6),
    }
}

/// The address that this label is the one and only label of.
pub(crate) fn read_exact(label: &[u8]) -> Option<IpAddr> {
    let address = read(label)?;
    let mut written = Vec::with_capacity(DASHED_BYTES_MAX + 1);
    write(&mut written, address);
    (written[1..] == *label).then_some(address)
}

/// What the labels of a name in a reverse zone stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reverse {
    /// One address.
    Address(IpAddr),
    /// All addresses that begin so: from and to.
    Range(Key, Key),
}

/// Reads the labels of a whole name in lower case, from left to right.
pub(crate) fn read_reverse<'a>(
    labels: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> Option<Reverse> {
    let mut labels = labels.rev();
    if labels.next()? != b"arpa" {
        return None;
    }
    match labels.next()? {
        b"in-addr" => read_octets(labels),
        b"ip6" => read_nibbles(labels),
        _ => None,
    }
}

fn read_octets<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Reverse> {
    let mut octets = [0u8; 4];
    let mut count = 0;
    for label in labels {
        let text = std::str::from_utf8(label).ok()?;
        let plain = text.len() == 1 || !text.starts_with(['0', '+']);
        *octets.get_mut(count)? = text.parse().ok().filter(|_| plain)?;
        count += 1;
    }
    let begin = Ipv4Addr::from(octets);
    if count == 4 {
        return Some(Reverse::Address(begin.into()));
    }
    let mask = u32::MAX >> (8 * count);
    let end = Ipv4Addr::from(u32::from(begin) | mask);
    Some(Reverse::Range(Key::of(begin.into()), Key::of(end.into())))
}

fn read_nibbles<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Option<Reverse> {
    let mut bits = 0u128;
    let mut count = 0;
    for label in labels {
        let &[digit] = label else { return None };
        let nibble = (digit as char).to_digit(16)?;
        if count == NIBBLES {
            return None;
        }
        bits |= u128::from(nibble) << (124 - 4 * count);
        count += 1;
    }
    if count == NIBBLES {
        return Some(Reverse::Address(Ipv6Addr::from(bits).into()));
    }
    let mask = u128::MAX >> (4 * count as u32);
    let ends = [bits, bits | mask].map(|bits| Key::of(Ipv6Addr::from(bits).into()));
    Some(Reverse::Range(ends[0], ends[1]))
}

/// The name of an address in the reverse zones.
pub(crate) fn reverse_name(address: IpAddr) -> Vec<u8> {
    let mut name = Vec::new();
    let mut label = |text: String| {
        name.push(text.len() as u8);
        name.extend_from_slice(text.as_bytes());
    };
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            octets
                .iter()
                .rev()
                .for_each(|octet| label(octet.to_string()));
            label("in-addr".to_owned());
        }
        IpAddr::V6(address) => {
            for octet in address.octets().iter().rev() {
                label(format!("{:x}", octet & 15));
                label(format!("{:x}", octet >> 4));
            }
            label("ip6".to_owned());
        }
    }
    label("arpa".to_owned());
    name.push(0);
    name
}

/// An address in the order of reverse zones: IPv4 before IPv6, so that a part of one family is one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key([u8; 17]);

/// Families in the first byte of a [`Key`].
const V4: u8 = 4;
const V6: u8 = 6;

impl Key {
    pub(crate) fn address(self) -> IpAddr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[1..]);
        match self.0[0] {
            V4 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
            _ => IpAddr::from(octets),
        }
    }

    pub(crate) fn of(address: IpAddr) -> Self {
        let mut key = [0; 17];
        match address {
            IpAddr::V4(address) => {
                key[0] = V4;
                key[1..5].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                key[0] = V6;
                key[1..].copy_from_slice(&address.octets());
            }
        }
        Key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_addresses() {
        for (address, label) in [
            ("10.11.12.13", "10-11-12-13"),
            ("255.0.9.100", "255-0-9-100"),
            (
                "2001:db8:3333:4444:5555:6666:7777:8888",
                "2001-db8-3333-4444-5555-6666-7777-8888",
            ),
            (
                "2001:db8:3333:4444:5555:6666::",
                "2001-db8-3333-4444-5555-6666--0",
            ),
            ("::1", "--1"),
            ("::", "--0"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            let mut out = Vec::new();
            write(&mut out, address);
            assert_eq!(out[0] as usize, label.len());
            assert_eq!(std::str::from_utf8(&out[1..]), Ok(label));
            assert_eq!(read_exact(label.as_bytes()), Some(address));
        }
        for wrong in [
            "",
            "web",
            "1-2-3",
            "1.2-3-4",
            "256-0-0-1",
            "010-0-0-1",
            "fd00-0-0-0-0-0-0-1",
        ] {
            assert_eq!(read_exact(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_reverse_zones() {
        let read = |name: &str| read_reverse(name.split('.').map(str::as_bytes));
        assert_eq!(
            read("1.0.30.172.in-addr.arpa"),
            Some(Reverse::Address("172.30.0.1".parse().unwrap()))
        );
        let [from, to] = ["172.30.0.0", "172.30.255.255"].map(|a| Key::of(a.parse().unwrap()));
        assert_eq!(read("30.172.in-addr.arpa"), Some(Reverse::Range(from, to)));
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f";
        assert_eq!(
            read(&format!("{nibbles}.ip6.arpa")),
            Some(Reverse::Address("fd00::1".parse().unwrap()))
        );
        let [from, to] = ["fd00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
            .map(|a| Key::of(a.parse().unwrap()));
        assert_eq!(read("d.f.ip6.arpa"), Some(Reverse::Range(from, to)));
        for wrong in [
            "in-addr",
            "1.256.in-addr.arpa",
            "01.10.in-addr.arpa",
            "5.4.3.2.1.in-addr.arpa",
            "10.ip6.arpa",
            "g.ip6.arpa",
            &format!("0.{nibbles}.ip6.arpa"),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
