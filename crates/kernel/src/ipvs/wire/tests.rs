//! What is written is what is read, and strange bytes are no matter.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::nfnetlink::wire::Message;

fn spot(address: &str, protocol: Protocol, port: u16) -> Spot {
    Spot {
        address: address.parse().unwrap(),
        protocol,
        port,
    }
}

fn message(write: impl Fn(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::new(7);
    out.begin_generic(0x1f, 0, NEW_SERVICE);
    write(&mut out);
    out.end();
    out.bytes
}

fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Message::all(bytes).next().unwrap().attributes()
}

/// Byte for byte what the kernel's parser wants.
#[test]
fn a_virtual_server_is_written_as_the_kernel_reads_it() {
    let server = Server {
        scheduler: Scheduler::RoundRobin,
        affinity_s: 60,
        endpoints: Box::default(),
    };
    let at = spot("172.30.0.1", Protocol::Tcp, 80);
    let bytes = message(|out| write_head(out, &at, &server));
    let mut expected = vec![
        100,
        0,
        0,
        0,
        0x1f,
        0,
        1,
        0,
        7,
        0,
        0,
        0,
        0,
        0,
        0,
        0, // netlink header
        NEW_SERVICE,
        0,
        0,
        0, // generic netlink header
        80,
        0,
        1,
        0x80, // the service, nested
        6,
        0,
        1,
        0,
        2,
        0,
        0,
        0, // AF_INET
        6,
        0,
        2,
        0,
        6,
        0,
        0,
        0, // TCP
        20,
        0,
        3,
        0,
        172,
        30,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0, // address
        6,
        0,
        4,
        0,
        0,
        80,
        0,
        0, // port, network order
        7,
        0,
        6,
        0,
        b'r',
        b'r',
        0,
        0, // scheduler
        12,
        0,
        7,
        0,
        0x21,
        0,
        0,
        0,
        0xfd,
        0xff,
        0xff,
        0xff, // persistent and ours; all but HASHED
        8,
        0,
        8,
        0,
        60,
        0,
        0,
        0, // seconds
        8,
        0,
        9,
        0,
        0xff,
        0xff,
        0xff,
        0xff, // netmask
    ];
    expected[0] = expected.len() as u8;
    expected[20] = (expected.len() - 20) as u8;
    assert_eq!(bytes, expected);
}

#[test]
fn who_stands_for_a_mark_or_makes_no_sense_is_left_out() {
    let server = Server {
        scheduler: Scheduler::RoundRobin,
        affinity_s: 0,
        endpoints: Box::default(),
    };
    let at = spot("172.30.0.1", Protocol::Tcp, 80);
    let mut bytes = message(|out| write_head(out, &at, &server));
    assert!(read_head(attributes(&bytes)).is_some());
    // The address family.
    bytes[28] = 7;
    assert!(read_head(attributes(&bytes)).is_none());
    let marked = message(|out| {
        out.nest(ATTR_SERVICE, |out| {
            place(out, &at);
            out.raw(SVC_FWMARK, &1_u32.to_ne_bytes());
        });
    });
    assert!(read_head(attributes(&marked)).is_none());
    assert!(read_head(attributes(&message(|_| {}))).is_none());
}

/// What a kernel has said, byte for byte.
#[test]
fn what_a_kernel_says_is_understood() {
    let lines = include_str!("captured.txt").lines();
    let captured = lines.filter(|line| !line.starts_with('#')).map(|line| {
        let digits = line.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect::<Vec<u8>>()
    });
    let (mut heads, mut reals, mut others) = (Vec::new(), Vec::new(), 0);
    for bytes in captured {
        let attributes = Attributes(&bytes[4..]);
        match bytes[0] {
            NEW_DEST => reals.extend(read_real(Family::V4, attributes)),
            _ => match read_head(attributes) {
                Some(head) => heads.push(head),
                None => others += 1,
            },
        }
    }
    let head = |spot, scheduler, affinity_s| Head {
        spot,
        scheduler: Some(scheduler),
        affinity_s,
        ours: true,
    };
    let udp = spot("fd00:172:30::1", Protocol::Udp, 53);
    let tcp = spot("172.30.0.1", Protocol::Tcp, 80);
    let expected = [
        head(udp, Scheduler::RoundRobin, 0),
        head(tcp, Scheduler::WeightedRoundRobin, 60),
    ];
    assert_eq!(heads, expected);
    let real = Real {
        address: "10.1.1.2:8080".parse().unwrap(),
        weight: 3,
        active: 0,
        inactive: 0,
    };
    assert_eq!(reals, [real]);
    assert_eq!(others, 1, "the one for a firewall mark");
}

fn spots() -> impl Strategy<Value = Spot> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = proptest::sample::select(protocols.to_vec());
    (any::<IpAddr>(), protocol, any::<u16>()).prop_map(|(address, protocol, port)| Spot {
        address,
        protocol,
        port,
    })
}

proptest! {
    #[test]
    fn a_virtual_server_comes_back(
        spot in spots(),
        scheduler in proptest::sample::select(Scheduler::ALL.to_vec()),
        affinity_s in 0..0x2_0000_u32,
    ) {
        let server = Server { scheduler, affinity_s, endpoints: Box::default() };
        let bytes = message(|out| write_head(out, &spot, &server));
        let head = Head { spot, scheduler: Some(scheduler), affinity_s, ours: true };
        prop_assert_eq!(read_head(attributes(&bytes)), Some(head));
    }

    #[test]
    fn a_real_server_comes_back(spot in spots(), port: u16, weight: u32) {
        let address = SocketAddr::new(spot.address, port);
        let bytes = message(|out| {
            write_spot(out, &spot);
            write_real(out, address, weight);
        });
        let real = Real { address, weight, active: 0, inactive: 0 };
        let family = Family::of(spot.address);
        prop_assert_eq!(read_real(family, attributes(&bytes)), Some(real));
    }

    #[test]
    fn strange_bytes_are_no_matter(bytes in vec(any::<u8>(), 0..200)) {
        let strange = Attributes(&bytes);
        let _ = (read_head(strange), read_real(Family::V4, strange), read_real(Family::V6, strange));
    }
}
