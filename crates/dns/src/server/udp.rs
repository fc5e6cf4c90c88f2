//! UDP: one socket for each thread, many datagrams by one call, and no allocation for a query that is answered at once.
//!
//! ```text
//!   kernel (SO_REUSEPORT: a client's datagrams come to one socket)
//!     └─▶ thread: recvmmsg ─▶ ask ─▶ sendmmsg ─▶ a pause under load, in which the next ones gather
//!                               └─▶ task (Answer::later) ─▶ sendmsg at the same socket
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::sys::prctl::set_timerslack;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::Batch;
use super::front::ask;
use super::limits::{BATCH_MAX, GATHER, QUERY_BYTES_MAX};
use super::outbox::{Outbox, Sent};
use super::pace::Pace;
use super::{Answer, Client, Limits, Step, Transport};

/// What the threads of all sockets share.
pub(crate) struct Shared<A> {
    pub answer: Arc<A>,
    pub limits: Limits,
    pub runtime: Handle,
    pub tasks: TaskTracker,
    /// Queries that wait for their answers.
    pub waiting: AtomicUsize,
    /// No more queries are taken.
    pub closed: CancellationToken,
    /// Nobody waits for answers any more.
    pub abort: CancellationToken,
}

/// Serves one socket until it is told to end.
pub(crate) fn serve<A: Answer>(shared: &Arc<Shared<A>>, socket: UdpSocket) -> io::Result<()> {
    let bound = socket.local_addr()?;
    let socket = Arc::new(socket);
    let mut batch = Batch::new(BATCH_MAX, QUERY_BYTES_MAX);
    let mut outbox = Outbox::new(BATCH_MAX, bound);
    // Else a wait of microseconds is one of 50 more; where that cannot be said, batches are a little larger.
    let _ = set_timerslack(1);
    let mut pace = Pace::default();
    while !shared.closed.is_cancelled() {
        match batch.receive(&socket, bound) {
            Ok(()) => {
                let sent = answer(shared, &socket, &batch, &mut outbox);
                if pace.pauses_after(batch.count(), sent) {
                    pause();
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing is waited for: datagrams gather, and whatever has come is taken"
)]
fn pause() {
    std::thread::sleep(GATHER);
}

/// Nothing came, a signal came, or an answer of before was refused by its receiver (ICMP).
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::WouldBlock
            | Kind::TimedOut
            | Kind::Interrupted
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::OutOfMemory
    )
}

fn answer<A: Answer>(
    shared: &Arc<Shared<A>>,
    socket: &Arc<UdpSocket>,
    batch: &Batch,
    outbox: &mut Outbox,
) -> Sent {
    for received in batch.datagrams() {
        // Port 0 cannot be answered.
        if received.from.port() == 0 {
            continue;
        }
        let client = Client {
            address: canonical(received.from),
            local: received.local.to_canonical(),
            transport: Transport::Udp,
        };
        let out = outbox.next(received.from, received.local);
        match ask(&*shared.answer, received.bytes, &client, out) {
            Step::Answered => outbox.keep(),
            Step::Later => later(shared, socket, received.bytes, client, received.from),
            // A transfer over datagrams is no answer.
            Step::Drop | Step::Transfer(_) => {}
        }
    }
    outbox.send(socket)
}

fn later<A: Answer>(
    shared: &Arc<Shared<A>>,
    socket: &Arc<UdpSocket>,
    request: &[u8],
    client: Client,
    to: SocketAddr,
) {
    if shared.waiting.fetch_add(1, Relaxed) >= shared.limits.waiting_max {
        shared.waiting.fetch_sub(1, Relaxed);
        return;
    }
    let (shared, socket) = (Arc::clone(shared), Arc::clone(socket));
    let request = request.to_vec();
    let task = {
        let shared = Arc::clone(&shared);
        async move {
            let answered = tokio::select! {
                answered = shared.answer.later(request, client) => answered,
                _ = shared.abort.cancelled() => None,
            };
            shared.waiting.fetch_sub(1, Relaxed);
            if let Some(bytes) = answered
                && let Ok(bound) = socket.local_addr()
            {
                let mut outbox = Outbox::new(1, bound);
                outbox.next(to, client.local).extend_from_slice(&bytes);
                outbox.keep();
                outbox.send(&socket);
            }
        }
    };
    shared.tasks.spawn_on(task, &shared.runtime);
}

/// An IPv4 address at an IPv6 socket as the IPv4 address that it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The address that a datagram was sent to, where the socket has one of its own.
pub(crate) fn own_address(bound: SocketAddr) -> Option<IpAddr> {
    Some(bound.ip()).filter(|ip| !ip.is_unspecified())
}
