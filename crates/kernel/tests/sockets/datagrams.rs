//! Sockets of UDP: connected ones, and those that say with each datagram where it goes.

use std::net::{SocketAddr, UdpSocket};

use portolan_kernel::isolated;
use portolan_model::{Protocol, ServicePort};

use crate::bed::{Bed, at, ip};

const VIPS: [(&str, &str, &str); 3] = [
    ("0.0.0.0:0", "172.30.0.1:80", "10.1.2.2"),
    ("[::]:0", "[fd00:172:30::1]:80", "fd00:10:1:2::2"),
    ("[::]:0", "[::ffff:172.30.0.1]:80", "10.1.2.2"),
];

/// The port of the endpoint that answered, and the source that it saw.
fn read(line: &[u8]) -> (u16, std::net::IpAddr) {
    let (port, saw) = std::str::from_utf8(line).unwrap().split_once(' ').unwrap();
    (port.parse().unwrap(), saw.parse().unwrap())
}

fn ask(socket: &UdpSocket, to: SocketAddr) -> (u16, std::net::IpAddr) {
    let mut line = [0; 64];
    socket.send_to(b"?", to).unwrap();
    let (length, from) = socket.recv_from(&mut line).unwrap();
    assert_eq!(from, to, "the answer comes from whom it was asked of");
    read(&line[..length])
}

/// A socket that is not connected; each keeps its endpoint. No rule has a part in it.
#[test]
fn datagrams_go_to_an_endpoint_at_once() {
    isolated!(datagrams_go_to_an_endpoint_at_once, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        bed.flush_rules();
        for (any, vip, source) in VIPS {
            let socket = bed.datagrams(true, any);
            let before = ask(&socket, at(vip));
            assert_eq!(before.1.to_canonical(), ip(source));
            for _ in 0..10 {
                assert_eq!(ask(&socket, at(vip)), before, "{vip}");
            }
        }
        assert_eq!(bed.outcomes().connected, 3, "one flow each");
        let host = bed.datagrams(false, "0.0.0.0:0");
        assert_eq!(ask(&host, at(VIPS[0].1)).1, ip("10.1.1.1"));
        let one = |_| ask(&bed.datagrams(true, "0.0.0.0:0"), at(VIPS[0].1)).0;
        let mut seen: Vec<u16> = (0..40).map(one).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [8080, 8081], "both endpoints get flows");
    });
}

#[test]
fn a_socket_that_is_connected_is_at_an_endpoint() {
    isolated!(a_socket_that_is_connected_is_at_an_endpoint, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        bed.flush_rules();
        for (any, vip, source) in [VIPS; 4].concat() {
            let socket = bed.datagrams(true, any);
            ask(&socket, at(vip));
            socket.connect(at(vip)).unwrap();
            assert_eq!(socket.peer_addr().unwrap(), at(vip));
            socket.send(b"?").unwrap();
            let mut line = [0; 64];
            let (length, from) = socket.recv_from(&mut line).unwrap();
            assert_eq!(from, at(vip));
            let answer = read(&line[..length]);
            assert_eq!(answer.1.to_canonical(), ip(source));
            // Whoever says again where it sends gets the same endpoint: it hears nobody else.
            assert_eq!(ask(&socket, at(vip)), answer);
        }
    });
}

/// Two Services lead to one endpoint: only one of them can be told by the endpoint.
#[test]
fn answers_of_one_endpoint_for_two_services_are_told_apart() {
    isolated!(answers_of_one_endpoint_for_two_services_are_told_apart, {
        let Some(mut bed) = Bed::new() else { return };
        let both = [("web", "172.30.0.1"), ("other", "172.30.0.2")];
        for (name, vip) in both {
            let mut port = bed.named(name, Protocol::Udp);
            port.endpoints = port.endpoints[..1].into();
            port.cluster_ips = vec![ip(vip)];
            bed.set(port);
        }
        bed.stand();
        let socket = bed.datagrams(true, "0.0.0.0:0");
        for _ in 0..3 {
            for (_, vip) in both {
                assert_eq!(ask(&socket, SocketAddr::new(ip(vip), 80)).0, 8080);
            }
        }
        assert_eq!(bed.outcomes().connected, 1);
    });
}

/// R-STALE-1 at the socket.
#[test]
fn who_has_an_endpoint_that_is_gone_leaves_it() {
    isolated!(who_has_an_endpoint_that_is_gone_leaves_it, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        let [asking, calm] = [(); 2].map(|()| bed.datagrams(true, "0.0.0.0:0"));
        let vip = at(VIPS[0].1);
        let gone = ask(&asking, vip).0;
        let connected = bed.datagrams(true, "0.0.0.0:0");
        let lost = || {
            // Until it is at the same endpoint.
            loop {
                connected.connect(vip).unwrap();
                connected.send(b"?").unwrap();
                let mut line = [0; 64];
                let length = connected.recv(&mut line).unwrap();
                if read(&line[..length]).0 == gone {
                    return;
                }
            }
        };
        lost();
        let stays = loop {
            calm.connect(vip).unwrap();
            calm.send(b"?").unwrap();
            let mut line = [0; 64];
            let length = calm.recv(&mut line).unwrap();
            if read(&line[..length]).0 != gone {
                break read(&line[..length]).0;
            }
        };
        let mut web = bed.web_of(Protocol::Udp);
        let left = web.endpoints.iter().filter(|e| e.address.port() != gone);
        web.endpoints = left.cloned().collect();
        bed.set(ServicePort { ..web });
        bed.stand();
        let notes = bed.notes();
        let is_stale = |flow: &portolan_model::Flow| {
            assert_eq!((flow.destination, flow.protocol), (vip, Protocol::Udp));
            flow.replier.port() == gone
        };
        assert_eq!(notes.sweep(is_stale).unwrap(), 2, "one of each kind");
        assert_eq!(ask(&asking, vip).0, stays);
        // Its process is told, and may connect it anew.
        let told = connected.recv(&mut [0; 1]).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionAborted);
        connected.connect(vip).unwrap();
        connected.send(b"?").unwrap();
        let mut line = [0; 64];
        let length = connected.recv(&mut line).unwrap();
        assert_eq!(read(&line[..length]).0, stays);
        calm.send(b"?").unwrap();
        assert!(calm.recv(&mut line).is_ok());
        assert_eq!(notes.sweep(is_stale).unwrap(), 0);
    });
}

/// A socket that nobody could end is not connected by programs.
#[test]
fn where_sockets_cannot_be_ended_the_rules_do_it() {
    isolated!(where_sockets_cannot_be_ended_the_rules_do_it, {
        let Some(mut bed) = Bed::new() else { return };
        bed.set(bed.web_of(Protocol::Udp));
        bed.stand();
        assert_eq!(bed.notes().refresh().unwrap(), 3, "two pods and the node");
        bed.hide();
        assert_eq!(bed.notes().refresh().unwrap(), 2);
        let socket = bed.datagrams(true, "0.0.0.0:0");
        socket.connect(at(VIPS[0].1)).unwrap();
        socket.send(b"?").unwrap();
        assert!(socket.recv(&mut [0; 64]).is_ok());
        assert_eq!(bed.outcomes().connected, 0);
        // What needs no end is done.
        ask(&bed.datagrams(true, "0.0.0.0:0"), at(VIPS[0].1));
        assert_eq!(bed.outcomes().connected, 1);
    });
}
