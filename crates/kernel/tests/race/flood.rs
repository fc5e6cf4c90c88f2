//! New flows, as many as one thread makes, and who gets them.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use portolan_kernel::link::Links;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// The Service.
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);

/// Its port.
pub(crate) const PORT: u16 = 80;

const fn endpoint(last: u8) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 1, 1, last)), 8080)
}

/// All of its endpoints.
pub(crate) const ENDPOINTS: [SocketAddr; 3] = [endpoint(1), endpoint(2), endpoint(3)];

/// How many clients there are, each with all source ports.
const CLIENTS: u32 = 1024;

/// Datagrams between two looks at the clock.
pub(crate) const SOME: u64 = 256;

/// The sockets of the endpoints, which are there so that nobody answers with an error, and one where no rule leads to.
pub(crate) struct Sockets {
    _endpoints: Vec<UdpSocket>,
    service: UdpSocket,
}

impl Sockets {
    pub(crate) fn new() -> Sockets {
        let mut links = Links::here().unwrap();
        links.up("lo").unwrap();
        let all = ENDPOINTS.map(|endpoint| endpoint.ip());
        for ip in all.into_iter().chain([SERVICE.into()]) {
            links.add_address("lo", ip.into()).unwrap();
        }
        let service = UdpSocket::bind((SERVICE, PORT)).unwrap();
        service.set_nonblocking(true).unwrap();
        let endpoints = ENDPOINTS.map(|endpoint| UdpSocket::bind(endpoint).unwrap());
        Sockets {
            _endpoints: endpoints.into(),
            service,
        }
    }

    /// How many datagrams have come to the Service's own address since the last call.
    pub(crate) fn untranslated(&self) -> u64 {
        let mut count = 0;
        loop {
            match self.service.recv(&mut [0; 8]) {
                Ok(_) => count += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Flows are forgotten soon, so that conntrack's table does not fill up. It is there when rules are.
pub(crate) fn forget_soon() {
    std::fs::write("/proc/sys/net/netfilter/nf_conntrack_udp_timeout", "1").unwrap();
}

/// Datagrams to the Service, each from another address or port.
pub(crate) struct Flood {
    socket: Socket,
    to: SockAddr,
    datagram: [u8; 28],
    count: u32,
}

impl Flood {
    pub(crate) fn new() -> Flood {
        let raw = Protocol::from(libc_raw());
        let mut datagram = [0; 28];
        datagram[0] = 0x45;
        datagram[8] = 64;
        datagram[9] = 17;
        datagram[16..20].copy_from_slice(&SERVICE.octets());
        datagram[22..24].copy_from_slice(&PORT.to_be_bytes());
        datagram[25] = 8;
        Flood {
            socket: Socket::new(Domain::IPV4, Type::RAW, Some(raw)).unwrap(),
            to: SocketAddr::from((SERVICE, 0)).into(),
            datagram,
            count: 0,
        }
    }

    /// Sends [`SOME`]; how many were neither dropped nor rejected.
    pub(crate) fn some(&mut self) -> u64 {
        let mut sent = 0;
        for _ in 0..SOME {
            self.count = self.count.wrapping_add(1);
            let client = 0x0a02_0000 + self.count % CLIENTS;
            let port = 1024 + (self.count / CLIENTS) % 64_000;
            self.datagram[12..16].copy_from_slice(&client.to_be_bytes());
            self.datagram[20..22].copy_from_slice(&(port as u16).to_be_bytes());
            sent += u64::from(self.socket.send_to(&self.datagram, &self.to).is_ok());
        }
        sent
    }
}

/// IPPROTO_RAW: the sender writes the header.
const fn libc_raw() -> i32 {
    255
}
