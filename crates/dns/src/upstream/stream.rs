//! Queries over TCP and TLS (RFC 7766, RFC 7858). A connection carries one query at a time and is kept for the next.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::random;
use super::{Ask, Failure, IDLE_MAX, local_address};
use crate::message::Message;
use crate::wire::eq_names;

/// A connection, plain or in TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connections to one server.
pub(super) struct Streams {
    to: SocketAddr,
    source: Option<IpAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// How long an idle connection is kept.
    expire: Duration,
    idle: Mutex<Vec<(Box<dyn Duplex>, Instant)>>,
}

impl Streams {
    pub(super) fn new(
        to: SocketAddr,
        source: Option<IpAddr>,
        expire: Duration,
        tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    ) -> Self {
        let tls = tls.map(|(config, name)| (TlsConnector::from(config), name));
        Streams {
            to,
            source,
            tls,
            expire,
            idle: Mutex::default(),
        }
    }

    /// Asks on a connection that is there, or else on a new one. One that the server has closed meanwhile does no harm.
    /// Says whether a connection was there.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Message, bool), Failure> {
        while let Some(mut stream) = self.take_idle() {
            match exchange(&mut stream, ask).await {
                Ok(message) => {
                    self.keep(stream);
                    return Ok((message, true));
                }
                Err(Failure::Io(_)) => {}
                Err(other) => return Err(other),
            }
        }
        let mut stream = self.connect().await?;
        let message = exchange(&mut stream, ask).await?;
        self.keep(stream);
        Ok((message, false))
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, Failure> {
        let stream = dial(self.to, self.source).await?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await?;
                Ok(Box::new(stream))
            }
        }
    }

    fn take_idle(&self) -> Option<Box<dyn Duplex>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, since) = idle.pop()?;
        if since.elapsed() < self.expire {
            return Some(stream);
        }
        // The newest is the last one: all others are older still.
        idle.clear();
        None
    }

    pub(super) fn keep(&self, stream: Box<dyn Duplex>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push((stream, Instant::now()));
        }
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// Opens a connection.
pub(super) async fn dial(to: SocketAddr, source: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if source.is_some() {
        socket.bind(local_address(to, source))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(stream: &mut Box<dyn Duplex>, ask: &Ask) -> Result<Message, Failure> {
    let (query, id, question) = random::query(ask, false)?;
    let length = (query.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], &query].concat()).await?;
    stream.flush().await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    let message = Message::read(&answer).map_err(|_| Failure::Mismatch)?;
    match fits(&message, id, &question) {
        true => Ok(message),
        false => Err(Failure::Mismatch),
    }
}

/// Whether an answer from a stream belongs to the question; nobody else can write into it, so case does not matter.
pub(super) fn fits(message: &Message, id: u16, question: &crate::message::Question) -> bool {
    let found = &message.question;
    message.response
        && message.id == id
        && (found.rtype, found.class) == (question.rtype, question.class)
        && eq_names(found.name.as_wire(), question.name.as_wire())
}
