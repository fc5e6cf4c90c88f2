//! The relay as its owner sees it: doors are opened, a Snapshot is put in place, and everything ends in the end.
//!
//! It has threads of its own. They, and with them every socket that it ever opens, are in the network
//! namespace of the thread that started it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, mpsc};

use portolan_model::{ApplyError, Doors, Family, NodeFacts, Origin, PortKey, Protocol, Snapshot};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::book::Book;
use crate::limits::{BACKLOG_MAX, DATAGRAM_BUFFER_BYTES, Limits};
use crate::original::FindOriginal;
use crate::tally::Counts;
use crate::tcp::{self, Connections, Dial, TcpDoor};
use crate::udp::{self, Datagrams};
use crate::workers::Workers;

/// A place where the relay waits for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Door {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whom its clients count as.
    pub origin: Origin,
    /// The frontend behind it; `None` when the kernel knows where each flow was going.
    pub leads_to: Option<SocketAddr>,
}

impl Door {
    /// The doors behind a portal on this node.
    pub fn of_node(doors: &Doors, node: &NodeFacts) -> Vec<Door> {
        let of_family = |family| doors.all(node, family);
        let all = Family::ALL.into_iter().flat_map(of_family);
        let both = all.flat_map(|(listen, origin)| {
            [Protocol::Tcp, Protocol::Udp].map(|protocol| Door {
                protocol,
                listen,
                origin,
                leads_to: None,
            })
        });
        both.collect()
    }
}

/// What went wrong with the relay.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Its threads could not be started.
    #[error("cannot start the threads of the relay: {0}")]
    Threads(io::Error),
    /// Somebody else has the port, or we may not have it.
    #[error("cannot listen on {}/{} for the relay: {error}", door.listen, door.protocol)]
    Listen {
        /// The door.
        door: Door,
        /// The kernel's words.
        error: io::Error,
    },
    /// A door for a protocol that the relay does not carry.
    #[error("the relay does not carry {0}")]
    Protocol(Protocol),
}

impl RelayError {
    /// What was being done.
    pub fn doing(&self) -> String {
        match self {
            RelayError::Threads(_) => "start the threads of the relay".into(),
            RelayError::Listen { door, .. } => {
                format!("listen on {}/{} for the relay", door.listen, door.protocol)
            }
            RelayError::Protocol(_) => "open a door of the relay".into(),
        }
    }

    /// The system's words.
    pub fn words(&self) -> String {
        match self {
            RelayError::Threads(error) | RelayError::Listen { error, .. } => error.to_string(),
            RelayError::Protocol(_) => self.to_string(),
        }
    }
}

impl From<RelayError> for ApplyError {
    fn from(error: RelayError) -> Self {
        ApplyError {
            doing: error.doing(),
            words: error.words(),
        }
    }
}

/// A door that stands.
struct OpenDoor {
    /// For whoever is to go on with it.
    socket: Socket,
    closed: CancellationToken,
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

/// Carries flows from doors to endpoints. When it is dropped, everything ends at once; see [`Relay::drain`].
pub struct Relay {
    workers: Arc<Workers>,
    book: Arc<Book>,
    connections: Arc<Connections>,
    datagrams: Arc<Datagrams>,
    doors: BTreeMap<Door, OpenDoor>,
    /// Tasks of doors, connections and UDP clients.
    tasks: TaskTracker,
}

impl Relay {
    /// Starts a relay with so many threads, without doors and without Services. Call it in the network namespace that
    /// it shall work in.
    pub fn start(
        threads: usize,
        limits: Limits,
        original: impl FindOriginal + 'static,
    ) -> Result<Relay, RelayError> {
        let workers = Workers::start(threads).map_err(RelayError::Threads)?;
        let book = Arc::new(Book::new(limits));
        let tasks = TaskTracker::new();
        let abort = CancellationToken::new();
        let connections = Arc::new(Connections {
            book: Arc::clone(&book),
            open: Arc::new(AtomicUsize::new(0)),
            tasks: tasks.clone(),
            abort: abort.clone(),
            listener: OnceLock::new(),
            workers: Arc::clone(&workers),
        });
        let datagrams = Arc::new(Datagrams {
            book: Arc::clone(&book),
            open: AtomicUsize::new(0),
            tasks: tasks.clone(),
            abort,
            original: Mutex::new(Box::new(original)),
            workers: Arc::clone(&workers),
        });
        Ok(Relay {
            workers,
            book,
            connections,
            datagrams,
            doors: BTreeMap::new(),
            tasks,
        })
    }

    /// Makes exactly these doors stand. When one of them cannot be opened, those that stood before stay.
    pub fn open_doors(&mut self, wanted: Vec<Door>) -> Result<(), RelayError> {
        let mut opened = Vec::new();
        for door in &wanted {
            if !self.doors.contains_key(door) {
                opened.push((*door, self.open(*door)?));
            }
        }
        self.doors.retain(|door, _| wanted.contains(door));
        for (door, socket) in opened {
            self.adopt(door, socket)?;
        }
        Ok(())
    }

    /// Opens of these doors those that can be opened, and closes all others; says which could not, and why.
    pub fn open_each(&mut self, wanted: &BTreeSet<Door>) -> Vec<RelayError> {
        self.doors.retain(|door, _| wanted.contains(door));
        let new: Vec<Door> = wanted.iter().copied().collect();
        let new = new
            .into_iter()
            .filter(|door| !self.doors.contains_key(door));
        let opened: Vec<_> = new.map(|door| (door, self.open(door))).collect();
        let done = opened
            .into_iter()
            .map(|(door, socket)| socket.and_then(|socket| self.adopt(door, socket)));
        done.filter_map(Result::err).collect()
    }

