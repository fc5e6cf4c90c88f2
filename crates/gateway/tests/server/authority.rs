//! Endpoints whose certificates are checked, and who want to see one.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::site::{Site, path, rules};

/// An authority of its own.
struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for a name, and its key.
    fn signed(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server with a certificate for a name, which wants to see one of the same authority.
    fn backend(&self, number: u8, name: &str) -> Backend {
        let (certificate, key) = self.signed(name);
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key);
        Backend::start_secure(number, config.unwrap())
    }

    /// A Secret with this authority and a certificate of `of`.
    fn secret(&self, of: &Authority) -> Value {
        let (certificate, key) = of.signed("gateway");
        let text = |text: &str| STANDARD.encode(text);
        json!({"ca.crt": text(&self.pem), "tls.crt": text(&certificate.pem()), "tls.key": text(&key.serialize_pem())})
    }
}

#[test]
fn certificates_of_endpoints_are_checked_where_that_is_wanted() {
    let (ours, other) = (Authority::new(), Authority::new());
    let web = ours.backend(1, "web.shop.svc");
    let paths = [path("/", "Prefix", "web")];
    let with = |more: Value| {
        let mut all = json!({"backend-protocol": "HTTPS", "proxy-ssl-verify": "on", "proxy-ssl-secret": "ours"});
        let more = more.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        all
    };
    let served = Site::new(&[web.address], &[])
        .secret("ours", ours.secret(&ours))
        .secret("stranger", ours.secret(&other))
        .secret("other", other.secret(&ours))
        .secret("empty", json!({}))
        .ingress("a", with(json!({})), rules("a.com", &paths))
        .ingress(
            "b",
            with(json!({"proxy-ssl-name": "web.shop.svc"})),
            rules("named.com", &paths),
        )
        .ingress(
            "c",
            with(json!({"proxy-ssl-name": "else.shop.svc"})),
            rules("misnamed.com", &paths),
        )
        .ingress(
            "d",
            with(json!({"proxy-ssl-secret": "other"})),
            rules("unknown.com", &paths),
        )
        .ingress(
            "e",
            with(json!({"proxy-ssl-secret": "shop/stranger"})),
            rules("stranger.com", &paths),
        )
        .ingress(
            "f",
            with(json!({"proxy-ssl-secret": "empty"})),
            rules("closed.com", &paths),
        )
        .ingress(
            "g",
            with(json!({"proxy-ssl-secret": "none"})),
            rules("missing.com", &paths),
        )
        .ingress(
            "h",
            json!({"backend-protocol": "HTTPS", "proxy-ssl-verify": "on"}),
            rules("alone.com", &paths),
        )
        .ingress(
            "i",
            with(json!({"proxy-ssl-verify": "off", "proxy-ssl-name": "else.shop.svc"})),
            rules("unchecked.com", &paths),
        )
        .serve();
    assert_eq!(served.reasons, ["AccessClosed"; 3]);
    for (host, status) in [
        ("a.com", 200),
        ("named.com", 200),
        ("unchecked.com", 200),
        ("misnamed.com", 502),
        ("unknown.com", 502),
        ("stranger.com", 502),
        ("closed.com", 503),
        ("missing.com", 503),
        ("alone.com", 503),
    ] {
        assert_eq!(served.status(host, "/", &[]), status, "{host}");
    }
}
