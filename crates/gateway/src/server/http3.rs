//! HTTP/3 (RFC 9114): the same requests, by QUIC.
//!
//! ```text
//!   UDP socket ─▶ quinn: connections, TLS 1.3 ─▶ h3: streams ─▶ request::checked ─▶ connection::answer, as for all
//! ```
//!
//! One thread has all of it, because the packets of one connection must all come to one place, also after its client has
//! got another address. Nobody is served before its handshake is over: what comes earlier (0-RTT) could be played again.

mod body;
mod request;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use h3::server::{Connection, RequestResolver};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Incoming, TransportConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::Live;
use super::certificate;
use super::connection::Shared;
use super::limits::{
    BIND_PAUSE, CONNECTION_WINDOW, HANDSHAKES_TRUSTED_MAX, HANDSHAKES_WAITING_BYTES_MAX,
    HANDSHAKES_WAITING_MAX, HEAD_BYTES_MAX, Limits, PARTING_TIMEOUT, SEND_BYTES_MAX, STREAM_WINDOW,
    STREAMS_MAX, STREAMS_OF_CLIENT_MAX,
};
use super::request::Peer;
use crate::tally::Seat;

/// `H3_NO_ERROR` (RFC 9114 section 8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Where to serve.
pub(super) enum Door {
    /// At a socket that is ours.
    Open(UdpSocket),
    /// At this address, as soon as the gateway before us is gone: two of them cannot share the packets of connections.
    Later(SocketAddr),
}

/// Takes an address.
pub(super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Serves until the server stops; what is under way then is waited for by whoever has called.
pub(super) async fn serve(shared: Rc<Shared>, door: Door) {
    let socket = match door {
        Door::Open(socket) => socket,
        Door::Later(address) => match freed(&shared, address).await {
            Some(socket) => socket,
            None => return,
        },
    };
    let endpoint = match open(&shared, socket) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            tracing::error!(%error, "HTTP/3 is not served");
            return;
        }
    };
    take(&shared, &endpoint).await;
    shared.tracker.close();
    let drained = timeout(shared.worker.settings.drain_timeout, shared.tracker.wait());
    // Whoever has called says so when it takes too long.
    let _ = drained.await;
    endpoint.close(NO_ERROR, b"");
    let _ = timeout(PARTING_TIMEOUT, endpoint.wait_idle()).await;
}

/// Waits until the address is free; `None` when the server stops before.
async fn freed(shared: &Rc<Shared>, address: SocketAddr) -> Option<UdpSocket> {
    let mut told = None;
    loop {
        match bind(address) {
            Ok(socket) => {
                tracing::info!(%address, "HTTP/3 is served");
                return Some(socket);
            }
            Err(error) if told != Some(error.kind()) => {
                told = Some(error.kind());
                tracing::info!(%address, %error, "HTTP/3 waits for its address");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(BIND_PAUSE) => {}
            () = shared.worker.stop.cancelled() => return None,
        }
    }
}

fn open(shared: &Rc<Shared>, socket: UdpSocket) -> Result<Endpoint, String> {
    let words = |error: io::Error| error.to_string();
    let config = config(&shared.worker.live, &shared.worker.settings.limits)?;
    socket.set_nonblocking(true).map_err(words)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime).map_err(words)
}

fn config(live: &Arc<ArcSwap<Live>>, limits: &Limits) -> Result<quinn::ServerConfig, String> {
    let tls = certificate::quic(Arc::clone(live))?;
    let tls = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config
        .max_incoming(HANDSHAKES_WAITING_MAX)
        .incoming_buffer_size_total(HANDSHAKES_WAITING_BYTES_MAX)
        .transport_config(Arc::new(transport(limits)));
    Ok(config)
}

fn transport(limits: &Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(limits.head_timeout).ok();
    transport
        .max_idle_timeout(idle)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_OF_CLIENT_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_BYTES_MAX as u64)
        .datagram_receive_buffer_size(None);
    transport
}

/// Takes connections until the server stops. A gateway that only rests goes on: nobody else can have this socket yet.
async fn take(shared: &Rc<Shared>, endpoint: &Endpoint) {
    let stop = &shared.worker.stop;
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&shared.room).acquire_owned() => permit.ok(),
            () = stop.cancelled() => return,
        };
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stop.cancelled() => return,
        };
        let Some(incoming) = incoming else {
            return;
        };
        if endpoint.open_connections() > HANDSHAKES_TRUSTED_MAX && incoming.may_retry() {
            // It shows first that its address is its own; who has lied about it never hears of this.
            drop(incoming.retry());
            continue;
        }
        let seat = (permit, shared.ledger.borrow().connected());
        let port = endpoint.local_addr().map_or(0, |local| local.port());
        let for_task = Rc::clone(shared);
        let task = async move { connection(&for_task, incoming, port, seat).await };
        tokio::task::spawn_local(shared.tracker.track_future(task));
    }
}

