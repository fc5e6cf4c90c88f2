//! The server: connections of clients, TLS, and requests on their way to endpoints.
//!
//! ```text
//!   thread 1 … n: a socket each at the same address (SO_REUSEPORT) ─▶ hyper ─▶ request ─▶ upstream (its own pool)
//!                                            all of them read one Live, which is swapped as a whole
//! ```
//!
//! Nothing is shared between threads but [`Live`]: no request waits for another thread.

mod access;
mod alarm;
mod answer;
mod body;
mod certificate;
mod checks;
mod client_io;
mod connection;
mod filters;
mod headers;
mod http3;
mod limits;
mod record;
mod request;
mod upstream;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use socket2::{Domain, Socket, Type};
use tokio_util::sync::CancellationToken;

use crate::roster::Rosters;
use crate::table::Table;
use crate::tally::{Counted, Tally};

pub use access::{AccessLog, Format, FormatError, LINES_MAX};
pub use certificate::{CertificateError, Certificates, Identity};
use http3::Door;
pub use limits::Limits;

/// What requests are served by. It is never changed, only exchanged.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Where requests go.
    pub table: Arc<Table>,
    /// Who stands behind each Service port.
    pub endpoints: Rosters,
    /// What clients of TLS are shown.
    pub certificates: Arc<Certificates>,
}

/// Where and how to serve.
#[derive(Debug)]
pub struct Config {
    /// Addresses for HTTP/1.
    pub http: Vec<SocketAddr>,
    /// Addresses for TLS, with HTTP/1 and HTTP/2.
    pub https: Vec<SocketAddr>,
    /// Addresses for HTTP/3, by UDP.
    pub http3: Vec<SocketAddr>,
    /// Threads; at least one. HTTP/3 has one of its own.
    pub threads: usize,
    /// What else an operator may choose.
    pub settings: Settings,
    /// Sockets of TCP that another process has listened at; those at the addresses above are used instead of new ones, and
    /// whoever waits at them is served. The second part says whether clients speak TLS there.
    pub sockets: Vec<(TcpListener, bool)>,
}

/// What an operator may choose about requests and connections.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The port that clients reach TLS at, for redirects.
    pub https_port: u16,
    /// Connections from here begin with a header of the PROXY protocol, which says who the client is.
    pub announcers: Vec<IpNet>,
    /// What requests from here say about their clients in `X-Forwarded-…` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The port that clients reach HTTP/3 at; whoever speaks TLS is told of it.
    pub http3_port: Option<u16>,
    /// Limits of clients.
    pub limits: Limits,
    /// Where a line for each request goes.
    pub access_log: Option<AccessLog>,
    /// How long requests and upgraded connections that are under way may take when the server stops.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            https_port: 443,
            announcers: Vec::new(),
            trusted_proxies: Vec::new(),
            http3_port: None,
            limits: Limits::default(),
            access_log: None,
            drain_timeout: limits::DRAIN_TIMEOUT,
        }
    }
}

impl Settings {
    fn is_announced(&self, ip: IpAddr) -> bool {
        is_in(&self.announcers, ip)
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        is_in(&self.trusted_proxies, ip)
    }
}

fn is_in(ranges: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ranges.iter().any(|range| range.contains(&ip))
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be served at.
    #[error("cannot serve at {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

/// A server that runs; dropping it stops it without waiting.
pub struct Server {
    live: Arc<ArcSwap<Live>>,
    stop: CancellationToken,
    leave: CancellationToken,
    rest: CancellationToken,
    threads: Vec<JoinHandle<()>>,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    http3: Vec<SocketAddr>,
    /// The same sockets as the threads have, for whoever comes after us.
    sockets: Vec<(TcpListener, bool)>,
    observer: Observer,
}

/// What can be seen of a server from outside, also while it stops; cheap to copy.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    threads: Vec<Watched>,
    access_log: Option<AccessLog>,
    common: Option<Arc<filters::Common>>,
}

/// What can be seen of a thread.
#[derive(Clone, Debug)]
struct Watched {
    counted: Arc<Counted>,
}

