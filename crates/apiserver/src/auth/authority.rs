//! The certificate authority: made at the first start, kept in the data directory, signs the server and its clients.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How long certificates live: longer than any cluster of one machine, which has nobody to renew them.
const VALID_YEARS: i16 = 20;

/// A certificate and its key, as PEM.
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: String,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// The kernel's words.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// What is in `ca.crt` is not a certificate.
    #[error("{path}: {source}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The certificates made here name one organization.
    #[error("a client certificate carries at most one group, not {0}")]
    Groups(usize),
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Reads the authority of a directory, or makes one there.
    pub fn open(directory: &Path) -> Result<Authority, Error> {
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        // The certificate is written last: without it there is no authority yet.
        if !certificate_path.exists() {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate = params().self_signed(&key)?;
            write_private(&key_path, &key.serialize_pem())?;
            write_private(&certificate_path, &certificate.pem())?;
        }
        let certificate_pem = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)?;
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|source| {
                Error::Pem {
                    path: certificate_path,
                    source,
                }
            })?;
        Ok(Authority {
            issuer: Issuer::new(params(), key),
            certificate_pem,
            certificate,
        })
    }

    /// The authority's certificate, which clients trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The same in binary form.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A certificate for the server under these names and addresses.
    pub fn server(
        &self,
        names: &[String],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), Error> {
        let mut params = CertificateParams::new(names.to_vec())?;
        valid(&mut params);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "portolan-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((
            certificate.der().clone(),
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        ))
    }

    /// A certificate for a user, in a group or in none.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Credentials, Error> {
        let mut params = CertificateParams::default();
        valid(&mut params);
        params.distinguished_name = DistinguishedName::new();
        match groups {
            [] => {}
            [group] => params
                .distinguished_name
                .push(DnType::OrganizationName, *group),
            more => return Err(Error::Groups(more.len())),
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// The authority's own parameters; only its key and times are not the same everywhere.
fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params);
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "portolan-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

/// From yesterday, for clocks that are a little behind.
fn valid(params: &mut CertificateParams) {
    let start = (Timestamp::now() - SignedDuration::from_hours(24))
        .to_zoned(TimeZone::UTC)
        .date();
    let date = |year: i16| {
        // Day 28 exists in every month of every year.
        let (month, day) = (
            start.month().unsigned_abs(),
            start.day().unsigned_abs().min(28),
        );
        date_time_ymd(i32::from(year), month, day)
    };
    params.not_before = date(start.year());
    params.not_after = date(start.year() + VALID_YEARS);
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that only its owner can read; a crash leaves the old one or the new one.
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let fail = |source| Error::File {
        path: path.to_owned(),
        source,
    };
    let temporary = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)
}
