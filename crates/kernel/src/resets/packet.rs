//! One TCP segment without data, as bytes with its IP header.

use std::net::{IpAddr, SocketAddr};

const TCP: u8 = 6;
const TCP_LENGTH: u16 = 20;
const ACK: u8 = 0x10;
const HOPS: u8 = 64;

/// An ACK from `source` to `to` with `number` as sequence and acknowledgement. `None` if they differ in family.
pub(super) fn bare_ack(source: SocketAddr, to: SocketAddr, number: u32) -> Option<Vec<u8>> {
    let mut tcp = Vec::with_capacity(TCP_LENGTH.into());
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(number.to_be_bytes());
    tcp.extend(number.to_be_bytes());
    // Header of five words, ACK, a window, checksum, no urgent data.
    tcp.extend([0x50, ACK, 0x10, 0, 0, 0, 0, 0]);
    let mut packet = Vec::with_capacity(60);
    match (source.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The kernel fills in the total length, the identification and the checksum.
            packet.extend([0x45, 0, 0, 0, 0, 0, 0, 0, HOPS, TCP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            seal(&mut tcp, &from.octets(), &to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(TCP_LENGTH.to_be_bytes());
            packet.extend([TCP, HOPS]);
            packet.extend(from.octets());
            packet.extend(to.octets());
            seal(&mut tcp, &from.octets(), &to.octets());
        }
        _ => return None,
    }
    packet.extend(tcp);
    Some(packet)
}

/// Writes the checksum of a segment (RFC 9293, 3.1): over addresses, protocol, length and the segment.
fn seal(tcp: &mut [u8], from: &[u8], to: &[u8]) {
    let pairs = [from, to, &*tcp]
        .into_iter()
        .flat_map(|b| b.chunks_exact(2));
    let words = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + u32::from(TCP) + u32::from(TCP_LENGTH);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    tcp[16..18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
