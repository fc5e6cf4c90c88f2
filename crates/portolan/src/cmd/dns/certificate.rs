//! The certificate of a listener: when its files change, the next clients get the new one.
//!
//! Files are looked at when a client comes, so that there is nothing to do where nobody does.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use portolan_dns::corefile::plugin::Tls;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes of a file: chains of certificates have some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate and its key.
#[derive(Debug)]
pub(super) struct Certificate {
    tls: Tls,
    provider: Arc<CryptoProvider>,
    present: Mutex<Present>,
}

#[derive(Debug)]
struct Present {
    key: Arc<CertifiedKey>,
    /// What was read last, whether it could be used or not.
    bytes: [Vec<u8>; 2],
    looked: Instant,
}

impl Certificate {
    /// Reads both files.
    pub(super) fn new(tls: &Tls, provider: Arc<CryptoProvider>) -> anyhow::Result<Certificate> {
        let bytes = read(tls)?;
        let key = Arc::new(certified(tls, &bytes, &provider)?);
        let looked = Instant::now();
        let present = Mutex::new(Present { key, bytes, looked });
        Ok(Certificate {
            tls: tls.clone(),
            provider,
            present,
        })
    }

    /// The newest one that can be used.
    fn at(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(present.looked) >= LOOK {
            present.looked = now;
            match self.newer(&mut present) {
                Ok(true) => tracing::info!("{} has changed and is used", self.tls.cert.display()),
                Ok(false) => {}
                Err(error) => tracing::error!("the old certificate stays: {error:#}"),
            }
        }
        Arc::clone(&present.key)
    }

    /// Whether there is another one now; what cannot be used is told once.
    fn newer(&self, present: &mut Present) -> anyhow::Result<bool> {
        let bytes = read(&self.tls)?;
        if bytes == present.bytes {
            return Ok(false);
        }
        let key = certified(&self.tls, &bytes, &self.provider);
        present.bytes = bytes;
        present.key = Arc::new(key?);
        Ok(true)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.at(Instant::now()))
    }
}

fn read(tls: &Tls) -> anyhow::Result<[Vec<u8>; 2]> {
    let file = |path: &Path, what: &str| {
        let length = std::fs::metadata(path).map(|data| data.len());
        let bytes = match length {
            Ok(length) if length > FILE_BYTES_MAX => {
                anyhow::bail!(
                    "{} has more than {FILE_BYTES_MAX} bytes (tls)",
                    path.display()
                )
            }
            Ok(_) => std::fs::read(path),
            Err(error) => Err(error),
        };
        bytes.with_context(|| format!("cannot read the {what} {} (tls)", path.display()))
    };
    Ok([file(&tls.cert, "certificates")?, file(&tls.key, "key")?])
}

fn certified(
    tls: &Tls,
    [certificates, key]: &[Vec<u8>; 2],
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let (cert_path, key_path) = (tls.cert.display(), tls.key.display());
    let words = || format!("cannot use the certificates {cert_path} (tls)");
    let chain = CertificateDer::pem_slice_iter(certificates);
    let chain: Vec<_> = chain.collect::<Result<_, _>>().with_context(words)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .with_context(|| format!("cannot use the key {key_path} (tls)"))?;
    CertifiedKey::from_der(chain, key, provider)
        .with_context(|| format!("{cert_path} and {key_path} do not belong together (tls)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key as files have them.
    fn made() -> [String; 2] {
        let made = rcgen::generate_simple_self_signed(["dns.example.org".to_owned()]).unwrap();
        [made.cert.pem(), made.signing_key.serialize_pem()]
    }

    fn write(tls: &Tls, [cert, key]: &[String; 2]) {
        std::fs::write(&tls.cert, cert).unwrap();
        std::fs::write(&tls.key, key).unwrap();
    }

    fn leaf(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_changed_certificate_is_used_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls {
            cert: folder.path().join("cert"),
            key: folder.path().join("key"),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        assert!(Certificate::new(&tls, Arc::clone(&provider)).is_err());
        let [first, second] = [made(), made()];
        write(&tls, &first);
        let certificate = Certificate::new(&tls, Arc::clone(&provider)).unwrap();
        let began = certificate.present.lock().unwrap().looked;
        let serves = |looks: u32, pem: &str| {
            let key = certificate.at(began + LOOK * looks);
            assert_eq!(key.cert, [leaf(pem)]);
        };
        write(&tls, &second);
        serves(0, &first[0]);
        serves(1, &second[0]);
        // Half of a change, and none at all.
        write(&tls, &[first[0].clone(), second[1].clone()]);
        serves(2, &second[0]);
        std::fs::remove_file(&tls.key).unwrap();
        serves(3, &second[0]);
        write(&tls, &first);
        serves(4, &first[0]);
        let other = Tls {
            key: tls.cert.clone(),
            ..tls
        };
        let error = format!("{:#}", Certificate::new(&other, provider).unwrap_err());
        assert!(error.contains("cannot use the key"), "{error}");
    }
}
