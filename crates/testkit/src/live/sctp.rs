//! Just enough SCTP (RFC 9260) to ask and to answer: an INIT, and an INIT ACK whose cookie is the answer.
//!
//! It is spoken over raw sockets, because a kernel can translate SCTP without having sockets for it. The first two
//! packets of an association are all that a Service has a say in. The kernel drops a packet with a wrong checksum
//! before it is translated, so that the checksums here prove those that the kernel writes.

use std::net::SocketAddr;

/// Source and destination port, verification tag, checksum (section 3.1).
const HEADER: usize = 12;

/// Type, flags, length, initiate tag, window, streams out and in, first TSN (section 3.3.2).
const INIT: usize = 20;

/// Chunk types.
const TYPE_INIT: u8 = 1;
const TYPE_INIT_ACK: u8 = 2;

/// Parameter type of the state cookie, the only thing that an INIT ACK must carry.
const STATE_COOKIE: u16 = 7;

/// The tag by which a client knows answers to itself; one association is open at a time.
const CLIENT_TAG: u32 = 0x0070_6f72;

/// The server's own.
const SERVER_TAG: u32 = 0x0074_6f6c;

/// What a packet says, as far as we read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source port.
    pub from: u16,
    /// Destination port.
    pub to: u16,
    /// The cookie of an INIT ACK; `None` for an INIT.
    pub cookie: Option<Vec<u8>>,
}

/// An INIT.
pub fn init(from: u16, to: u16) -> Vec<u8> {
    packet(from, to, 0, TYPE_INIT, CLIENT_TAG, &[])
}

/// The answer to an INIT from port `to`.
pub fn init_ack(from: u16, to: u16, cookie: &[u8]) -> Vec<u8> {
    let length = u16::try_from(cookie.len() + 4).expect("invariant: an answer is short");
    let mut parameter = Vec::new();
    parameter.extend(STATE_COOKIE.to_be_bytes());
    parameter.extend(length.to_be_bytes());
    parameter.extend(cookie);
    packet(from, to, CLIENT_TAG, TYPE_INIT_ACK, SERVER_TAG, &parameter)
}

/// Reads a packet as a raw socket gives it: over IPv4 with the IP header in front. `None` for anything but a whole
/// packet with a right checksum that holds one of our two chunks.
pub fn read(listener: SocketAddr, bytes: &[u8]) -> Option<Packet> {
    let bytes = match listener {
        SocketAddr::V4(_) => bytes.get(usize::from(bytes.first()? & 0xf) * 4..)?,
        SocketAddr::V6(_) => bytes,
    };
    let field = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let mut clean = bytes.to_vec();
    clean.get_mut(8..HEADER)?.fill(0);
    if crc32c(&clean).to_le_bytes() != bytes[8..HEADER] {
        return None;
    }
    let chunk = bytes.get(HEADER..)?;
    let length = usize::from(field(HEADER + 2)?);
    let cookie = match *chunk.first()? {
        TYPE_INIT => None,
        TYPE_INIT_ACK => Some(chunk.get(INIT + 4..length)?.to_vec()),
        _ => return None,
    };
    Some(Packet {
        from: field(0)?,
        to: field(2)?,
        cookie,
    })
}

fn packet(from: u16, to: u16, verify: u32, kind: u8, tag: u32, parameters: &[u8]) -> Vec<u8> {
    let length = u16::try_from(INIT + parameters.len()).expect("invariant: parameters are short");
    let mut all = Vec::new();
    all.extend(from.to_be_bytes());
    all.extend(to.to_be_bytes());
    all.extend(verify.to_be_bytes());
    all.extend([0; 4]);
    all.extend([kind, 0]);
    all.extend(length.to_be_bytes());
    all.extend(tag.to_be_bytes());
    all.extend(65_536_u32.to_be_bytes());
    all.extend([0, 1, 0, 1]);
    all.extend(1_u32.to_be_bytes());
    all.extend(parameters);
    all.resize(all.len().next_multiple_of(4), 0);
    let checksum = crc32c(&all).to_le_bytes();
    all[8..HEADER].copy_from_slice(&checksum);
    all
}

/// CRC-32C (appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let step = |crc: u32, byte: &u8| {
        let shift = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { REVERSED } else { 0 };
        (0..8).fold(crc ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn what_is_written_is_read() {
        let v6 = "[fd00:10:1::10]:8080".parse().expect("an address");
        let v4 = "10.1.0.10:8080".parse().expect("an address");
        let ack = init_ack(8080, 40_000, b"me you");
        let read_ack = read(v6, &ack).expect("our own packet");
        assert_eq!((read_ack.from, read_ack.to), (8080, 40_000));
        assert_eq!(read_ack.cookie.as_deref(), Some(&b"me you"[..]));
        let mut with_header = vec![0x45; 20];
        with_header.extend(init(40_000, 80));
        assert_eq!(
            read(v4, &with_header).map(|p| (p.to, p.cookie)),
            Some((80, None))
        );
    }

    #[test]
    fn what_is_damaged_is_not_read() {
        let v6 = "[fd00:10:1::10]:8080".parse().expect("an address");
        let whole = init_ack(1, 2, b"cookie");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(read(v6, &damaged), None, "byte {at}");
            assert_eq!(read(v6, &whole[..at]), None, "cut at {at}");
        }
    }
}