/// A client, from its handshake to the last of its requests.
async fn connection(
    shared: &Rc<Shared>,
    incoming: Incoming,
    port: u16,
    seat: (Option<OwnedSemaphorePermit>, Seat),
) {
    let client = incoming.remote_address();
    let handshake = async {
        let quic = incoming.accept().map_err(words)?.await.map_err(words)?;
        let mut builder = h3::server::builder();
        builder.max_field_section_size(HEAD_BYTES_MAX as u64);
        let http = builder.build(h3_quinn::Connection::new(quic.clone()));
        Ok::<_, String>((quic, http.await.map_err(words)?))
    };
    let opened = tokio::select! {
        opened = timeout(shared.worker.settings.limits.handshake_timeout, handshake) => opened,
        () = shared.worker.stop.cancelled() => return,
    };
    let (quic, http) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return tracing::debug!(%client, %error, "a connection was given up"),
        Err(error) => return tracing::debug!(%client, %error, "a connection was given up"),
    };
    let client = Client {
        server_name: server_name(&quic),
        quic,
        port,
        _seat: seat,
    };
    let told = client.quic.remote_address();
    if let Err(error) = requests(shared, &Rc::new(client), http).await {
        tracing::debug!(client = %told, %error, "connection of a client");
    }
}

/// Takes the requests of a connection. When the server stops, its client is told to send no more of them, and has some
/// time to get the last answer.
async fn requests(
    shared: &Rc<Shared>,
    client: &Rc<Client>,
    mut http: Connection<h3_quinn::Connection, Bytes>,
) -> Result<(), h3::error::ConnectionError> {
    // A stream that its client resets makes room for another one at once, and we are still busy with the first.
    let room = Arc::new(Semaphore::new(STREAMS_MAX as usize));
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, http.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            next = next => next,
            () = shared.worker.stop.cancelled() => break,
        };
        let Some(resolver) = accepted? else {
            return Ok(());
        };
        let (for_task, client) = (Rc::clone(shared), Rc::clone(client));
        let task = async move {
            exchange(for_task, &client, resolver).await;
            drop(permit);
        };
        tokio::task::spawn_local(shared.tracker.track_future(task));
    }
    http.shutdown(0).await?;
    let answered = async {
        let _all = room.acquire_many(STREAMS_MAX).await;
        tokio::time::sleep(PARTING_TIMEOUT).await;
    };
    let mut answered = std::pin::pin!(answered);
    loop {
        tokio::select! {
            // Nothing that comes now is served; a client that goes by itself needs no more time.
            accepted = http.accept() => match accepted? {
                Some(late) => drop(late),
                None => return Ok(()),
            },
            () = answered.as_mut() => return Ok(()),
        }
    }
}

/// One request and its answer.
async fn exchange(
    shared: Rc<Shared>,
    client: &Client,
    resolver: RequestResolver<h3_quinn::Connection, Bytes>,
) {
    let limits = shared.worker.settings.limits;
    let peer = Rc::new(client.peer());
    if let Err(error) = request::exchange(shared, Rc::clone(&peer), resolver, &limits).await {
        tracing::debug!(client = %peer.client, error, "a request by HTTP/3 has ended early");
    }
}

/// Who has connected.
struct Client {
    quic: quinn::Connection,
    server_name: Option<Box<str>>,
    /// The port that it has connected to.
    port: u16,
    /// It counts as a connection as long as it has a request.
    _seat: (Option<OwnedSemaphorePermit>, Seat),
}

impl Client {
    /// As it is now: a client may move to another address, and is then whoever has that one.
    fn peer(&self) -> Peer {
        let client = self.quic.remote_address();
        let local = self.quic.local_ip().unwrap_or(match client {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        });
        let mut peer = Peer::new(client, SocketAddr::new(local, self.port), true);
        peer.server_name.clone_from(&self.server_name);
        peer
    }
}

fn server_name(quic: &quinn::Connection) -> Option<Box<str>> {
    let data = quic.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.server_name.map(String::into_boxed_str)
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What clients of TLS are told: the same is served by QUIC at this port (RFC 7838).
pub(super) fn advertisement(port: u16) -> http::HeaderValue {
    const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
    let text = format!("h3=\":{port}\"; ma={}", FRESH.as_secs());
    http::HeaderValue::try_from(text).unwrap_or_else(|_| http::HeaderValue::from_static("clear"))
}
