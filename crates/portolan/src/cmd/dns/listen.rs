//! The sockets of a plan.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use portolan_dns::corefile::Scheme;
use portolan_dns::corefile::plugin::Tls;
use portolan_dns::server::{Bound, Listener, Protocol, bind};
use rustls::ServerConfig;

use super::certificate::Certificate;
use super::plan::{Behind, Place};

/// Opens the sockets of one place; there are none where the machine has no IPv6.
pub(super) fn open(place: Place, behind: &Behind) -> anyhow::Result<Option<Bound>> {
    let protocol = match (place.scheme, &behind.tls) {
        (Scheme::Tls, Some(tls)) => Protocol::Tls(config(tls, &[b"dot"])?),
        (Scheme::Https, Some(tls)) => Protocol::Https(config(tls, &[b"h2", b"http/1.1"])?),
        _ => Protocol::Plain,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let listener = Listener {
        address: place.address,
        protocol,
    };
    match bind(&[listener], threads) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if is_without_ipv6(place.address, &error.error) => {
            tracing::info!("there is no IPv6 here: {error}");
            Ok(None)
        }
        Err(error) => Err(error)
            .context("another DNS server may listen there; \"bind\" chooses other addresses"),
    }
}

fn is_without_ipv6(address: SocketAddr, error: &std::io::Error) -> bool {
    let unsupported = [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL];
    let code = error.raw_os_error().unwrap_or_default();
    address.ip().is_unspecified() && address.is_ipv6() && unsupported.contains(&code)
}

fn config(tls: &Tls, protocols: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let certificate = Certificate::new(tls, provider)?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(certificate));
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}
