//! Sockets first, which may need privileges, and then whoever serves them.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::limits::{BACKLOG, DATAGRAM_BUFFER_BYTES, LOOK_INTERVAL};
use super::udp::{self, Shared};
use super::{Answer, Limits, tcp};

/// What is spoken at an address.
#[derive(Clone)]
pub enum Protocol {
    /// UDP and TCP.
    Plain,
    /// DNS over TLS (RFC 7858).
    Tls(Arc<ServerConfig>),
    /// DNS over HTTPS (RFC 8484), HTTP/1.1 and HTTP/2.
    Https(Arc<ServerConfig>),
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Plain => "UDP and TCP",
            Protocol::Tls(_) => "TLS",
            Protocol::Https(_) => "HTTPS",
        })
    }
}

/// Where to listen. `[::]` means IPv6 only: listen at `0.0.0.0`, too, for both.
#[derive(Clone)]
pub struct Listener {
    /// Port 0 takes one that is free.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// Why nobody can listen somewhere.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} ({protocol}): {error}")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// `UDP and TCP`, `TLS` or `HTTPS`.
    pub protocol: String,
    /// The kernel's words.
    #[source]
    pub error: io::Error,
}

/// Sockets that are open, and nobody serves them yet.
pub struct Bound(Vec<Sockets>);

struct Sockets {
    address: SocketAddr,
    protocol: Protocol,
    /// One for each thread.
    datagrams: Vec<UdpSocket>,
    streams: TcpListener,
}

/// Opens all sockets, or none. UDP has `threads` of them at each address.
pub fn bind(listeners: &[Listener], threads: usize) -> Result<Bound, ListenError> {
    let sockets = listeners.iter().map(|listener| {
        open(listener, threads.max(1)).map_err(|error| ListenError {
            address: listener.address,
            protocol: listener.protocol.to_string(),
            error,
        })
    });
    sockets.collect::<Result<_, _>>().map(Bound)
}

/// Tries for a port that is free for both UDP and TCP, where any will do.
const FREE_PORT_TRIES: usize = 16;

fn open(listener: &Listener, threads: usize) -> io::Result<Sockets> {
    let mut tries = FREE_PORT_TRIES;
    loop {
        let opened = open_once(listener, threads);
        tries -= 1;
        match opened {
            Err(error)
                if listener.address.port() == 0
                    && tries > 0
                    && error.kind() == io::ErrorKind::AddrInUse => {}
            opened => return opened,
        }
    }
}

fn open_once(listener: &Listener, threads: usize) -> io::Result<Sockets> {
    let streams = open_stream(listener.address)?;
    let address = streams.local_addr()?;
    let datagrams = match listener.protocol {
        Protocol::Plain => (0..threads).map(|_| open_datagram(address)).collect(),
        Protocol::Tls(_) | Protocol::Https(_) => Ok(Vec::new()),
    };
    Ok(Sockets {
        address,
        protocol: listener.protocol.clone(),
        datagrams: datagrams?,
        streams,
    })
}

fn open_stream(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    only_v6(&socket, address)?;
    // A process that follows another one listens at once, while connections of before are still waiting for their end,
    // and beside it, as with datagrams: when one of the two ends the other one goes on.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open_datagram(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    only_v6(&socket, address)?;
    socket.set_reuse_port(true)?;
    // The kernel gives what it allows.
    let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
    socket.set_read_timeout(Some(LOOK_INTERVAL))?;
    if address.ip().is_unspecified() {
        match address {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        }
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

fn only_v6(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => Ok(()),
        SocketAddr::V6(_) => socket.set_only_v6(true),
    }
}

impl Bound {
    /// Where it is listened, with the ports that were taken.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|sockets| sockets.address)
    }

    /// Serves all sockets with `answer`. Tasks run in `runtime`, datagrams are taken on threads of their own.
    pub fn serve<A: Answer>(
        self,
        answer: Arc<A>,
        limits: Limits,
        runtime: &Handle,
    ) -> io::Result<Server> {
        let shared = Arc::new(Shared {
            answer,
            limits,
            runtime: runtime.clone(),
            tasks: TaskTracker::new(),
            waiting: Default::default(),
            closed: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let mut server = Server {
            threads: Vec::new(),
            tasks: shared.tasks.clone(),
            closed: shared.closed.clone(),
            abort: shared.abort.clone(),
        };
        let streams = Arc::new(tcp::Streams::new(limits));
        for sockets in self.0 {
            for socket in sockets.datagrams {
                let shared = Arc::clone(&shared);
                let name = "dns-udp".to_owned();
                let thread = std::thread::Builder::new().name(name);
                let thread = thread.spawn(move || {
                    if let Err(error) = udp::serve(&shared, socket) {
                        tracing::error!(%error, "a UDP socket failed; its thread ends");
                    }
                })?;
                server.threads.push(thread);
            }
            let _inside = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(sockets.streams)?;
            let (shared, streams) = (Arc::clone(&shared), Arc::clone(&streams));
            let accepting = tcp::accept(shared, streams, listener, sockets.protocol);
            server.tasks.spawn_on(accepting, runtime);
        }
        Ok(server)
    }
}

/// Servers at work.
pub struct Server {
    threads: Vec<JoinHandle<()>>,
    tasks: TaskTracker,
    closed: CancellationToken,
    abort: CancellationToken,
}

impl Server {
    /// Takes no more queries, answers those that were taken for at most `grace`, and ends.
    pub async fn stop(self, grace: Duration) {
        self.closed.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(grace, self.tasks.wait()).await;
        self.abort.cancel();
        self.tasks.wait().await;
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(|| {
            for thread in threads {
                // A thread that has panicked has said so.
                let _ = thread.join();
            }
        });
        let _ = joined.await;
    }
}
