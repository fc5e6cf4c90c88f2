//! One thread: takes connections, speaks TLS and HTTP with clients, and lets them finish when the server stops.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::{Buf, Bytes, BytesMut};
use http::header::{ALT_SVC, CONNECTION};
use http::{HeaderValue, Request, Version};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::Body;
use super::client_io::ClientIo;
use super::filters::Common;
use super::headers;
use super::http3::{self, Door};
use super::limits::{
    ACCEPT_PAUSE, CONNECTION_WINDOW, HEAD_BYTES_MAX, IDLE_LOOK, RESETS_OWN_MAX, RESETS_PENDING_MAX,
    SEND_BYTES_MAX, STREAM_WINDOW, STREAMS_MAX,
};
use super::record::{Record, Recorded};
use super::request::{Peer, Serving, handle};
use super::upstream::{Tls, Upstream};
use super::{Entrance, Live, Settings, Watched};
use crate::proxy_protocol::{self, HEADER_BYTES_MAX, HeaderError};
use crate::tally::{Ledger, Seat};

/// What a thread works with.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) acceptor: TlsAcceptor,
    pub(super) stop: CancellationToken,
    /// Set when clients are to go elsewhere, some time before `stop`.
    pub(super) leave: CancellationToken,
    /// Set when somebody else takes the connections.
    pub(super) rest: CancellationToken,
    pub(super) common: Arc<Common>,
    pub(super) settings: Arc<Settings>,
    pub(super) tls: Tls,
    pub(super) watched: Watched,
    /// `Alt-Svc` for clients of TLS, where HTTP/3 is served.
    pub(super) advertisement: Option<HeaderValue>,
}

/// What the tasks of a thread share.
pub(super) struct Shared {
    pub(super) worker: Worker,
    pub(super) ledger: RefCell<Ledger>,
    upstream: Rc<Upstream>,
    pub(super) tracker: TaskTracker,
    pub(super) room: Arc<Semaphore>,
}

impl Worker {
    /// Serves until it is told to stop, and then until requests are done.
    pub(super) fn run(self, entrances: Vec<Entrance>, doors: Vec<Door>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "a thread of the gateway cannot start");
                return;
            }
        };
        LocalSet::new().block_on(&runtime, self.serve(entrances, doors));
    }

    async fn serve(self, entrances: Vec<Entrance>, doors: Vec<Door>) {
        let upstream = Rc::new(Upstream::new(self.tls.clone()));
        let shared = Rc::new(Shared {
            tracker: TaskTracker::new(),
            room: Arc::new(Semaphore::new(self.settings.limits.connections_max)),
            ledger: RefCell::new(Ledger::new(Arc::clone(&self.watched.counted))),
            upstream: Rc::clone(&upstream),
            worker: self,
        });
        let keeper = tokio::task::spawn_local(Rc::clone(&upstream).keep());
        let forgetter = tokio::task::spawn_local(forget(Rc::clone(&shared)));
        let mut takers = Vec::new();
        for entrance in entrances {
            match TcpListener::from_std(entrance.listener) {
                Ok(listener) => {
                    let taking = take(Rc::clone(&shared), listener, entrance.tls);
                    takers.push(tokio::task::spawn_local(taking));
                }
                Err(error) => tracing::error!(%error, "a socket of the gateway cannot be used"),
            }
        }
        for door in doors {
            let serving = http3::serve(Rc::clone(&shared), door);
            takers.push(tokio::task::spawn_local(serving));
        }
        for taker in takers {
            if let Err(error) = taker.await {
                tracing::error!(%error, "connections are not taken any more");
            }
        }
        shared.tracker.close();
        if tokio::time::timeout(shared.worker.settings.drain_timeout, shared.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("requests were still under way when the gateway stopped");
        }
        keeper.abort();
        forgetter.abort();
    }
}