impl Observer {
    /// What has become of all requests.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for thread in &self.threads {
            thread.counted.add_to(&mut tally);
        }
        tally
    }

    /// Endpoints that do not pass the checks of their routes.
    pub fn sick(&self) -> usize {
        self.common
            .as_ref()
            .map_or(0, |common| common.checks.count())
    }

    /// Lines of the access log that were lost.
    pub fn lost_lines(&self) -> u64 {
        self.access_log.as_ref().map_or(0, AccessLog::lost)
    }
}

/// A socket, and whether clients speak TLS to it.
struct Entrance {
    listener: TcpListener,
    tls: bool,
}

impl Server {
    /// Takes its addresses and begins to serve; every request is answered with 404 until [`Server::swap`].
    pub fn start(config: Config) -> Result<Server, ServerError> {
        Server::start_with(config, Live::default())
    }

    /// The same, and the first request is served by this.
    pub fn start_with(mut config: Config, live: Live) -> Result<Server, ServerError> {
        let live = Arc::new(ArcSwap::from_pointee(live));
        let stop = CancellationToken::new();
        let acceptor = certificate::acceptor(Arc::clone(&live)).map_err(ServerError::Tls)?;
        let tls = upstream::Tls::unverified().map_err(ServerError::Tls)?;
        let settings = Arc::new(config.settings.clone());
        let mut server = Server {
            live,
            stop,
            leave: CancellationToken::new(),
            rest: CancellationToken::new(),
            threads: Vec::new(),
            http: Vec::new(),
            https: Vec::new(),
            http3: Vec::new(),
            sockets: Vec::new(),
            observer: Observer {
                threads: Vec::new(),
                access_log: settings.access_log.clone(),
                common: None,
            },
        };
        // Whoever takes sockets over has somebody before it.
        let is_first = config.sockets.is_empty();
        let doors = server.open(&config, is_first)?;
        let entrances = server.listen(&mut config)?;
        let common = Arc::<filters::Common>::default();
        server.check(&common, &tls)?;
        let threads = entrances
            .into_iter()
            .map(|entrances| (entrances, Vec::new()));
        let by_quic = (!doors.is_empty()).then(|| (Vec::new(), doors));
        for (entrances, doors) in threads.chain(by_quic) {
            let watched = Watched {
                counted: Arc::default(),
            };
            server.observer.threads.push(watched.clone());
            let worker = connection::Worker {
                watched,
                live: Arc::clone(&server.live),
                acceptor: acceptor.clone(),
                stop: server.stop.clone(),
                leave: server.leave.clone(),
                rest: server.rest.clone(),
                common: Arc::clone(&common),
                settings: Arc::clone(&settings),
                tls: tls.clone(),
                advertisement: settings.http3_port.map(http3::advertisement),
            };
            let thread = std::thread::Builder::new().name("gateway".to_owned());
            let thread = thread
                .spawn(move || worker.run(entrances, doors))
                .map_err(ServerError::Thread)?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// The sockets for HTTP/3.
    fn open(&mut self, config: &Config, is_first: bool) -> Result<Vec<Door>, ServerError> {
        let mut doors = Vec::new();
        for &address in &config.http3 {
            if !is_first {
                self.http3.push(address);
                doors.push(Door::Later(address));
                continue;
            }
            let failed = |source| ServerError::Bind { address, source };
            let socket = http3::bind(address).map_err(failed)?;
            self.http3.push(socket.local_addr().map_err(failed)?);
            doors.push(Door::Open(socket));
        }
        Ok(doors)
    }

    /// The sockets of each thread.
    fn listen(&mut self, config: &mut Config) -> Result<Vec<Vec<Entrance>>, ServerError> {
        let threads = config.threads.max(1);
        let mut entrances: Vec<Vec<Entrance>> = (0..threads).map(|_| Vec::new()).collect();
        let wanted = config.http.iter().map(|address| (*address, false));
        for (mut address, is_tls) in
            wanted.chain(config.https.iter().map(|address| (*address, true)))
        {
            let failed = move |source| ServerError::Bind { address, source };
            let inherited = inherited(&mut config.sockets, address, is_tls);
            let listeners = listeners(address, threads, inherited).map_err(failed)?;
            for (index, listener) in listeners.into_iter().enumerate() {
                address = listener.local_addr().map_err(failed)?;
                let copy = listener.try_clone().map_err(failed)?;
                self.sockets.push((copy, is_tls));
                entrances[index % threads].push(Entrance {
                    listener,
                    tls: is_tls,
                });
            }
            match is_tls {
                true => self.https.push(address),
                false => self.http.push(address),
            }
        }
        Ok(entrances)
    }

    /// Starts the thread that checks endpoints.
    fn check(
        &mut self,
        common: &Arc<filters::Common>,
        tls: &upstream::Tls,
    ) -> Result<(), ServerError> {
        let (live, stop) = (Arc::clone(&self.live), self.stop.clone());
        let (common, tls) = (Arc::clone(common), tls.clone());
        self.observer.common = Some(Arc::clone(&common));
        let thread = std::thread::Builder::new().name("gateway-checks".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = checks::run(&live, &common.checks, &tls, &stop) {
                tracing::error!(%error, "endpoints are not checked");
            }
        });
        self.threads.push(thread.map_err(ServerError::Thread)?);
        Ok(())
    }

    /// From now on, requests are served by this.
    pub fn swap(&self, live: Live) {
        self.live.store(Arc::new(live));
    }

    /// What can be seen of it.
    pub fn observer(&self) -> Observer {
        self.observer.clone()
    }

    /// From now on, clients of HTTP/1 are told with each answer to go elsewhere; everything is served as before.
    pub fn leave(&self) {
        self.leave.cancel();
    }

    /// Its sockets, and whether clients speak TLS there, for a server that takes over.
    pub fn sockets(&self) -> io::Result<Vec<(TcpListener, bool)>> {
        let copies = self.sockets.iter();
        let copies = copies.map(|(socket, is_tls)| Ok((socket.try_clone()?, *is_tls)));
        copies.collect()
    }

    /// Takes no more connections, because somebody else does at the same sockets; those that are there are served on.
    pub fn rest(&mut self) {
        self.leave.cancel();
        self.rest.cancel();
        self.sockets.clear();
    }

    /// Where HTTP/1 is served.
    pub fn http(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where TLS is served.
    pub fn https(&self) -> &[SocketAddr] {
        &self.https
    }

    /// Where HTTP/3 is served.
    pub fn http3(&self) -> &[SocketAddr] {
        &self.http3
    }

    /// Takes no more connections, lets requests that are under way finish for a while, and returns.
    pub fn stop(mut self) {
        self.stop.cancel();
        self.sockets.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the gateway has panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes those of the sockets that somebody has listened with at this address.
fn inherited(
    sockets: &mut Vec<(TcpListener, bool)>,
    address: SocketAddr,
    is_tls: bool,
) -> Vec<TcpListener> {
    let is_it = |(socket, tls): &(TcpListener, bool)| {
        *tls == is_tls && socket.local_addr().is_ok_and(|at| at == address)
    };
    let (these, others) = std::mem::take(sockets).into_iter().partition(is_it);
    *sockets = others;
    let these: Vec<(TcpListener, bool)> = these;
    these.into_iter().map(|(socket, _)| socket).collect()
}

/// Sockets for so many threads at least. Those of a process before are all used, because clients wait at each of them:
/// threads have several then, or share one.
fn listeners(
    mut address: SocketAddr,
    threads: usize,
    inherited: Vec<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    let mut all = inherited;
    let count = all.len();
    for index in all.len()..threads {
        let next = match count {
            0 => bind(address)?,
            count => all[index % count].try_clone()?,
        };
        // Port 0 becomes a number with the first socket; the others share that one.
        address = next.local_addr()?;
        all.push(next);
    }
    Ok(all)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
