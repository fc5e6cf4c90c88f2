//! `/health`, `/ready` and `/metrics`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use portolan_dns::corefile::Listen;
use tokio::sync::Semaphore;

use super::plan::{Plan, Roles};
use super::serve::State;
use crate::cmd::proxy::health::{accept, reply};

/// Connections that are served at a time at one place; more wait. Probes and a scraper or two need a handful.
const CONNECTIONS_MAX: usize = 64;

/// Opens all places for HTTP, or none.
pub(super) fn open_all(plan: &Plan) -> anyhow::Result<BTreeMap<Listen, TcpListener>> {
    plan.pages
        .keys()
        .map(|listen| Ok((*listen, open(*listen)?)))
        .collect()
}

/// Opens one.
pub(super) fn open(listen: Listen) -> anyhow::Result<TcpListener> {
    let everywhere = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port);
    let opened = match (TcpListener::bind(listen.address()), listen.host) {
        // No IPv6 here.
        (Err(error), None) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            TcpListener::bind(everywhere)
        }
        (opened, _) => opened,
    };
    let listener = opened
        .with_context(|| format!("cannot listen at {listen} for health, ready or prometheus"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers at one place for ever.
pub(super) async fn serve(listener: TcpListener, roles: Roles, state: Arc<State>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let answering = async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        accept(listener, room, move |path| answer(path, roles, &state)).await
    };
    if let Err(error) = answering.await {
        tracing::error!(%error, "pages are not served any more");
    }
}

fn answer(path: &str, roles: Roles, state: &State) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    match path {
        "/health" if roles.health => reply(StatusCode::OK, TEXT, "OK".into()),
        "/ready" if roles.ready => match state.unready() {
            None => reply(StatusCode::OK, TEXT, "OK".into()),
            Some(names) => reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, names),
        },
        "/metrics" if roles.metrics => reply(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            state.metrics(),
        ),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "404 page not found\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    /// Only a failure waits for so long.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn is_answered(stream: &mut TcpStream, patience: Duration) -> bool {
        let mut bytes = [0; 512];
        let read = tokio::time::timeout(patience, stream.read(&mut bytes)).await;
        matches!(read, Ok(Ok(length)) if bytes[..length].ends_with(b"OK"))
    }

    #[tokio::test]
    async fn so_many_connections_are_served_and_the_next_one_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let roles = Roles {
            health: true,
            ..Roles::default()
        };
        let mut task = tokio::task::JoinSet::new();
        task.spawn(serve(listener, roles, Arc::default()));
        let mut streams = Vec::new();
        for _ in 0..=CONNECTIONS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            streams.push(stream);
        }
        let mut last = streams.pop().unwrap();
        for stream in &mut streams {
            assert!(is_answered(stream, PATIENCE).await);
        }
        // All others are answered and are open still.
        assert!(!is_answered(&mut last, Duration::from_millis(100)).await);
        drop(streams.pop());
        assert!(is_answered(&mut last, PATIENCE).await, "there is room now");
    }
}