    /// Waits at a socket that somebody has opened for `door` with [`listen`].
    pub fn adopt(&mut self, door: Door, socket: Socket) -> Result<(), RelayError> {
        let closed = CancellationToken::new();
        let own = socket.try_clone();
        let listening = own.and_then(|own| self.attend(door, own, closed.clone()));
        listening.map_err(|error| RelayError::Listen { door, error })?;
        self.doors.insert(door, OpenDoor { socket, closed });
        Ok(())
    }

    /// Closes this door, if it stands.
    pub fn close(&mut self, door: &Door) {
        self.doors.remove(door);
    }

    /// Gives all doors away: whoever comes from now on waits for somebody else.
    pub fn give(&mut self) -> Vec<(Door, Socket)> {
        let doors = self.doors();
        self.doors.clear();
        doors
    }

    /// The doors that stand, with second handles of their sockets.
    pub fn doors(&self) -> Vec<(Door, Socket)> {
        let all = self.doors.iter();
        all.filter_map(|(door, open)| Some((*door, open.socket.try_clone().ok()?)))
            .collect()
    }

    /// Opens a socket on one of the relay's own threads: they are in its namespace, the caller may be elsewhere.
    fn open(&self, door: Door) -> Result<Socket, RelayError> {
        let gone = || RelayError::Listen {
            door,
            error: io::Error::other("the relay has ended"),
        };
        let (tell, told) = mpsc::sync_channel(1);
        // The receiver is there until something was told.
        let work = async move { drop(tell.send(listen(&door))) };
        let handle = self.workers.handle(self.workers.least());
        self.tasks.spawn_on(work, handle);
        told.recv().map_err(|_| gone())?
    }

    fn attend(&self, door: Door, socket: Socket, closed: CancellationToken) -> io::Result<()> {
        let place = self.workers.least();
        let handle = self.workers.handle(place);
        match door.protocol {
            Protocol::Udp => {
                let _inside = handle.enter();
                let socket = UdpSocket::from_std(socket.into())?;
                let datagrams = Arc::clone(&self.datagrams);
                let run = udp::run(datagrams, socket, door, closed);
                self.tasks.spawn_on(run, handle);
            }
            _ => {
                let connections = Arc::clone(&self.connections);
                let at = TcpDoor { door, closed };
                self.tasks
                    .spawn_on(tcp::run(connections, socket.into(), at, place), handle);
            }
        }
        Ok(())
    }

    /// From now on new flows go by `snapshot`. TCP connections that go on are left alone; UDP clients whose endpoint
    /// serves no more begin anew.
    pub fn replace(&self, snapshot: Snapshot) {
        self.book.replace(snapshot);
    }

    /// What new flows go by.
    pub fn snapshot(&self) -> Snapshot {
        self.book.snapshot()
    }

    /// From now on `listener` is told of every TCP connection to an endpoint that it has room for. The first one stays.
    pub fn tell_dials(&self, listener: sync::mpsc::Sender<Dial>) {
        // Nothing is lost when somebody listens already.
        let _ = self.connections.listener.set(listener);
    }

    /// What was counted for each Service port.
    pub fn counts(&self) -> CountsOf {
        CountsOf(Arc::clone(&self.book))
    }

    /// Closes all doors and waits until all connections have come to their end, however long that takes: a peer that is
    /// dead is noticed. UDP clients begin anew elsewhere.
    pub fn drain(mut self) {
        self.doors.clear();
        self.tasks.close();
        let tallies = self.book.tallies();
        let sessions = tallies.iter().flat_map(|tally| tally.sessions());
        sessions.for_each(|session| session.close());
        let handle = self.workers.handle(self.workers.least());
        handle.block_on(self.tasks.wait());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.connections.abort.cancel();
        self.workers.stop();
    }
}

/// Reads the counts of all Service ports, from any thread.
#[derive(Clone)]
pub struct CountsOf(Arc<Book>);

impl CountsOf {
    /// Shows each Service port with its counts, in the order of their keys.
    pub fn each(&self, mut show: impl FnMut(&PortKey, &Counts)) {
        let tallies = self.0.tallies();
        tallies
            .iter()
            .for_each(|tally| show(&tally.key, &tally.counts));
    }
}

/// A socket that listens at `door`, in the network namespace of the calling thread. The address may be one that the node
/// gets only in a moment.
pub fn listen(door: &Door) -> Result<Socket, RelayError> {
    let kind = match door.protocol {
        Protocol::Tcp => Type::STREAM,
        Protocol::Udp => Type::DGRAM,
        Protocol::Sctp => return Err(RelayError::Protocol(door.protocol)),
    };
    let open = || {
        let domain = Domain::for_address(door.listen);
        let number = i32::from(door.protocol.number());
        let socket = Socket::new(domain, kind, Some(number.into()))?;
        socket.set_nonblocking(true)?;
        match door.listen {
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_freebind_v6(true)?;
            }
        }
        if door.protocol == Protocol::Tcp {
            // Connections of a former process may still be in the kernel.
            socket.set_reuse_address(true)?;
            // Bytes go on as they come. Connections get this from their door.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&SockAddr::from(door.listen))?;
            socket.listen(BACKLOG_MAX as i32)?;
        } else {
            // What the kernel does not give is no reason to give up.
            let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES);
            socket.bind(&SockAddr::from(door.listen))?;
        }
        Ok(socket)
    };
    open().map_err(|error| RelayError::Listen { door: *door, error })
}
