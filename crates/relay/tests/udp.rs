//! UDP through the relay, on the loopback.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests, which clippy sees only in functions with #[test].

mod support;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use portolan_model::Protocol;
use portolan_relay::{DatagramLimits, Limits};
use support::{PATIENCE, World, refusing, udp_servers, wait_until};

fn world(endpoints: &[SocketAddr]) -> World {
    World::new(Protocol::Udp, Limits::default(), endpoints)
}

fn client(world: &World) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(world.door).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Says something and returns who answers; the answer must be to what was said.
fn ask(client: &UdpSocket, word: &[u8]) -> SocketAddr {
    client.send(word).unwrap();
    let mut room = vec![0; 65_535];
    let length = client.recv(&mut room).unwrap();
    let answer = &room[..length];
    let space = answer.iter().position(|byte| *byte == b' ').unwrap();
    assert_eq!(&answer[space + 1..], word);
    String::from_utf8_lossy(&answer[..space]).parse().unwrap()
}

#[test]
fn every_client_has_its_endpoint_and_gets_its_answers() {
    let world = world(&udp_servers(3));
    let clients: Vec<UdpSocket> = (0..6).map(|_| client(&world)).collect();
    let first: Vec<SocketAddr> = clients.iter().map(|client| ask(client, b"one")).collect();
    let again: Vec<SocketAddr> = clients.iter().map(|client| ask(client, b"two")).collect();
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_eq!(world.count(|counts| counts.sessions_open.now()), 6);
}

#[test]
fn datagrams_of_all_sizes_pass_whole() {
    let world = world(&udp_servers(1));
    let client = client(&world);
    for length in [0, 1, 1472, 9000, 60_000] {
        let word = vec![7; length];
        ask(&client, &word);
    }
}

#[test]
fn more_than_a_batch_at_once() {
    let world = world(&udp_servers(1));
    let client = client(&world);
    for number in 0..100u8 {
        client.send(&[number]).unwrap();
    }
    let mut room = [0; 64];
    let got: BTreeSet<u8> = (0..100)
        .map(|_| {
            let length = client.recv(&mut room).unwrap();
            room[length - 1]
        })
        .collect();
    assert_eq!(got.len(), 100);
}

#[test]
fn an_endpoint_that_refuses_loses_its_client() {
    let alive = udp_servers(1)[0];
    let (_held, refusing) = refusing(Protocol::Udp);
    let world = world(&[alive, refusing]);
    for _ in 0..4 {
        let client = client(&world);
        let mut room = [0; 64];
        client.set_nonblocking(true).unwrap();
        wait_until("the living one answers", || {
            // A datagram to the one that refuses is lost: UDP's clients ask again.
            let _ = client.send(b"?");
            client.recv(&mut room).is_ok()
        });
    }
    assert!(world.count(|counts| counts.dial_failures.now()) > 0);
}

#[test]
fn a_client_of_an_endpoint_that_is_gone_begins_anew() {
    let all = udp_servers(2);
    let mut world = world(&all);
    let client = client(&world);
    let first = ask(&client, b"one");
    let other = all.iter().copied().find(|to| *to != first).unwrap();
    world.set(&[other], None);
    assert_eq!(ask(&client, b"two"), other);
    world.set(&all, None);
    assert_eq!(ask(&client, b"three"), other);
}

#[test]
fn the_client_that_was_silent_for_longest_makes_room() {
    let limits = Limits {
        datagrams: DatagramLimits {
            sessions_max: 100,
            sessions_per_port_max: 2,
        },
        ..Limits::default()
    };
    let world = World::new(Protocol::Udp, limits, &udp_servers(1));
    let clients: Vec<UdpSocket> = (0..3).map(|_| client(&world)).collect();
    ask(&clients[0], b"a");
    ask(&clients[1], b"b");
    ask(&clients[2], b"c");
    wait_until("one has made room", || {
        world.count(|counts| counts.sessions_open.now()) == 2
    });
    assert_eq!(world.count(|counts| counts.evicted.now()), 1);
    // Whoever comes back is met anew.
    ask(&clients[0], b"d");
    assert_eq!(world.count(|counts| counts.sessions.now()), 4);
}

#[test]
fn a_full_relay_knows_no_more_clients_than_it_may() {
    let limits = Limits {
        datagrams: DatagramLimits {
            sessions_max: 2,
            sessions_per_port_max: 100,
        },
        ..Limits::default()
    };
    let world = World::new(Protocol::Udp, limits, &udp_servers(1));
    let clients: Vec<UdpSocket> = (0..4).map(|_| client(&world)).collect();
    clients.iter().for_each(|client| {
        ask(client, b"?");
    });
    wait_until("two have made room", || {
        world.count(|counts| counts.sessions_open.now()) == 2
    });
    assert_eq!(world.count(|counts| counts.evicted.now()), 2);
}
