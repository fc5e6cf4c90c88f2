//! Queries over HTTPS (RFC 8484): one HTTP/2 connection carries all queries to a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::random;
use super::stream::{dial, fits};
use super::{Ask, Failure};
use crate::message::Message;
use crate::wire::MESSAGE_BYTES_MAX;

const CONTENT: &str = "application/dns-message";

/// The connection to one server.
pub(super) struct Https {
    url: url::Url,
    connector: TlsConnector,
    name: ServerName<'static>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Moves the connection's bytes; ends with it, and with us.
    driver: JoinSet<()>,
}

impl Https {
    pub(super) fn new(
        url: url::Url,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Self {
        Https {
            url,
            connector: TlsConnector::from(config),
            name,
            state: Mutex::default(),
        }
    }

    /// Asks; says whether a connection was there.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<(Message, bool), Failure> {
        if let Some(connection) = self.standing() {
            match self.exchange(connection, ask).await {
                // The server may have closed it while nobody looked.
                Err(Failure::Http(_)) => self.forget(),
                done => return done.map(|message| (message, true)),
            }
        }
        let connection = self.connect().await?;
        let message = self.exchange(connection, ask).await?;
        Ok((message, false))
    }

    fn standing(&self) -> Option<SendRequest<Full<Bytes>>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .connection
            .clone()
            .filter(|connection| !connection.is_closed())
    }

    fn forget(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.connection = None;
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = dial(self.address().await?, None).await?;
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        let (connection, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| Failure::Http(error.to_string()))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.driver.abort_all();
        state.driver.spawn(async {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "a connection of HTTPS has ended");
            }
        });
        state.connection = Some(connection.clone());
        Ok(connection)
    }

    /// The host's own resolver finds the server of a name: ours may be what is asked for.
    async fn address(&self) -> Result<SocketAddr, Failure> {
        let host = self.url.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.url.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((bare, port)).await?.next();
        found.ok_or_else(|| Failure::Http(format!("{host} has no address")))
    }

    async fn exchange(
        &self,
        mut connection: SendRequest<Full<Bytes>>,
        ask: &Ask,
    ) -> Result<Message, Failure> {
        let (query, id, question) = random::query(ask, false)?;
        let request = Request::post(self.url.as_str())
            .header(header::CONTENT_TYPE, CONTENT)
            .header(header::ACCEPT, CONTENT)
            .body(Full::new(Bytes::from(query)))
            .map_err(|error| Failure::Http(error.to_string()))?;
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| Failure::Http(error.to_string()))?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(Failure::Io(std::io::Error::other(format!(
                "HTTP status {status}"
            ))));
        }
        let body = Limited::new(response.into_body(), MESSAGE_BYTES_MAX)
            .collect()
            .await;
        let body = body
            .map_err(|error| Failure::Http(error.to_string()))?
            .to_bytes();
        let message = Message::read(&body).map_err(|_| Failure::Mismatch)?;
        match fits(&message, id, &question) {
            true => Ok(message),
            false => Err(Failure::Mismatch),
        }
    }
}