/// Turns are kept for Service ports that are there, and no table that is out of date.
async fn forget(shared: Rc<Shared>) {
    let mut look = tokio::time::interval(IDLE_LOOK);
    loop {
        look.tick().await;
        let live = shared.worker.live.load();
        shared
            .upstream
            .forget(|key| live.endpoints.get(key).is_some());
        shared.ledger.borrow_mut().follow(&live.table);
    }
}

async fn take(shared: Rc<Shared>, listener: TcpListener, tls: bool) {
    let (stop, rest) = (&shared.worker.stop, &shared.worker.rest);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&shared.room).acquire_owned() => permit,
            () = stop.cancelled() => return,
            () = rest.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
            () = rest.cancelled() => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = (permit.ok(), shared.ledger.borrow().connected());
        let for_task = Rc::clone(&shared);
        let task = async move {
            connection(&for_task, stream, client, tls, seat).await;
        };
        tokio::task::spawn_local(shared.tracker.track_future(task));
    }
}

async fn connection(
    shared: &Rc<Shared>,
    stream: TcpStream,
    client: SocketAddr,
    tls: bool,
    seat: (Option<OwnedSemaphorePermit>, Seat),
) {
    // Small answers must not wait for each other; a socket that refuses this is still good.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let mut peer = Peer::new(client, local, tls);
    peer._seat = Some(seat);
    let opening = opening(shared, stream, &mut peer);
    let opened = tokio::select! {
        opened = opening => opened,
        () = shared.worker.stop.cancelled() => return,
    };
    match opened {
        Ok(Opened::Http1(io)) => speak_http1(shared, TokioIo::new(io.guarded()), peer).await,
        Ok(Opened::Http2(io)) => speak_http2(shared, TokioIo::new(io.framed()), peer).await,
        Ok(Opened::Http1Tls(io)) => speak_http1(shared, TokioIo::new(io.guarded()), peer).await,
        Ok(Opened::Http2Tls(io)) => speak_http2(shared, TokioIo::new(io.framed()), peer).await,
        Err(error) => tracing::debug!(%client, %error, "a connection was given up"),
    }
}

/// A connection, as far as it says what is spoken.
enum Opened {
    Http1(ClientIo<TcpStream>),
    Http2(ClientIo<TcpStream>),
    Http1Tls(Box<ClientIo<TlsStream<ClientIo<TcpStream>>>>),
    Http2Tls(Box<ClientIo<TlsStream<ClientIo<TcpStream>>>>),
}

/// Reads what stands before the first request: who the client is, if somebody in front says it, and TLS.
async fn opening(
    shared: &Rc<Shared>,
    mut stream: TcpStream,
    peer: &mut Peer,
) -> std::io::Result<Opened> {
    let settings = &shared.worker.settings;
    let limits = &settings.limits;
    let mut first = BytesMut::new();
    if settings.is_announced(peer.client.ip()) {
        let reading = announced(&mut stream, &mut first);
        let ends = timeout(limits.handshake_timeout, reading).await??;
        if let Some((client, local)) = ends {
            peer.client = client;
            peer.local = local;
        }
    }
    if !peer.tls {
        let reading = is_http2(&mut stream, &mut first);
        let is_http2 = timeout(limits.head_timeout, reading).await??;
        let io = ClientIo::new(stream, first.freeze(), limits.client_timeout);
        return Ok(match is_http2 {
            true => Opened::Http2(io),
            false => Opened::Http1(io),
        });
    }
    let io = ClientIo::new(stream, first.freeze(), limits.client_timeout);
    let handshake = shared.worker.acceptor.accept(io);
    let stream = timeout(limits.handshake_timeout, handshake).await??;
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    peer.server_name = session.server_name().map(Box::from);
    let io = Box::new(ClientIo::new(stream, Bytes::new(), limits.client_timeout));
    Ok(match is_http2 {
        true => Opened::Http2Tls(io),
        false => Opened::Http1Tls(io),
    })
}

