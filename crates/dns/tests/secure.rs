//! Other servers over TLS and HTTPS: our own client and our own server, with a certificate of their own.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use portolan_dns::corefile::plugin::Forward as Options;
use portolan_dns::corefile::{self, Sources};
use portolan_dns::message::Question;
use portolan_dns::server::{Answer, Client, Limits, Listener, Protocol, Step, bind};
use portolan_dns::upstream::{Ask, Failed, Forward};
use portolan_dns::wire::{Builder, HEADER_BYTES, Name, Query, class, rtype};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// One address for every name.
struct Fixed;

impl Answer for Fixed {
    fn at_once(&self, query: &Query<'_>, client: &Client, out: &mut Vec<u8>) -> Step {
        let mut builder = Builder::new(query, out, client.bytes_max(query));
        builder.record(HEADER_BYTES, rtype::A, 7, &[203, 0, 113, 2]);
        builder.finish();
        Step::Answered
    }

    async fn later(&self, _: Vec<u8>, _: Client) -> Option<Vec<u8>> {
        None
    }
}

struct Nothing;

impl Sources for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn import(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("no files".to_string())
    }
}

fn options(line: &str) -> Options {
    let text = format!(". {{\n forward {line}\n}}\n");
    let config = corefile::parse("Corefile", &text, 53, &Nothing).unwrap();
    config.blocks[0].plugins.forward[0].clone()
}

/// A certificate for `dns.example.org`, as a file for clients and a configuration for servers.
fn certificate() -> (tempfile::NamedTempFile, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["dns.example.org".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"dot".to_vec(), b"h2".to_vec()];
    (file, Arc::new(config))
}

fn ask() -> Ask {
    let name = Name::parse("www.example.org").unwrap();
    Ask::of(Question {
        name,
        rtype: rtype::A,
        class: class::IN,
    })
}

async fn answered(forward: &Forward) {
    for _ in 0..3 {
        let report = forward.ask(&ask()).await.unwrap();
        assert_eq!(&*report.message.answers[0].data, [203, 0, 113, 2]);
    }
    let counts = &forward.servers()[0].counts;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(
        (count(&counts.opened), count(&counts.reused)),
        (1, 2),
        "one connection carries all"
    );
}

#[tokio::test]
async fn servers_are_asked_over_tls() {
    let (file, config) = certificate();
    let listener = Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: Protocol::Tls(config),
    };
    let bound = bind(&[listener], 1).unwrap();
    let address = bound.addresses().next().unwrap();
    let _server = bound
        .serve(
            Arc::new(Fixed),
            Limits::default(),
            &tokio::runtime::Handle::current(),
        )
        .unwrap();
    let ca = file.path().display();
    let line = format!(". tls://{address} {{\n tls {ca}\n tls_servername dns.example.org\n}}");
    answered(&Forward::new(&options(&line), false).unwrap()).await;
    let line = format!(". tls://{address} {{\n tls {ca}\n tls_servername evil.example.org\n}}");
    let other = Forward::new(&options(&line), false).unwrap();
    let failed = other.ask(&ask()).await;
    assert!(
        matches!(failed, Err(Failed::Servers(_))),
        "a certificate for somebody else: {failed:?}"
    );
}

#[tokio::test]
async fn servers_are_asked_over_https() {
    let (file, config) = certificate();
    let listener = Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        protocol: Protocol::Https(config),
    };
    let bound = bind(&[listener], 1).unwrap();
    let address = bound.addresses().next().unwrap();
    let _server = bound
        .serve(
            Arc::new(Fixed),
            Limits::default(),
            &tokio::runtime::Handle::current(),
        )
        .unwrap();
    let ca = file.path().display();
    let line =
        format!(". https://{address}/dns-query {{\n tls {ca}\n tls_servername dns.example.org\n}}");
    answered(&Forward::new(&options(&line), false).unwrap()).await;
}

#[test]
fn what_tls_needs_is_told_when_it_is_missing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let line = ". tls://127.0.0.1 {\n tls /nowhere/ca.pem\n}";
    let error = Forward::new(&options(line), false)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("cannot use /nowhere/ca.pem"), "{error}");
}
