//! Connections of one thread to endpoints, kept while they are idle; those of HTTP/2 are kept while they are busy, too,
//! and shared.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hyper::client::conn::http2;
use portolan_model::PortKey;
use tokio::time::Instant;

use super::super::body::Upload;
use super::super::limits::{IDLE_ALL_MAX, IDLE_MAX, IDLE_TIMEOUT, UPSTREAM_STREAMS_MAX};
use super::http1::Connection;
use crate::endpoint_tls::TlsId;
use crate::quick::Quick;
use crate::traffic::{Spoken, Traffic};

/// Where a connection leads, and what is spoken over it: requests for the same place may share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in super::super) struct Place {
    pub(in super::super) address: SocketAddr,
    pub(super) spoken: Spoken,
    pub(super) tls_name: Option<Arc<str>>,
    /// Whose certificates are believed, where that matters.
    tls: Option<TlsId>,
}

impl Place {
    /// An endpoint of a Service port. Where certificates are checked and nobody has named them, they must be for the
    /// Service.
    pub(in super::super) fn of(address: SocketAddr, traffic: &Traffic, key: &PortKey) -> Place {
        let named = traffic.tls_name.as_deref().map(Arc::from);
        let service = || {
            let service = &key.service;
            format!("{}.{}.svc", service.name, service.namespace).into()
        };
        let is_checked = traffic.tls.as_ref().is_some_and(|tls| tls.verifies);
        Place {
            address,
            spoken: traffic.spoken,
            tls_name: named.or_else(|| is_checked.then(service)),
            tls: traffic.tls.as_ref().map(|tls| tls.id),
        }
    }
}

/// A connection that a request can be sent over.
pub(super) enum Sender {
    /// One request at a time.
    Http1(Box<Connection>),
    /// Many at a time; the second part counts them.
    Http2(http2::SendRequest<Upload>, Rc<()>),
}

impl Sender {
    /// Whether it is a connection of HTTP/1.1 that a request can be sent over.
    fn is_quiet(&mut self) -> bool {
        match self {
            Sender::Http1(connection) => connection.is_alive(),
            Sender::Http2(..) => false,
        }
    }

    fn streams(&self) -> Option<&Rc<()>> {
        match self {
            Sender::Http1(_) => None,
            Sender::Http2(_, streams) => Some(streams),
        }
    }
}

/// Connections by place, the one that was used last at the end.
#[derive(Default)]
pub(super) struct Pool {
    by_place: HashMap<Place, Vec<(Sender, Instant)>, BuildHasherDefault<Quick>>,
    count: usize,
}

impl Pool {
    /// A connection that can be used at once.
    pub(super) fn take(&mut self, place: &Place, now: Instant) -> Option<Sender> {
        let kept = self.by_place.get_mut(place)?;
        if place.spoken.is_http2() {
            let usable = kept
                .iter_mut()
                .rev()
                .find_map(|(sender, used)| match sender {
                    Sender::Http2(sender, streams) => {
                        let has_room = Rc::strong_count(streams) <= UPSTREAM_STREAMS_MAX;
                        let usable = has_room && sender.is_ready();
                        usable.then(|| {
                            *used = now;
                            Sender::Http2(sender.clone(), Rc::clone(streams))
                        })
                    }
                    Sender::Http1(_) => None,
                });
            return usable;
        }
        while let Some((mut sender, _)) = kept.pop() {
            self.count -= 1;
            if sender.is_quiet() {
                return Some(sender);
            }
        }
        None
    }

    /// Whether it has this connection of HTTP/2 already.
    pub(super) fn has(&self, place: &Place, sender: &Sender) -> bool {
        let kept = self.by_place.get(place).into_iter().flatten();
        let mut counters = kept.filter_map(|(sender, _)| sender.streams());
        counters.any(|streams| sender.streams().is_some_and(|own| Rc::ptr_eq(streams, own)))
    }

    /// Keeps a connection, if there is room.
    pub(super) fn put(&mut self, place: Place, sender: Sender, now: Instant) {
        if self.count >= IDLE_ALL_MAX {
            return;
        }
        let kept = self.by_place.entry(place).or_default();
        if kept.len() < IDLE_MAX {
            kept.push((sender, now));
            self.count += 1;
        }
    }

    /// Closes what was not used for long, or is closed on the other side.
    pub(super) fn trim(&mut self, now: Instant) {
        self.by_place.retain(|_, kept| {
            kept.retain_mut(|(sender, since)| {
                let is_old = now - *since >= IDLE_TIMEOUT;
                match sender {
                    Sender::Http1(connection) => connection.is_alive() && !is_old,
                    Sender::Http2(sender, streams) => {
                        let is_busy = Rc::strong_count(streams) > 1;
                        !sender.is_closed() && (is_busy || !is_old)
                    }
                }
            });
            !kept.is_empty()
        });
        self.count = self.by_place.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;

    use super::super::http1::Stream;
    use super::*;
    use crate::server::connection::Local;

    fn place(number: usize, spoken: Spoken) -> Place {
        Place {
            address: SocketAddr::from(([10, 1, 0, 10], number as u16)),
            spoken,
            tls_name: None,
            tls: None,
        }
    }

    fn http1() -> Sender {
        let (ours, _) = tokio::io::duplex(64);
        Sender::Http1(Box::new(Connection::new(Stream::Test(ours))))
    }

    #[tokio::test]
    async fn so_many_connections_are_kept_and_no_more() {
        let (mut pool, now) = (Pool::default(), Instant::now());
        let first = place(1, Spoken::Http);
        for _ in 0..=IDLE_MAX {
            pool.put(first.clone(), http1(), now);
        }
        assert_eq!(pool.by_place[&first].len(), IDLE_MAX);
        let mut number = 1;
        while pool.count < IDLE_ALL_MAX {
            number += 1;
            pool.put(place(number, Spoken::Http), http1(), now);
        }
        let last = place(number + 1, Spoken::Http);
        pool.put(last.clone(), http1(), now);
        assert!(!pool.by_place.contains_key(&last));
        assert_eq!(pool.count, IDLE_ALL_MAX);
        // Their other sides are gone: all of them go, and there is room again.
        pool.trim(now + IDLE_TIMEOUT);
        assert_eq!((pool.count, pool.by_place.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_connection_has_so_many_streams_and_no_more() {
        let fill = async {
            let (ours, _theirs) = tokio::io::duplex(4096);
            let shaken = http2::Builder::new(Local).handshake(TokioIo::new(ours));
            let (sender, _connection) = shaken.await.unwrap();
            let (mut pool, now) = (Pool::default(), Instant::now());
            let place = place(1, Spoken::H2c);
            pool.put(place.clone(), Sender::Http2(sender, Rc::new(())), now);
            let mut streams: Vec<Sender> = Vec::new();
            while let Some(sender) = pool.take(&place, now) {
                streams.push(sender);
            }
            assert_eq!(streams.len(), UPSTREAM_STREAMS_MAX);
            streams.pop();
            assert!(pool.take(&place, now).is_some());
        };
        tokio::task::LocalSet::new().run_until(fill).await;
    }
}
