//! One TCP connection: where it was going, an endpoint that answers, and the bytes of both directions.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::errno::Errno;
use portolan_model::Protocol;
use serde::{Deserialize, Serialize};
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
use crate::tally::{Counts, Tally};
use crate::workers::{Place, Workers};

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
    pub workers: Arc<Workers>,
}

/// A connection to an endpoint has begun; whether it is answered the kernel will know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dial {
    /// Where the client was going.
    pub frontend: SocketAddr,
    /// Our end.
    pub source: SocketAddr,
    /// The endpoint.
    pub endpoint: SocketAddr,
}

/// A door for connections.
#[derive(Clone)]
pub(crate) struct TcpDoor {
    pub door: Door,
    pub closed: CancellationToken,
}

/// Takes connections until the door is closed, or another thread should take the next one and goes on with this.
pub(crate) async fn run(
    connections: Arc<Connections>,
    listener: std::net::TcpListener,
    at: TcpDoor,
    here: Place,
) {
    let door = at.door.listen;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, %door, "nobody takes connections"),
    };
    loop {
        let accepted = tokio::select! {
            _ = at.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, from)) => connections.take(client, from, at.door, here),
            // The client went away before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, %door, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        if let Some(better) = connections.workers.better(here) {
            return match listener.into_std() {
                Ok(listener) => hand_on(connections, listener, at, better),
                Err(error) => tracing::error!(%error, %door, "nobody takes connections"),
            };
        }
    }
}

/// The next connections are for the thread at `place`.
fn hand_on(
    connections: Arc<Connections>,
    listener: std::net::TcpListener,
    at: TcpDoor,
    place: Place,
) {
    let workers = Arc::clone(&connections.workers);
    let tasks = connections.tasks.clone();
    tasks.spawn_on(run(connections, listener, at, place), workers.handle(place));
}

impl Connections {
    /// Serves a client on this very thread.
    fn take(self: &Arc<Self>, mut client: TcpStream, from: SocketAddr, door: Door, here: Place) {
        let connections = Arc::clone(self);
        let load = self.workers.load(here);
        self.tasks.spawn(async move {
            let serve = connections.serve(&mut client, from, door);
            let ended = tokio::select! {
                ended = serve => ended,
                _ = connections.abort.cancelled() => Err(io::ErrorKind::Interrupted.into()),
            };
            if ended.is_err() {
                reset(&client);
            }
            drop(load);
        });
    }

    async fn serve(&self, client: &mut TcpStream, from: SocketAddr, door: Door) -> io::Result<()> {
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
        let mut endpoint = self.dial(&mut plan, destination).await?;
        plan.tally.counts.connections.add(1);
        // The client's end has got the same from its door.
        endpoint.set_nodelay(true)?;
        let ended = between(client, &mut endpoint, &plan.tally.counts).await;
        drop(room);
        if ended.is_err() {
            reset(&endpoint);
        }
        ended
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
            let listener = self.listener.get();
            let tell = listener.map(|listener| {
                move |source| {
                    let dial = Dial {
                        frontend,
                        source,
                        endpoint,
                    };
                    // What finds no room is not heard of: one of many is enough.
                    let _ = listener.try_send(dial);
                }
            });
            let failed = match reach(endpoint, patience, tell).await {
                Ok(stream) => {
                    plan.settle(endpoint, self.book.now());
                    return Ok(stream);
                }
                Err(error) => error,
            };
            plan.tally.counts.dial_failures.add(1);
            tracing::debug!(port = %plan.tally.key, %endpoint, attempt, %failed, "dial failed");
            plan.go_on();
        }
        plan.tally.counts.unreachable.add(1);
        Err(io::ErrorKind::HostUnreachable.into())
    }
}

/// Moves bytes both ways until both have come to their end.
async fn between(
    client: &mut TcpStream,
    endpoint: &mut TcpStream,
    counts: &Counts,
) -> io::Result<()> {
    let last = AtomicBool::new(false);
    let (from_client, to_client) = client.split();
    let (from_endpoint, to_endpoint) = endpoint.split();
    let both = async {
        tokio::try_join!(
            pump(from_client, to_endpoint.as_ref(), &last, &counts.bytes_in),
            pump(from_endpoint, to_client.as_ref(), &last, &counts.bytes_out),
        )
    };
    let lasts = async {
        tokio::time::sleep(KEEPALIVE_IDLE).await;
        for end in [to_client.as_ref(), to_endpoint.as_ref()] {
            // One that cannot be asked is noticed when something is sent to it.
            let _ = ask_whether_alive(end);
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        ended = both => ended.map(drop),
        never = lasts => never,
    }
}

/// A connection that is answered before our patience ends.
async fn reach(
    endpoint: SocketAddr,
    patience: Duration,
    began: Option<impl FnOnce(SocketAddr)>,
) -> io::Result<TcpStream> {
    let stream = connect(endpoint, began)?;
    // A pod of this node has answered by now. Let the thread hear of it first: a timer that comes before all others
    // makes it wake itself.
    tokio::task::yield_now().await;
    match tokio::time::timeout(patience, established(&stream)).await {
        Ok(done) => done.map(|()| stream),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Begins a connection, and says where it comes from as soon as that is known. Call it inside the relay's runtime.
fn connect(endpoint: SocketAddr, began: Option<impl FnOnce(SocketAddr)>) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(endpoint), kind, None)?;
    match socket.connect(&endpoint.into()) {
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
        done => done?,
    }
    let stream = TcpStream::from_std(socket.into())?;
    if let Some(began) = began {
        began(stream.local_addr()?);
    }
    Ok(stream)
}

/// Waits until it stands.
async fn established(stream: &TcpStream) -> io::Result<()> {
    stream.writable().await?;
    stream.take_error()?.map_or(Ok(()), Err)
}

/// A peer that is dead is noticed.
fn ask_whether_alive(stream: &TcpStream) -> io::Result<()> {
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
