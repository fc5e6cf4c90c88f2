//! Connections: plain, in TLS, and in HTTPS.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::limits::ACCEPT_PAUSE;
use super::listen::Protocol;
use super::stream::Stream;
use super::udp::{Shared, canonical};
use super::{Answer, Client, Limits, Transport, https};

/// Room for streams, over all listeners.
pub(crate) struct Streams(Arc<Semaphore>);

impl Streams {
    pub fn new(limits: Limits) -> Self {
        Streams(Arc::new(Semaphore::new(limits.streams_max)))
    }
}

/// Takes connections until it is told to end.
pub(crate) async fn accept<A: Answer>(
    shared: Arc<Shared<A>>,
    streams: Arc<Streams>,
    listener: TcpListener,
    protocol: Protocol,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shared.closed.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Where there is no room the connection is closed at once, and the client asks elsewhere.
        let Ok(permit) = Arc::clone(&streams.0).try_acquire_owned() else {
            continue;
        };
        let (shared, protocol) = (Arc::clone(&shared), protocol.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(serve(shared, protocol, stream, from, permit));
    }
}

async fn serve<A: Answer>(
    shared: Arc<Shared<A>>,
    protocol: Protocol,
    stream: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let abort = shared.abort.clone();
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = speak(shared, protocol, stream, from) => {}
        _ = abort.cancelled() => {}
    }
    drop(permit);
}

async fn speak<A: Answer>(
    shared: Arc<Shared<A>>,
    protocol: Protocol,
    stream: TcpStream,
    from: SocketAddr,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?.ip().to_canonical();
    let limits = shared.limits;
    let served = |transport| Stream {
        answer: Arc::clone(&shared.answer),
        client: Client {
            address: canonical(from),
            local,
            transport,
        },
        limits,
        closed: shared.closed.clone(),
    };
    match protocol {
        Protocol::Plain => served(Transport::Tcp).serve(stream).await,
        Protocol::Tls(config) => {
            let accepted = TlsAcceptor::from(config).accept(stream);
            let stream = timeout(limits.idle, accepted).await??;
            served(Transport::Tls).serve(stream).await
        }
        Protocol::Https(config) => {
            let accepted = TlsAcceptor::from(config).accept(stream);
            let stream = timeout(limits.idle, accepted).await??;
            https::serve(served(Transport::Https), stream).await
        }
    }
}
