//! One UDP client and the endpoint that it talks to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use portolan_model::{Flow, Protocol};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::batch;
use crate::book::{Book, Plan};
use crate::limits::{BATCHES_MAX, DATAGRAM_BUFFER_BYTES, SESSION_IDLE, SESSION_IDLE_UNANSWERED};
use crate::tally::Tally;

/// A client of one frontend, and a socket that is connected to its endpoint.
#[derive(Debug)]
pub(crate) struct Session {
    pub client: SocketAddr,
    destination: SocketAddr,
    endpoint: SocketAddr,
    socket: UdpSocket,
    pub tally: Arc<Tally>,
    /// When it was met last, in milliseconds since the start of the relay.
    met_ms: AtomicU64,
    answered: AtomicBool,
    closed: CancellationToken,
}

impl Session {
    /// Opens a socket to `endpoint`. Call it inside the relay's runtime.
    pub fn open(
        plan: &Plan,
        client: SocketAddr,
        destination: SocketAddr,
        endpoint: SocketAddr,
        now: Duration,
    ) -> io::Result<Self> {
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new_raw(Domain::for_address(endpoint), kind, None)?;
        let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
        socket.connect(&SockAddr::from(endpoint))?;
        let session = Session {
            client,
            destination,
            endpoint,
            socket: UdpSocket::from_std(socket.into())?,
            tally: Arc::clone(&plan.tally),
            met_ms: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            closed: CancellationToken::new(),
        };
        session.meet(now);
        Ok(session)
    }

    /// The flow as rules about stale flows see it.
    pub fn flow(&self) -> Flow {
        Flow {
            protocol: Protocol::Udp,
            destination: self.destination,
            replier: self.endpoint,
        }
    }

    /// Its time starts anew.
    pub fn meet(&self, now: Duration) {
        let ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.met_ms.store(ms, Relaxed);
    }

    /// No more datagrams go through it.
    pub fn close(&self) {
        self.closed.cancel();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Sends a client's datagrams. False when the endpoint has refused earlier ones: then another one must be found.
    pub fn send(&self, datagrams: &[&[u8]]) -> bool {
        let counts = &self.tally.counts;
        match batch::send(&self.socket, datagrams, None) {
            Ok(sent) => {
                let bytes: usize = datagrams[..sent].iter().map(|d| d.len()).sum();
                counts.bytes_in.add(bytes as u64);
                counts.datagrams_lost.add((datagrams.len() - sent) as u64);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.refused();
                false
            }
            Err(_) => {
                counts.datagrams_lost.add(datagrams.len() as u64);
                true
            }
        }
    }

    fn refused(&self) {
        self.tally.counts.dial_failures.add(1);
        self.tally.forget(self.client.ip());
    }

    /// Brings answers to the client by way of `door`, until the client was silent for too long, the session is closed,
    /// or the endpoint refuses.
    pub async fn bring_answers(&self, door: &UdpSocket, book: &Book) {
        loop {
            let Some(left) = self.time_left(book.now()) else {
                return;
            };
            let readable = tokio::select! {
                _ = self.closed.cancelled() => return,
                readable = tokio::time::timeout(left, self.socket.readable()) => readable,
            };
            match readable {
                // Perhaps the client was met meanwhile.
                Err(_) => continue,
                Ok(Err(_)) => return,
                Ok(Ok(())) => {}
            }
            if !self.bring(door, book) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// `None` when its time is over.
    fn time_left(&self, now: Duration) -> Option<Duration> {
        let idle_max = match self.answered.load(Relaxed) {
            true => SESSION_IDLE,
            false => SESSION_IDLE_UNANSWERED,
        };
        let met = Duration::from_millis(self.met_ms.load(Relaxed));
        (met + idle_max)
            .checked_sub(now)
            .filter(|left| !left.is_zero())
    }

    /// Brings what is there, as far as its turn goes. False when the endpoint has refused.
    fn bring(&self, door: &UdpSocket, book: &Book) -> bool {
        for _ in 0..BATCHES_MAX {
            let moved = batch::with(|batch| {
                let socket = &self.socket;
                socket.try_io(Interest::READABLE, || batch.receive(socket))?;
                let all: Vec<&[u8]> = batch.datagrams().map(|(bytes, _)| bytes).collect();
                self.meet(book.now());
                self.answered.store(true, Relaxed);
                let sent = batch::send(door, &all, Some(self.client)).unwrap_or(0);
                let bytes: usize = all[..sent].iter().map(|d| d.len()).sum();
                self.tally.counts.bytes_out.add(bytes as u64);
                let lost = all.len() - sent;
                self.tally.counts.datagrams_lost.add(lost as u64);
                io::Result::Ok(())
            });
            match moved {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.refused();
                    return false;
                }
                Err(_) => return true,
            }
        }
        true
    }
}
