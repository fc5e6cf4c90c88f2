//! One TCP connection: where it was going, an endpoint that answers, and the bytes of both directions.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use portolan_model::Protocol;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::{Book, Plan};
use crate::limits::{
    ACCEPT_PAUSE, DIAL_TIMEOUTS, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES_MAX,
};
use crate::original;
use crate::pipe::pump;
use crate::relay::Door;
use crate::tally::Tally;

/// What all TCP doors share.
pub(crate) struct Connections {
    pub book: Arc<Book>,
    /// How many go on.
    pub open: Arc<AtomicUsize>,
    pub tasks: TaskTracker,
    /// Ends all of them at once.
    pub abort: CancellationToken,
    /// Who wants to hear of connections to endpoints.
    pub listener: OnceLock<mpsc::Sender<Dial>>,
}

/// A connection to an endpoint has begun; whether it is answered the kernel will know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Where the client was going.
    pub frontend: SocketAddr,
    /// Our end.
    pub source: SocketAddr,
    /// The endpoint.
    pub endpoint: SocketAddr,
}

/// Takes connections until `closed`.
pub(crate) async fn run(
    connections: Arc<Connections>,
    listener: TcpListener,
    door: Door,
    closed: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            _ = closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => {
                let connections = Arc::clone(&connections);
                let abort = connections.abort.clone();
                let tasks = connections.tasks.clone();
                tasks.spawn(async move {
                    let serve = connections.serve(&client, from, door);
                    let ended = tokio::select! {
                        ended = serve => ended,
                        _ = abort.cancelled() => Err(io::ErrorKind::Interrupted.into()),
                    };
                    if ended.is_err() {
                        reset(&client);
                    }
                });
            }
            // The client went away before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, door = %door.listen, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Connections {
    async fn serve(&self, client: &TcpStream, from: SocketAddr, door: Door) -> io::Result<()> {
        let destination = match door.leads_to {
            Some(destination) => destination,
            None => original::of_connection(client)?,
        };
        let refused = |_| io::Error::from(io::ErrorKind::ConnectionRefused);
        let plan = self
            .book
            .plan(Protocol::Tcp, from, destination, door.origin);
        let mut plan = plan.map_err(refused)?;
        let room = self.room(&plan)?;
        let endpoint = self.dial(&mut plan, destination).await?;
        plan.tally.counts.connections.add(1);
        let both = [client, &endpoint];
        both.into_iter().try_for_each(set_up)?;
        let counts = &plan.tally.counts;
        let ended = tokio::try_join!(
            pump(client, &endpoint, &counts.bytes_in),
            pump(&endpoint, client, &counts.bytes_out),
        );
        drop(room);
        if ended.is_err() {
            reset(&endpoint);
        }
        ended.map(drop)
    }

    /// Room for one more, or an error when a limit is reached.
    fn room(&self, plan: &Plan) -> io::Result<Room> {
        let room = Room {
            open: Arc::clone(&self.open),
            tally: Arc::clone(&plan.tally),
        };
        let limits = &self.book.limits;
        let all = self.open.fetch_add(1, Relaxed);
        room.tally.counts.connections_open.add(1);
        let here = room.tally.counts.connections_open.now();
        if all >= limits.connections_max || here > limits.connections_per_port_max as u64 {
            room.tally.counts.limited.add(1);
            let words = "there is no room for another connection";
            tracing::debug!(port = %room.tally.key, words);
            return Err(io::Error::other(words));
        }
        Ok(room)
    }

    /// A connection to the first endpoint that answers in time.
    async fn dial(&self, plan: &mut Plan, frontend: SocketAddr) -> io::Result<TcpStream> {
        for (attempt, patience) in DIAL_TIMEOUTS.into_iter().enumerate() {
            let Some(endpoint) = plan.endpoint() else {
                break;
            };
            let tell = |source| {
                let dial = Dial {
                    frontend,
                    source,
                    endpoint,
                };
                // What finds no room is not heard of: one of many is enough.
                let listener = self.listener.get();
                listener.map(|listener| listener.try_send(dial).is_ok());
            };
            let failed = match tokio::time::timeout(patience, connect(endpoint, tell)).await {
                Ok(Ok(stream)) => {
                    plan.settle(endpoint, self.book.now());
                    return Ok(stream);
                }
                Ok(Err(error)) => error,
                Err(_) => io::ErrorKind::TimedOut.into(),
            };
            plan.tally.counts.dial_failures.add(1);
            tracing::debug!(port = %plan.tally.key, %endpoint, attempt, %failed, "dial failed");
            plan.go_on();
        }
        plan.tally.counts.unreachable.add(1);
        Err(io::ErrorKind::HostUnreachable.into())
    }
}

/// Says where it comes from as soon as that is known.
async fn connect(endpoint: SocketAddr, began: impl FnOnce(SocketAddr)) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(endpoint), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&endpoint.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        done => done?,
    }
    let stream = TcpStream::from_std(socket.into())?;
    began(stream.local_addr()?);
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(stream), Err)
}

/// Bytes go on as they come, and a peer that is dead is noticed.
fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES_MAX);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// When it is closed, the other side gets a reset instead of an end.
fn reset(stream: &TcpStream) {
    // It fails only for a connection that is gone already.
    let _ = stream.set_zero_linger();
}

/// A connection that counts.
struct Room {
    open: Arc<AtomicUsize>,
    tally: Arc<Tally>,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
        self.tally.counts.connections_open.sub(1);
    }
}
