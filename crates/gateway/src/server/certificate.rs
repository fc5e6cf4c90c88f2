//! Which certificate a client of TLS is shown: by the name that it asks for (SNI).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use super::Live;
use crate::host::{Host, request_host, wildcard_of};

/// A certificate with its chain and key, ready to be used; cheap to copy.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} certificates)", self.0.cert.len())
    }
}

/// Why a certificate and a key are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// No certificate, or something else, is in the text.
    #[error("tls.crt holds no certificate in PEM")]
    Certificate,
    /// No key, or something else, is in the text.
    #[error("tls.key holds no private key in PEM")]
    Key,
    /// The key is of a kind that cannot be used.
    #[error("tls.key cannot be used: {0}")]
    Unusable(String),
    /// They do not belong together.
    #[error("tls.key is not the key of the first certificate in tls.crt")]
    Mismatch,
}

impl Identity {
    /// Reads a chain, its own certificate first, and a key: ECDSA, RSA or Ed25519.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| CertificateError::Certificate)?;
        if chain.is_empty() {
            return Err(CertificateError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Key)?;
        Identity::new(chain, &key)
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Identity, CertificateError> {
        let unusable = |error: rustls::Error| CertificateError::Unusable(error.to_string());
        let key = aws_lc_rs::sign::any_supported_type(key).map_err(unusable)?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // A key that cannot say what its public half is may still be the right one.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
                Ok(Identity(Arc::new(certified)))
            }
            Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch),
            Err(_) => Err(CertificateError::Certificate),
        }
    }

    /// One of our own making, which no client trusts: for names that have no other.
    pub fn self_signed() -> Result<Identity, String> {
        let words = |error: rcgen::Error| error.to_string();
        let key = rcgen::KeyPair::generate().map_err(words)?;
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).map_err(words)?;
        parameters.distinguished_name.push(
            rcgen::DnType::CommonName,
            "Portolan gateway: no certificate for this name",
        );
        let certificate = parameters.self_signed(&key).map_err(words)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        Identity::new(vec![certificate.der().clone()], &key).map_err(|error| error.to_string())
    }
}

/// Certificates by name.
#[derive(Debug, Default)]
pub struct Certificates {
    exact: HashMap<Box<str>, Identity>,
    /// By the name behind the wildcard.
    wildcard: HashMap<Box<str>, Identity>,
    any: Option<Identity>,
}

impl Certificates {
    /// One certificate for each host; `other` is shown for names that none of them is for, and to clients that name
    /// none.
    pub fn new(all: impl IntoIterator<Item = (Host, Identity)>, other: Identity) -> Certificates {
        let mut certificates = Certificates {
            any: Some(other),
            ..Certificates::default()
        };
        for (host, identity) in all {
            match host {
                Host::Exact(name) => drop(certificates.exact.insert(name, identity)),
                Host::Wildcard(name) => drop(certificates.wildcard.insert(name, identity)),
                Host::Any => certificates.any = Some(identity),
            }
        }
        certificates
    }

    /// Whether `host` has a certificate of its own that is not the one which a client that asks for `name` is shown: such
    /// a request is meant for another connection (RFC 9110 section 15.5.20).
    pub(super) fn differ(&self, name: &str, host: &str) -> bool {
        let own = self.named(host);
        let shown = self.find(Some(name));
        own.zip(shown)
            .is_some_and(|(own, shown)| !Arc::ptr_eq(&own.0, &shown.0))
    }

    /// The certificate that somebody has given for this host.
    fn named(&self, host: &str) -> Option<&Identity> {
        let wildcard = || wildcard_of(host).and_then(|name| self.wildcard.get(name));
        self.exact.get(host).or_else(wildcard)
    }

    fn find(&self, name: Option<&str>) -> Option<&Identity> {
        let name = name
            .and_then(|name| request_host(name).ok())
            .unwrap_or_default();
        self.named(&name).or(self.any.as_ref())
    }
}

/// Looks the name up in whatever is live.
struct Resolver(Arc<ArcSwap<Live>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let live = self.0.load();
        live.certificates
            .find(hello.server_name())
            .map(|identity| Arc::clone(&identity.0))
    }
}

/// Speaks TLS 1.2 and 1.3, and HTTP/2 or HTTP/1 in it as the client likes.
pub(super) fn acceptor(live: Arc<ArcSwap<Live>>) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(live)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The same certificates for QUIC: TLS 1.3 alone (RFC 9001 section 4.2), and HTTP/3 in it.
pub(super) fn quic(live: Arc<ArcSwap<Live>>) -> Result<ServerConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?;
    let mut config = builder
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(live)));
    config.alpn_protocols = vec![b"h3".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["a.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn chains_and_keys_belong_together() {
        let (chain, key) = pem();
        assert!(Identity::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
        let (_, other) = pem();
        let of = |chain: &str, key: &str| {
            Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err()
        };
        assert_eq!(of(&chain, &other), CertificateError::Mismatch);
        assert_eq!(of("x", &key), CertificateError::Certificate);
        assert_eq!(of(&chain, "x"), CertificateError::Key);
        assert_eq!(of(&key, &key), CertificateError::Certificate);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(of(broken, &key), CertificateError::Certificate);
    }

    #[test]
    fn names_find_their_certificates() {
        let identity = || Identity::self_signed().unwrap();
        let (exact, wildcard, other) = (identity(), identity(), identity());
        let all = [
            (Host::parse("a.b.com").unwrap(), exact.clone()),
            (Host::parse("*.b.com").unwrap(), wildcard.clone()),
        ];
        let certificates = Certificates::new(all, other.clone());
        let is = |name: Option<&str>, wanted: &Identity| {
            certificates
                .find(name)
                .is_some_and(|found| Arc::ptr_eq(&found.0, &wanted.0))
        };
        assert!(is(Some("A.b.com"), &exact) && is(Some("x.b.com"), &wildcard));
        assert!(is(Some("x.y.b.com"), &other) && is(Some("b.com"), &other) && is(None, &other));
        assert!(Certificates::default().find(Some("a.com")).is_none());
        assert!(
            certificates.differ("x.b.com", "a.b.com")
                && certificates.differ("other.com", "x.b.com")
        );
        assert!(
            !certificates.differ("a.b.com", "a.b.com")
                && !certificates.differ("y.b.com", "x.b.com")
        );
        assert!(
            !certificates.differ("a.b.com", "other.com"),
            "it has none of its own"
        );
    }
}
