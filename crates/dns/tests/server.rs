//! Servers on the loopback, with somebody behind them who answers by the first label of the name.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use base64::Engine as _;
use portolan_dns::server::{
    Answer, Bound, Client, Limits, Listener, Protocol, Server, Step, Transport, bind,
};
use portolan_dns::wire::{Builder, HEADER_BYTES, Name, Query, refuse, rtype};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tokio::sync::Semaphore;

/// Nobody waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers at once, but `late` when a permit is there, `never` never, `none` not at all, and `zone` as a transfer.
struct Scripted {
    late: Semaphore,
    asked_later: AtomicUsize,
}

fn first_label<'a>(query: &Query<'a>) -> &'a [u8] {
    let length = usize::from(query.name[0]);
    &query.name[1..=length]
}

/// One record: the address that was asked, so that a client can see what the server knows.
fn respond(query: &Query<'_>, client: &Client, out: &mut Vec<u8>) {
    let mut builder = Builder::new(query, out, client.bytes_max(query));
    let IpAddr::V4(local) = client.local else {
        panic!("{client:?} asked at IPv6");
    };
    builder.record(HEADER_BYTES, rtype::A, 7, &local.octets());
    builder.finish();
}

impl Answer for Scripted {
    fn at_once(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step {
        match first_label(query) {
            b"late" | b"never" => return Step::Later,
            b"none" => return Step::Drop,
            b"zone" if client.transport != Transport::Udp => {
                let query = Query {
                    edns: None,
                    ..*query
                }
                .unborrowed();
                return Step::Transfer(Box::new((0..300).map(move |_| {
                    let mut out = Vec::new();
                    let name = Name::parse(&"x".repeat(60)).unwrap();
                    refuse(&query.about(name.as_wire()), 0, &mut out);
                    out
                })));
            }
            _ => respond(query, client, out),
        }
        Step::Answered
    }

    async fn later(&self, request: Vec<u8>, client: Client) -> Option<Vec<u8>> {
        self.asked_later.fetch_add(1, SeqCst);
        let query = Query::read(&request).unwrap();
        if first_label(&query) == b"never" {
            std::future::pending::<()>().await;
        }
        self.late.acquire().await.unwrap().forget();
        let mut out = Vec::new();
        respond(&query, &client, &mut out);
        Some(out)
    }
}

struct Fixture {
    answer: Arc<Scripted>,
    address: SocketAddr,
    server: Option<Server>,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn new(address: &str, protocol: Protocol, limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(2)
            .build();
        let runtime = runtime.unwrap();
        let answer = Arc::new(Scripted {
            late: Semaphore::new(0),
            asked_later: AtomicUsize::new(0),
        });
        let address = address.parse().unwrap();
        let bound: Bound = bind(&[Listener { address, protocol }], 2).unwrap();
        let address = bound.addresses().next().unwrap();
        let server = bound
            .serve(Arc::clone(&answer), limits, runtime.handle())
            .unwrap();
        Fixture {
            answer,
            address,
            server: Some(server),
            runtime,
        }
    }

    fn plain(limits: Limits) -> Self {
        Fixture::new("127.0.0.1:0", Protocol::Plain, limits)
    }

    fn datagrams(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn wait_for_later(&self, count: usize) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.answer.asked_later.load(SeqCst) < count {
            assert!(std::time::Instant::now() < deadline, "{count} queries wait");
            std::thread::yield_now();
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop(Duration::ZERO));
        }
    }
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(Name::parse(name).unwrap().as_wire());
    message.extend_from_slice(&[0, 1, 0, 1]);
    message
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    framed
}

