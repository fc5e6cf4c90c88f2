//! How TLS is spoken to the endpoints of an Ingress that says more than "TLS": whose certificates are believed, and which
//! one is shown (`proxy-ssl-secret`, `proxy-ssl-verify`).

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsConnector;

/// How TLS is spoken to endpoints, for HTTP/1.1 and for HTTP/2. Two of them are equal when they were made of the same
/// texts: connections are shared then.
pub struct EndpointTls {
    pub(crate) id: TlsId,
    /// Whether certificates of endpoints are checked.
    pub(crate) verifies: bool,
    pub(crate) http1: TlsConnector,
    pub(crate) http2: TlsConnector,
}

/// A hash of what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TlsId([u8; 32]);

/// What it is made of, as PEM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Material<'a> {
    /// Authorities of endpoints; `None` believes every certificate.
    pub authorities: Option<&'a [u8]>,
    /// The certificate that endpoints are shown with those that vouch for it, and its key.
    pub identity: Option<(&'a [u8], &'a [u8])>,
    /// Whether endpoints are told the name that they are asked for (SNI).
    pub sends_name: bool,
}

/// Why it cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointTlsError {
    /// There is no authority.
    #[error("ca.crt holds no certificate in PEM that can be an authority")]
    Authority,
    /// There is a certificate or a key, and it cannot be shown.
    #[error("tls.crt and tls.key cannot be shown to endpoints: {0}")]
    Identity(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl EndpointTls {
    /// Of this material.
    pub fn new(material: Material<'_>) -> Result<EndpointTls, EndpointTlsError> {
        let config = |protocol: &[u8]| config(material, protocol).map(Arc::new);
        let mut digest = Sha256::new();
        let (chain, key) = material.identity.unwrap_or_default();
        for part in [material.authorities.unwrap_or_default(), chain, key] {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let flags = [material.authorities.is_some(), material.sends_name];
        digest.update(flags.map(u8::from));
        Ok(EndpointTls {
            id: TlsId(digest.finalize().into()),
            verifies: material.authorities.is_some(),
            http1: TlsConnector::from(config(b"http/1.1")?),
            http2: TlsConnector::from(config(b"h2")?),
        })
    }
}

fn config(material: Material<'_>, protocol: &[u8]) -> Result<ClientConfig, EndpointTlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| EndpointTlsError::Tls(error.to_string()))?;
    let builder = match material.authorities {
        Some(pem) => builder.with_root_certificates(authorities(pem)?),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    let words = |error: &dyn fmt::Display| EndpointTlsError::Identity(error.to_string());
    let mut config = match material.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = CertificateDer::pem_slice_iter(chain);
            let chain = chain
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| words(&e))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| words(&error))?;
            let built = builder.with_client_auth_cert(chain, key);
            built.map_err(|error| words(&error))?
        }
    };
    config.enable_sni = material.sends_name;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, EndpointTlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| EndpointTlsError::Authority)?;
        let added = store.add(certificate);
        added.map_err(|_| EndpointTlsError::Authority)?;
    }
    match store.is_empty() {
        true => Err(EndpointTlsError::Authority),
        false => Ok(store),
    }
}

impl PartialEq for EndpointTls {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for EndpointTls {}

/// Keys are not shown.
impl fmt::Debug for EndpointTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointTls {{ verifies: {} }}", self.verifies)
    }
}

/// Takes every certificate whose key the other side has.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_the_same_is_the_same() {
        let made = rcgen::generate_simple_self_signed(vec!["web".to_owned()]).unwrap();
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let material = Material {
            authorities: Some(chain.as_bytes()),
            identity: Some((chain.as_bytes(), key.as_bytes())),
            sends_name: true,
        };
        let tls = |material| EndpointTls::new(material).unwrap();
        assert_eq!(tls(material), tls(material));
        let others = [
            Material {
                sends_name: false,
                ..material
            },
            Material {
                identity: None,
                ..material
            },
            Material {
                authorities: None,
                ..material
            },
        ];
        for other in others {
            assert_ne!(tls(material), tls(other));
        }
        assert!(tls(material).verifies && !tls(Material::default()).verifies);
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let error = |authorities, identity| {
            let material = Material {
                authorities,
                identity,
                sends_name: false,
            };
            EndpointTls::new(material).unwrap_err()
        };
        assert_eq!(error(Some(b""), None), EndpointTlsError::Authority);
        assert_eq!(error(Some(b"text"), None), EndpointTlsError::Authority);
        let shown = error(None, Some((b"text", b"text")));
        assert!(matches!(shown, EndpointTlsError::Identity(_)), "{shown}");
    }
}
