//! A relay on the loopback, and servers behind it that say who they are.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use portolan_model::{
    Affinity, Endpoint, NodeFacts, Origin, PortKey, Protocol, ServiceName, ServicePort, Snapshot,
};
use portolan_relay::{Counts, Door, Limits, Relay, Unknown};

/// How long something that must happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done`, and fails the test if that takes too long.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A relay with one Service port, reached by one door.
pub struct World {
    pub relay: Relay,
    pub door: SocketAddr,
    protocol: Protocol,
    snapshot: Snapshot,
}

pub const VIP: &str = "172.30.0.1:80";

impl World {
    pub fn new(protocol: Protocol, limits: Limits, endpoints: &[SocketAddr]) -> World {
        let mut relay = Relay::start(2, limits, Unknown).unwrap();
        let mut door = free(protocol);
        let at = |listen| Door {
            protocol,
            listen,
            origin: Origin::Host,
            leads_to: Some(VIP.parse().unwrap()),
        };
        // Another test may be faster to take a port that was free.
        wait_until("a door is open", || {
            door = free(protocol);
            relay.open_doors(vec![at(door)]).is_ok()
        });
        let mut world = World {
            relay,
            door,
            protocol,
            snapshot: Snapshot::new(NodeFacts::default()),
        };
        world.set(endpoints, None);
        world
    }

    /// Replaces the endpoints.
    pub fn set(&mut self, endpoints: &[SocketAddr], affinity: Option<Affinity>) {
        let mut port = ServicePort::new(key(self.protocol), NonZeroU16::new(80).unwrap());
        port.cluster_ips = vec!["172.30.0.1".parse().unwrap()];
        port.affinity = affinity;
        let mut all: Vec<Endpoint> = endpoints.iter().map(|to| Endpoint::ready(*to)).collect();
        all.sort_by_key(|endpoint| endpoint.address);
        port.endpoints = all.into();
        self.snapshot.set(port);
        self.relay.replace(self.snapshot.clone());
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.door).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Who answers a new connection; `None` when it is reset.
    pub fn ask(&self) -> Option<SocketAddr> {
        read_line(&mut self.connect())
    }

    /// One of the counts.
    pub fn count(&self, one: impl Fn(&Counts) -> u64) -> u64 {
        let mut found = 0;
        self.relay.counts().each(|_, counts| found = one(counts));
        found
    }
}

fn key(protocol: Protocol) -> PortKey {
    PortKey {
        service: ServiceName {
            namespace: "shop".into(),
            name: "web".into(),
        },
        port: "http".into(),
        protocol,
    }
}

/// An address that refuses for as long as the socket is there.
pub fn refusing(protocol: Protocol) -> (Socket, SocketAddr) {
    let kind = match protocol {
        Protocol::Udp => Type::DGRAM,
        _ => Type::STREAM,
    };
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let here = socket.local_addr().unwrap().as_socket().unwrap();
    if protocol == Protocol::Udp {
        // A socket that is connected takes datagrams of its peer only.
        socket.connect(&here.into()).unwrap();
    }
    (socket, here)
}

/// An address of the loopback at which nobody listens.
fn free(protocol: Protocol) -> SocketAddr {
    match protocol {
        Protocol::Udp => UdpSocket::bind("127.0.0.1:0").unwrap().local_addr(),
        _ => TcpListener::bind("127.0.0.1:0").unwrap().local_addr(),
    }
    .unwrap()
}

/// The line that a server sends, read as its address; `None` when the connection was reset.
pub fn read_line(stream: &mut TcpStream) -> Option<SocketAddr> {
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => Some(text.parse().expect("an address")),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("{error}"),
    }
}

/// Servers that tell everybody who connects their own address and hang up.
pub fn servers(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|_| server(tell_who)).collect()
}

/// A server that serves each connection with `serve`, in a thread of its own, until the test ends.
pub fn server(serve: impl Fn(TcpStream) + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    here
}

fn tell_who(mut stream: TcpStream) {
    let here = stream.local_addr().unwrap();
    // A client that has gone away is no matter of the server.
    let _ = stream.write_all(here.to_string().as_bytes());
}

/// Servers that answer each datagram with their own address and the datagram.
pub fn udp_servers(count: usize) -> Vec<SocketAddr> {
    let one = |_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut room = vec![0; 65_535];
            while let Ok((length, from)) = socket.recv_from(&mut room) {
                let answer = [here.to_string().as_bytes(), b" ", &room[..length]].concat();
                let _ = socket.send_to(&answer, from);
            }
        });
        here
    };
    (0..count).map(one).collect()
}