fn id_of(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn read_frame(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(prefix))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

#[test]
fn every_datagram_has_its_answer() {
    let fixture = Fixture::plain(Limits::default());
    let sockets: Vec<UdpSocket> = (0..8).map(|_| fixture.datagrams()).collect();
    for round in 0..50 {
        for socket in &sockets {
            socket.send(&query(round, "now.test")).unwrap();
        }
        for socket in &sockets {
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(id_of(&answer), round);
            assert_eq!(answer[length - 4..length], [127, 0, 0, 1]);
        }
    }
}

#[test]
fn what_is_no_query_is_refused_or_ignored() {
    let fixture = Fixture::plain(Limits::default());
    let socket = fixture.datagrams();
    let mut answer = [0; 512];
    socket.send(b"").unwrap();
    socket.send(b"short").unwrap();
    let mut of_server = query(1, "now.test");
    of_server[2] |= 0x80;
    socket.send(&of_server).unwrap();
    socket.send(&vec![0; 4000]).unwrap();
    socket.send(&query(2, "none.test")).unwrap();
    let mut empty = query(3, "now.test");
    empty[5] = 0;
    socket.send(&empty).unwrap();
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!((id_of(&answer), answer[3] & 15, length), (3, 1, 12));
    let mut future = query(4, "now.test");
    future[11] = 1;
    future.extend_from_slice(&[0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0]);
    socket.send(&future).unwrap();
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!((id_of(&answer), answer[3] & 15), (4, 0));
    assert_eq!(answer[length - 6], 1, "BADVERS is 16");
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let fixture = Fixture::new("0.0.0.0:0", Protocol::Plain, Limits::default());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for last in [2, 3, 4] {
        let to = SocketAddr::new(IpAddr::from([127, 0, 0, last]), fixture.address.port());
        for name in ["now.test", "late.test"] {
            fixture
                .answer
                .late
                .add_permits(usize::from(name == "late.test"));
            socket.send_to(&query(9, name), to).unwrap();
            let mut answer = [0; 512];
            let (length, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(from, to);
            assert_eq!(answer[length - 4..length], [127, 0, 0, last]);
        }
    }
}

#[test]
fn datagrams_wait_without_holding_up_others_and_up_to_a_limit() {
    let limits = Limits {
        waiting_max: 3,
        ..Limits::default()
    };
    let fixture = Fixture::plain(limits);
    let socket = fixture.datagrams();
    for id in 0..3 {
        socket.send(&query(id, "late.test")).unwrap();
    }
    fixture.wait_for_later(3);
    // The fourth finds no room, and the fifth needs none.
    socket.send(&query(3, "late.test")).unwrap();
    socket.send(&query(4, "now.test")).unwrap();
    let mut answer = [0; 512];
    socket.recv(&mut answer).unwrap();
    assert_eq!(id_of(&answer), 4);
    fixture.answer.late.add_permits(9);
    let mut late: Vec<u16> = (0..3)
        .map(|_| {
            socket.recv(&mut answer).unwrap();
            id_of(&answer)
        })
        .collect();
    late.sort_unstable();
    assert_eq!(late, [0, 1, 2]);
    assert_eq!(fixture.answer.asked_later.load(SeqCst), 3);
}

#[test]
fn queries_of_a_stream_overtake_one_that_waits() {
    let fixture = Fixture::plain(Limits::default());
    let mut stream = fixture.stream();
    let mut all = framed(&query(1, "late.test"));
    (2..100).for_each(|id| all.extend(framed(&query(id, "now.test"))));
    // In pieces that have nothing to do with messages.
    for piece in all.chunks(7) {
        stream.write_all(piece).unwrap();
    }
    for id in 2..100 {
        assert_eq!(id_of(&read_frame(&mut stream).unwrap()), id);
    }
    // The client says that it asks no more, and waits still.
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    fixture.answer.late.add_permits(1);
    assert_eq!(id_of(&read_frame(&mut stream).unwrap()), 1);
    assert!(read_frame(&mut stream).is_err(), "the stream ends");
}

#[test]
fn a_stream_waits_for_so_many_answers_at_once() {
    let limits = Limits {
        pipelined_max: 2,
        ..Limits::default()
    };
    let fixture = Fixture::plain(limits);
    let mut stream = fixture.stream();
    for id in 0..6 {
        stream.write_all(&framed(&query(id, "late.test"))).unwrap();
    }
    fixture.wait_for_later(2);
    fixture.answer.late.add_permits(6);
    let mut ids: Vec<u16> = (0..6)
        .map(|_| id_of(&read_frame(&mut stream).unwrap()))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
}

#[test]
fn there_are_so_many_streams_and_silent_ones_make_room() {
    let limits = Limits {
        streams_max: 2,
        idle: Duration::from_secs(2),
        ..Limits::default()
    };
    let fixture = Fixture::plain(limits);
    let ask = |stream: &mut TcpStream| {
        let _ = stream.write_all(&framed(&query(5, "now.test")));
        read_frame(stream)
    };
    let (mut first, mut second) = (fixture.stream(), fixture.stream());
    ask(&mut first).unwrap();
    ask(&mut second).unwrap();
    assert!(
        ask(&mut fixture.stream()).is_err(),
        "there is no room for a third"
    );
    // Half a query is none: nobody stays by dripping.
    let _ = first.write_all(&[0]);
    assert!(read_frame(&mut first).is_err(), "closed after some time");
    assert!(read_frame(&mut second).is_err());
    let deadline = std::time::Instant::now() + PATIENCE;
    while ask(&mut fixture.stream()).is_err() {
        assert!(std::time::Instant::now() < deadline, "there is room again");
    }
}

#[test]
fn a_client_that_takes_no_answers_has_gone_away() {
    let limits = Limits {
        write: Duration::from_millis(200),
        idle: PATIENCE * 2,
        ..Limits::default()
    };
    let fixture = Fixture::plain(limits);
    let mut stream = fixture.stream();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let many = framed(&query(1, "now.test")).repeat(1000);
    // Its answers fill what lies between us, and then nobody reads what it asks.
    let error = loop {
        if let Err(error) = stream.write_all(&many) {
            break error;
        }
    };
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    assert!(
        matches!(error.kind(), BrokenPipe | ConnectionReset),
        "the server hangs up: {error}"
    );
}

#[test]
fn a_transfer_has_many_messages() {
    let fixture = Fixture::plain(Limits::default());
    let mut stream = fixture.stream();
    stream.write_all(&framed(&query(6, "zone.test"))).unwrap();
    stream.write_all(&framed(&query(7, "now.test"))).unwrap();
    for _ in 0..300 {
        assert_eq!(id_of(&read_frame(&mut stream).unwrap()), 6);
    }
    assert_eq!(id_of(&read_frame(&mut stream).unwrap()), 7);
}

#[test]
fn an_end_with_grace_answers_what_was_asked() {
    let mut fixture = Fixture::plain(Limits::default());
    let (socket, mut stream) = (fixture.datagrams(), fixture.stream());
    socket.send(&query(1, "late.test")).unwrap();
    stream.write_all(&framed(&query(2, "late.test"))).unwrap();
    socket.send(&query(3, "never.test")).unwrap();
    fixture.wait_for_later(3);
    fixture.answer.late.add_permits(2);
    let server = fixture.server.take().unwrap();
    fixture
        .runtime
        .block_on(server.stop(Duration::from_secs(1)));
    let mut answer = [0; 512];
    socket.recv(&mut answer).unwrap();
    assert_eq!(id_of(&answer), 1);
    assert_eq!(id_of(&read_frame(&mut stream).unwrap()), 2);
    TcpStream::connect(fixture.address).expect_err("nobody listens");
}

fn certificates() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["dns.test".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider());
    let server = server.with_safe_default_protocol_versions().unwrap();
    let server = server
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder_with_provider(provider());
    let client = client.with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server.unwrap()), Arc::new(client))
}

