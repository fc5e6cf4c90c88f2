//! One thread: takes connections, speaks TLS and HTTP with clients, and lets them finish when the server stops.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::filters::Common;
use super::limits::{
    ACCEPT_PAUSE, CONNECTIONS_MAX, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HEAD_BYTES_MAX, HEAD_TIMEOUT,
    HEADERS_MAX, IDLE_LOOK, STREAMS_MAX,
};
use super::request::{Peer, handle};
use super::upstream::Upstream;
use super::{Entrance, Live};

/// What a thread works with.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) acceptor: TlsAcceptor,
    pub(super) stop: CancellationToken,
    pub(super) https_port: u16,
    pub(super) common: Arc<Common>,
}

/// What the tasks of a thread share.
struct Shared {
    worker: Worker,
    upstream: Rc<Upstream>,
    tracker: TaskTracker,
    room: Arc<Semaphore>,
}

impl Worker {
    /// Serves until it is told to stop, and then until requests are done.
    pub(super) fn run(self, entrances: Vec<Entrance>) {
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
        LocalSet::new().block_on(&runtime, self.serve(entrances));
    }

    async fn serve(self, entrances: Vec<Entrance>) {
        let upstream = Rc::new(Upstream::default());
        let shared = Rc::new(Shared {
            tracker: TaskTracker::new(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
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
        for taker in takers {
            if let Err(error) = taker.await {
                tracing::error!(%error, "connections are not taken any more");
            }
        }
        shared.tracker.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, shared.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("requests were still under way when the gateway stopped");
        }
        keeper.abort();
        forgetter.abort();
    }
}

/// Turns are kept for Service ports that are there.
async fn forget(shared: Rc<Shared>) {
    let mut look = tokio::time::interval(IDLE_LOOK);
    loop {
        look.tick().await;
        let live = shared.worker.live.load();
        shared
            .upstream
            .forget(|key| live.endpoints.get(key).is_some());
    }
}

async fn take(shared: Rc<Shared>, listener: TcpListener, tls: bool) {
    let stop = shared.worker.stop.clone();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&shared.room).acquire_owned() => permit,
            () = stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let for_task = Rc::clone(&shared);
        let task = async move {
            connection(&for_task, stream, client, tls).await;
            drop(permit);
        };
        tokio::task::spawn_local(shared.tracker.track_future(task));
    }
}

async fn connection(shared: &Rc<Shared>, stream: TcpStream, client: SocketAddr, tls: bool) {
    // Small answers must not wait for each other; a socket that refuses this is still good.
    let _ = stream.set_nodelay(true);
    let port = stream.local_addr().map_or(0, |local| local.port());
    let peer = Peer {
        client,
        port,
        tls,
        https_port: shared.worker.https_port,
    };
    if !tls {
        return speak_http1(shared, TokioIo::new(stream), peer).await;
    }
    let handshake = shared.worker.acceptor.accept(stream);
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => handshake,
        () = shared.worker.stop.cancelled() => return,
    };
    let Ok(Ok(stream)) = handshake else {
        tracing::debug!(%client, "no TLS handshake");
        return;
    };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    match is_h2 {
        true => speak_http2(shared, TokioIo::new(stream), peer).await,
        false => speak_http1(shared, TokioIo::new(stream), peer).await,
    }
}

async fn speak_http1<I>(shared: &Rc<Shared>, io: I, peer: Peer)
where
    I: Read + Write + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false);
    let for_service = Rc::clone(shared);
    let service = service_fn(move |request| answer(Rc::clone(&for_service), peer, request));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service).with_upgrades());
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shared.worker.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    tell(peer, result);
}

async fn speak_http2<I>(shared: &Rc<Shared>, io: I, peer: Peer)
where
    I: Read + Write + Unpin + 'static,
{
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .keep_alive_interval(HEAD_TIMEOUT);
    let for_service = Rc::clone(shared);
    let service = service_fn(move |request| answer(Rc::clone(&for_service), peer, request));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shared.worker.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    tell(peer, result);
}

async fn answer(
    shared: Rc<Shared>,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<http::Response<super::body::Body>, Infallible> {
    // A request keeps what was live when it came, however long it takes.
    let live = shared.worker.live.load_full();
    let common = &shared.worker.common;
    Ok(handle(&live, common, &shared.upstream, peer, request).await)
}

fn tell(peer: Peer, result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(client = %peer.client, %error, "connection of a client");
    }
}

/// Runs the streams of HTTP/2 connections on their own thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
