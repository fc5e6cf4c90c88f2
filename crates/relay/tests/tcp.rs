//! TCP through the relay, on the loopback.
#![allow(clippy::unwrap_used)] // Helpers of tests are tests, which clippy sees only in functions with #[test].

mod support;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use portolan_model::{Affinity, Protocol};
use portolan_relay::Limits;
use support::{PATIENCE, World, read_line, refusing, server, servers, wait_until};

fn world(endpoints: &[SocketAddr]) -> World {
    World::new(Protocol::Tcp, Limits::default(), endpoints)
}

fn affinity() -> Option<Affinity> {
    let timeout = Duration::from_secs(100);
    Some(Affinity { timeout })
}

#[test]
fn everybody_gets_a_turn() {
    let world = world(&servers(3));
    let mut seen = BTreeMap::new();
    for _ in 0..12 {
        *seen.entry(world.ask().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [4, 4, 4]);
    wait_until("all are counted as ended", || {
        world.count(|counts| counts.connections_open.now()) == 0
    });
    assert_eq!(world.count(|counts| counts.connections.now()), 12);
}

#[test]
fn who_refuses_is_passed_over() {
    let alive = servers(1)[0];
    let [(_one, one), (_two, two)] = [Protocol::Tcp; 2].map(refusing);
    let world = world(&[alive, one, two]);
    for _ in 0..6 {
        assert_eq!(world.ask(), Some(alive));
    }
    assert!(world.count(|counts| counts.dial_failures.now()) >= 6);
    assert_eq!(world.count(|counts| counts.unreachable.now()), 0);
}

/// A listener whose backlog is full answers no SYN: to the relay it is as silent as a node that is gone.
fn silent() -> (socket2::Socket, Vec<TcpStream>, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let here = socket.local_addr().unwrap().as_socket().unwrap();
    let patience = Duration::from_millis(300);
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&here, patience) {
        waiting.push(stream);
    }
    (socket, waiting, here)
}

/// Who watches endpoints hears of every try, also of those that fail, and where to look for what became of it.
#[test]
fn every_try_is_told() {
    let (_refusing, one) = refusing(Protocol::Tcp);
    let two = server(|mut stream: TcpStream| {
        let peer = stream.peer_addr().unwrap().to_string();
        drop(stream.write_all(peer.as_bytes()));
    });
    let world = world(&[one, two]);
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    world.relay.tell_dials(tell);
    let came_from = [world.ask(), world.ask()];
    let mut reached = Vec::new();
    while let Ok(dial) = told.try_recv() {
        assert_eq!(dial.frontend.to_string(), support::VIP);
        if dial.endpoint == two {
            reached.push(Some(dial.source));
        }
    }
    assert_eq!(reached, came_from);
    assert!(told.is_empty() && world.count(|counts| counts.dial_failures.now()) >= 1);
}

#[test]
fn who_is_silent_is_passed_over() {
    let (_socket, _waiting, silent) = silent();
    let alive = servers(1)[0];
    let world = world(&[alive, silent]);
    assert_eq!([world.ask(), world.ask()], [Some(alive), Some(alive)]);
    assert!(world.count(|counts| counts.dial_failures.now()) >= 1);
}

#[test]
fn when_nobody_answers_the_client_is_reset() {
    let [(_one, one), (_two, two)] = [Protocol::Tcp; 2].map(refusing);
    let world = world(&[one, two]);
    assert_eq!(world.ask(), None);
    assert_eq!(world.count(|counts| counts.unreachable.now()), 1);
    assert_eq!(world.count(|counts| counts.dial_failures.now()), 4);
}

#[test]
fn where_no_service_is_the_client_is_reset() {
    let mut world = world(&servers(1));
    world.set(&[], None);
    assert_eq!(world.ask(), None);
}

#[test]
fn a_client_that_has_said_everything_gets_the_whole_answer() {
    let reverse = |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    };
    let world = world(&[server(reverse)]);
    let mut sent: Vec<u8> = (0..5_000_000u32)
        .map(|number| (number >> 3) as u8)
        .collect();
    let mut stream = world.connect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    sent.reverse();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    let moved = [
        world.count(|counts| counts.bytes_in.now()),
        world.count(|counts| counts.bytes_out.now()),
    ];
    assert_eq!(moved, [5_000_000; 2]);
}