fn encrypted(
    fixture: &Fixture,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("dns.test").unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    StreamOwned::new(connection, fixture.stream())
}

#[test]
fn streams_in_tls() {
    let (server, client) = certificates();
    let fixture = Fixture::new("127.0.0.1:0", Protocol::Tls(server), Limits::default());
    let mut stream = encrypted(&fixture, client);
    for id in 0..20 {
        stream.write_all(&framed(&query(id, "now.test"))).unwrap();
        assert_eq!(id_of(&read_frame(&mut stream).unwrap()), id);
    }
}

#[test]
fn requests_of_https() {
    let (server, client) = certificates();
    let fixture = Fixture::new("127.0.0.1:0", Protocol::Https(server), Limits::default());
    let mut stream = encrypted(&fixture, client);
    let mut request = |head: String, body: &[u8]| {
        stream
            .write_all(
                format!(
                    "{head}\r\nhost: dns.test\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                )
                .as_bytes(),
            )
            .unwrap();
        stream.write_all(body).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        (head, body)
    };
    let asked = query(0, "now.test");
    let kind = "content-type: application/dns-message";
    let (head, body) = request(format!("POST /dns-query HTTP/1.1\r\n{kind}"), &asked);
    assert!(
        head.contains("200 ok") && head.contains(kind) && head.contains("max-age=7"),
        "{head}"
    );
    assert_eq!(body[body.len() - 4..], [127, 0, 0, 1]);
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&asked);
    let (head, again) = request(format!("GET /dns-query?dns={text} HTTP/1.1"), b"");
    assert!(head.contains("200 ok"));
    assert_eq!(again, body);
    fixture.answer.late.add_permits(1);
    let (head, _) = request(
        format!("POST /dns-query HTTP/1.1\r\n{kind}"),
        &query(0, "late.test"),
    );
    assert!(head.contains("200 ok"));
    for (wrong, status) in [
        ("GET / HTTP/1.1".to_owned(), "404"),
        ("GET /dns-query HTTP/1.1".to_owned(), "400"),
        ("GET /dns-query?dns=!! HTTP/1.1".to_owned(), "400"),
        (
            format!("GET /dns-query?dns={} HTTP/1.1", "A".repeat(3000)),
            "414",
        ),
        ("PUT /dns-query HTTP/1.1".to_owned(), "405"),
        ("POST /dns-query HTTP/1.1".to_owned(), "415"),
    ] {
        assert!(request(wrong.clone(), b"").0.contains(status), "{wrong}");
    }
    let (head, _) = request(format!("POST /dns-query HTTP/1.1\r\n{kind}"), &[0; 2000]);
    assert!(head.contains("413"));
}
