//! New connections to endpoints: TCP, who the client is (PROXY protocol), TLS, and HTTP/1.1 or HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::super::connection::Local;
use super::super::limits::{HEAD_BYTES_MAX, UPSTREAM_CONNECTION_WINDOW, UPSTREAM_STREAM_WINDOW};
use super::http1::{Connection, Stream};
use super::pool::{Place, Sender};
use crate::endpoint_tls::{EndpointTls, Material};

/// How TLS is spoken to endpoints: for HTTP/1.1, and for HTTP/2.
#[derive(Clone)]
pub(in super::super) struct Tls {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Tls {
    /// Certificates of endpoints are not checked where nobody asks for it, as with ingress-nginx: pods have as a rule
    /// some that they have made themselves, and the network of the cluster is what is trusted.
    pub(in super::super) fn unverified() -> Result<Tls, String> {
        let material = Material {
            sends_name: true,
            ..Material::default()
        };
        let tls = EndpointTls::new(material).map_err(|error| error.to_string())?;
        Ok(Tls {
            http1: tls.http1,
            http2: tls.http2,
        })
    }
}

/// Makes a connection; `announcement` is said before anything else. `own` is how TLS is spoken there, if not as
/// everywhere.
pub(super) async fn dial(
    place: &Place,
    announcement: Option<&[u8]>,
    own: Option<&EndpointTls>,
    tls: &Tls,
) -> io::Result<Sender> {
    let mut stream = TcpStream::connect(place.address).await?;
    // Small answers must not wait for each other; a socket that refuses this is still good.
    let _ = stream.set_nodelay(true);
    if let Some(announcement) = announcement {
        stream.write_all(announcement).await?;
    }
    if !place.spoken.is_tls() {
        return handshake(place, Stream::Plain(stream)).await;
    }
    let name = match &place.tls_name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        // No name is sent for an address.
        None => ServerName::IpAddress(place.address.ip().into()),
    };
    let connector = match (own, place.spoken.is_http2()) {
        (None, true) => &tls.http2,
        (None, false) => &tls.http1,
        (Some(own), true) => &own.http2,
        (Some(own), false) => &own.http1,
    };
    let stream = connector.connect(name, stream).await?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if place.spoken.is_http2() && agreed != Some(b"h2") {
        return Err(io::Error::other("it speaks no HTTP/2 in TLS"));
    }
    handshake(place, Stream::Tls(Box::new(stream))).await
}

async fn handshake(place: &Place, stream: Stream) -> io::Result<Sender> {
    if !place.spoken.is_http2() {
        return Ok(Sender::Http1(Box::new(Connection::new(stream))));
    }
    let (io, endpoint) = (TokioIo::new(stream), place.address);
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(UPSTREAM_STREAM_WINDOW)
        .initial_connection_window_size(UPSTREAM_CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        tell(endpoint, connection.await);
    });
    Ok(Sender::Http2(sender, Rc::new(())))
}

fn tell(endpoint: SocketAddr, result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%endpoint, %error, "connection to an endpoint");
    }
}