#[test]
fn a_reset_of_the_server_is_one_for_the_client() {
    let hang_up = |stream: TcpStream| {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    };
    let world = world(&[server(hang_up)]);
    let ended = world.connect().read(&mut [0]);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_of_the_client_is_one_for_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let world = world(&[listener.local_addr().unwrap()]);
    // Also after the client has said that nothing more comes.
    for half_closed in [false, true] {
        let client = world.connect();
        let (mut server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        if half_closed {
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        }
        let socket = socket2::SockRef::from(&client);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        wait_until("the server notices", || {
            let read = server.read(&mut [0]);
            let failed = read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
            failed || server.write(b"?").is_err()
        });
    }
}

#[test]
fn a_client_keeps_its_endpoint() {
    let all = servers(3);
    let mut world = world(&all);
    world.set(&all, affinity());
    let first = world.ask().unwrap();
    assert!((0..8).all(|_| world.ask() == Some(first)));
    let others: Vec<SocketAddr> = all.iter().copied().filter(|to| *to != first).collect();
    world.set(&others, affinity());
    let second = world.ask().unwrap();
    assert_ne!(second, first);
    world.set(&all, affinity());
    assert!((0..8).all(|_| world.ask() == Some(second)));
}

#[test]
fn an_endpoint_that_fails_loses_its_clients() {
    let [(_one, one), (_two, two)] = [Protocol::Tcp; 2].map(refusing);
    let all = [servers(1)[0], one, two];
    let mut world = world(&all);
    world.set(&all, affinity());
    assert_eq!(world.ask(), Some(all[0]));
    assert_eq!(world.ask(), Some(all[0]));
    // Whoever was tried first: the one that answered is remembered, and nobody else is tried for the second flow.
    let failures = world.count(|counts| counts.dial_failures.now());
    assert_eq!(world.ask(), Some(all[0]));
    assert_eq!(world.count(|counts| counts.dial_failures.now()), failures);
}

#[test]
fn a_full_service_turns_clients_away_until_one_goes() {
    let limits = Limits {
        connections_per_port_max: 2,
        ..Limits::default()
    };
    let hold = |mut stream: TcpStream| drop(stream.read(&mut [0]));
    let world = World::new(Protocol::Tcp, limits, &[server(hold)]);
    let mut held = vec![world.connect(), world.connect()];
    wait_until("both are there", || {
        world.count(|counts| counts.connections.now()) == 2
    });
    assert_eq!(read_line(&mut world.connect()), None);
    assert_eq!(world.count(|counts| counts.limited.now()), 1);
    held.pop();
    wait_until("one has gone", || {
        world.count(|counts| counts.connections_open.now()) == 1
    });
    held.push(world.connect());
    wait_until("another one is there", || {
        world.count(|counts| counts.connections.now()) == 3
    });
}

#[test]
fn a_full_relay_turns_clients_away() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let hold = |mut stream: TcpStream| drop(stream.read(&mut [0]));
    let world = World::new(Protocol::Tcp, limits, &[server(hold)]);
    let _held = world.connect();
    wait_until("it is there", || {
        world.count(|counts| counts.connections.now()) == 1
    });
    assert_eq!(read_line(&mut world.connect()), None);
}

#[test]
fn a_relay_that_ends_lets_connections_come_to_their_end() {
    let echo = |mut stream: TcpStream| {
        let mut room = [0; 8];
        while let Ok(length @ 1..) = stream.read(&mut room) {
            stream.write_all(&room[..length]).unwrap();
        }
    };
    let world = world(&[server(echo)]);
    let mut client = world.connect();
    let mut say = |word: &[u8; 4]| {
        client.write_all(word).unwrap();
        let mut room = [0; 4];
        client.read_exact(&mut room).unwrap();
        assert_eq!(&room, word);
    };
    say(b"here");
    let (door, relay) = (world.door, world.relay);
    let draining = std::thread::spawn(move || relay.drain());
    wait_until("the door is closed", || TcpStream::connect(door).is_err());
    say(b"more");
    drop(client);
    draining.join().unwrap();
}