/// Reads a header of the PROXY protocol; what comes behind it stays in `first`.
async fn announced(
    stream: &mut TcpStream,
    first: &mut BytesMut,
) -> std::io::Result<Option<(SocketAddr, SocketAddr)>> {
    loop {
        match proxy_protocol::parse(first) {
            Ok(header) => {
                first.advance(header.length);
                return Ok(header.ends);
            }
            Err(HeaderError::Incomplete) if first.len() < HEADER_BYTES_MAX => {}
            Err(error) => return Err(std::io::Error::other(error)),
        }
        if stream.read_buf(first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether HTTP/2 is spoken without TLS: such a connection begins with a line that is no request (RFC 9113 section 3.4).
async fn is_http2(stream: &mut TcpStream, first: &mut BytesMut) -> std::io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    loop {
        let seen = first.len().min(PREFACE.len());
        if first[..seen] != PREFACE[..seen] {
            return Ok(false);
        }
        if seen == PREFACE.len() {
            return Ok(true);
        }
        if stream.read_buf(first).await? == 0 {
            return Ok(false);
        }
    }
}

async fn speak_http1<I>(shared: &Rc<Shared>, io: I, peer: Peer)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.worker.settings.limits.head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        // No more than HEADERS_MAX, which is hyper's own number: one that is set is slower.
        .half_close(false);
    let client = peer.client;
    let (for_service, peer) = (Rc::clone(shared), Rc::new(peer));
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(Body::Passed);
        answer(Rc::clone(&for_service), Rc::clone(&peer), request)
    });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    let result = tokio::select! {
        // The answer that is next says already that it is the last.
        biased;
        () = shared.worker.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        result = connection.as_mut() => result,
    };
    tell(client, result);
}

async fn speak_http2<I>(shared: &Rc<Shared>, io: I, peer: Peer)
where
    I: Read + Write + Unpin + 'static,
{
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_OWN_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(shared.worker.settings.limits.head_timeout);
    let client = peer.client;
    let (for_service, peer) = (Rc::clone(shared), Rc::new(peer));
    let service = service_fn(move |request: Request<Incoming>| {
        let request = request.map(Body::Passed);
        answer(Rc::clone(&for_service), Rc::clone(&peer), request)
    });
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        // The answer that is next says already that it is the last.
        biased;
        () = shared.worker.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        result = connection.as_mut() => result,
    };
    tell(client, result);
}

pub(super) async fn answer(
    shared: Rc<Shared>,
    peer: Rc<Peer>,
    mut request: Request<Body>,
) -> Result<http::Response<Recorded>, Infallible> {
    headers::identify(request.headers_mut());
    let mut record = Record::begin(Rc::clone(&shared), &peer, &request);
    let is_http1 = request.version() <= Version::HTTP_11;
    // A request keeps what was live when it came, however long it takes.
    let live = shared.worker.live.load_full();
    let serving = Serving {
        live: &live,
        upstream: &shared.upstream,
        settings: &shared.worker.settings,
        common: &shared.worker.common,
        record: &record,
    };
    let mut answer = handle(&serving, &peer, request).await;
    if is_http1 && shared.worker.leave.is_cancelled() {
        // Its client goes elsewhere by itself before this gateway is gone.
        let close = HeaderValue::from_static("close");
        answer.headers_mut().entry(CONNECTION).or_insert(close);
    }
    if let Some(advertisement) = &shared.worker.advertisement
        && peer.tls
    {
        let told = answer.headers_mut().entry(ALT_SVC);
        told.or_insert_with(|| advertisement.clone());
    }
    record.answered(answer.status());
    Ok(answer.map(|body| Recorded::new(body, record)))
}

fn tell(client: SocketAddr, result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%client, %error, "connection of a client");
    }
}

/// Runs the streams of HTTP/2 connections on their own thread.
#[derive(Clone, Copy)]
pub(super) struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
