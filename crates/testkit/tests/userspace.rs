//! Userspace mode with its real portal, where a scenario cannot say it.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests, which clippy sees only in functions with #[test].

use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU16;
use std::time::Duration;

use portolan_kernel::isolated;
use portolan_kernel::link::Route;
use portolan_kernel::topology::Host;
use portolan_model::{
    Backend, Endpoint, NodeFacts, PortKey, Protocol, ServiceName, ServicePort, Snapshot, Target,
};
use portolan_testkit::userspace;

/// How long an answer that must come may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn service(name: &str, vip: &str, endpoint: &str) -> ServicePort {
    let key = PortKey {
        service: ServiceName {
            namespace: "shop".into(),
            name: name.into(),
        },
        port: "dns".into(),
        protocol: Protocol::Udp,
    };
    let mut port = ServicePort::new(key, NonZeroU16::new(53).unwrap());
    port.cluster_ips = vec![vip.parse().unwrap()];
    port.endpoints = [Endpoint::ready(endpoint.parse().unwrap())].into();
    port
}

fn ask(client: &UdpSocket, to: &str) -> (String, SocketAddr) {
    client.send_to(b"?", (to, 53)).unwrap();
    let mut room = [0; 64];
    let (length, from) = client.recv_from(&mut room).unwrap();
    (String::from_utf8_lossy(&room[..length]).into_owned(), from)
}

/// Answers every datagram with the name of the server, until the test ends.
fn serve(at: &str) {
    let socket = UdpSocket::bind(at).unwrap();
    let name = at.to_owned();
    std::thread::spawn(move || {
        let mut room = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut room) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// All frontends lead to one door, so two flows of one socket would look alike to the relay; conntrack tells them apart.
#[test]
fn one_socket_talks_to_two_services() {
    isolated!(one_socket_talks_to_two_services, {
        let host = Host::new().unwrap();
        let mut links = host.links().unwrap();
        for address in ["192.168.0.11/32", "10.1.0.10/32", "10.1.0.11/32"] {
            links.add_address("lo", address.parse().unwrap()).unwrap();
        }
        let services = "172.30.0.0/16".parse().unwrap();
        links.set_route(&Route::dev(services, "lo")).unwrap();
        let mut target = userspace::open(&host.netns).unwrap();
        let mut snapshot = Snapshot::new(NodeFacts {
            addresses: ["192.168.0.11".parse().unwrap()].into(),
            ..NodeFacts::default()
        });
        snapshot.set(service("a", "172.30.0.1", "10.1.0.10:53"));
        snapshot.set(service("b", "172.30.0.2", "10.1.0.11:53"));
        let backend = userspace::backend();
        let (state, _) = backend.compile(&snapshot);
        target.apply(&backend.diff(None, &state)).unwrap();
        let work = || {
            serve("10.1.0.10:53");
            serve("10.1.0.11:53");
            let client = UdpSocket::bind("192.168.0.11:0").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            for _ in 0..3 {
                for (vip, endpoint) in [
                    ("172.30.0.1", "10.1.0.10:53"),
                    ("172.30.0.2", "10.1.0.11:53"),
                ] {
                    let (who, from) = ask(&client, vip);
                    assert_eq!(
                        (who.as_str(), from.to_string()),
                        (endpoint, format!("{vip}:53"))
                    );
                }
            }
        };
        host.run(work).unwrap();
    });
}
