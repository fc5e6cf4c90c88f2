//! HTTP/3, with a client of quinn and h3.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::client::{RequestStream, SendRequest};
use h3_quinn::OpenStreams;
use http::{HeaderMap, Request, Response, StatusCode};
use portolan_gateway::server::{Config, Limits, Live, Server, Settings};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::backend::Backend;
use crate::{all_of, certificate, certificates, curl, live};

/// Only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "shop.com";

/// A server, a backend behind it, and what is needed to speak to it.
struct World {
    server: Option<Server>,
    address: SocketAddr,
    backend: Backend,
    chain: String,
    runtime: Runtime,
}

impl World {
    fn new() -> World {
        World::with(Settings::default())
    }

    fn with(settings: Settings) -> World {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let config = Config {
            http: Vec::new(),
            https: vec![any],
            http3: vec![any],
            threads: 1,
            settings,
            sockets: Vec::new(),
        };
        let server = Server::start(config).unwrap();
        let backend = Backend::start(1);
        let (chain, identity) = certificate(NAME);
        server.swap(Live {
            certificates: certificates(NAME, identity),
            ..live(json!([all_of(NAME)]), &[backend.address])
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        World {
            address: server.http3()[0],
            server: Some(server),
            backend,
            chain,
            runtime: runtime.unwrap(),
        }
    }

    /// Runs what a client does.
    fn run<T>(&self, what: impl Future<Output = T>) -> T {
        let bounded = async { timeout(PATIENCE, what).await };
        self.runtime.block_on(bounded).expect("it takes too long")
    }
}

/// A connection of a client.
struct Client {
    send: SendRequest<OpenStreams, Bytes>,
    quic: quinn::Connection,
    /// Ends with the reason for which the connection ends.
    ended: tokio::task::JoinHandle<String>,
}

/// Method, headers and body.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);

type Stream = RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

impl Client {
    async fn of(world: &World) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        let chain = CertificateDer::from_pem_slice(world.chain.as_bytes()).unwrap();
        roots.add(chain).unwrap();
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let tls = QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        let quic = endpoint
            .connect(world.address, NAME)
            .unwrap()
            .await
            .unwrap();
        let http = h3_quinn::Connection::new(quic.clone());
        let (mut driver, send) = h3::client::new(http).await.unwrap();
        let ended = tokio::spawn(async move {
            let error = std::future::poll_fn(|cx| driver.poll_close(cx)).await;
            error.to_string()
        });
        Client { send, quic, ended }
    }

    async fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{NAME}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        self.send.send_request(request).await.unwrap()
    }

    async fn get(&mut self, path: &str) -> (Response<()>, Bytes) {
        let mut stream = self.begin("GET", path, &[]).await;
        stream.finish().await.unwrap();
        answer(&mut stream).await.unwrap()
    }
}

async fn answer(stream: &mut Stream) -> Result<(Response<()>, Bytes), String> {
    let words = |error: h3::error::StreamError| error.to_string();
    let head = stream.recv_response().await.map_err(words)?;
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.map_err(words)? {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok((head, body.into()))
}

fn said(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

#[test]
fn requests_come_by_quic_as_by_tls() {
    let world = World::with(Settings {
        http3_port: Some(8443),
        ..Settings::default()
    });
    world.run(async {
        let mut client = Client::of(&world).await;
        let (head, body) = client.get("/a?b=c").await;
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["content-length"], body.len().to_string());
        assert!(head.headers().contains_key("date"));
        let said = said(&body);
        assert_eq!(said["path"], "/a?b=c");
        assert_eq!(said["proto"], "HTTP/1.1");
        assert_eq!(said["headers"]["host"], NAME);
        assert_eq!(said["headers"]["x-forwarded-proto"], "https");
        assert_eq!(said["headers"]["x-forwarded-for"], "127.0.0.1");
        // Nobody has sent a body, so the endpoint is not told of one.
        assert_eq!(said["headers"].get("transfer-encoding"), None);
        let (head, _) = client.get("/status/404").await;
        assert_eq!(head.status(), StatusCode::NOT_FOUND);
        let mut stream = client.begin("HEAD", "/", &[]).await;
        stream.finish().await.unwrap();
        let (head, body) = answer(&mut stream).await.unwrap();
        assert_eq!((head.status(), body.len()), (StatusCode::OK, 0));
        let (head, body) = client.get("/status/204").await;
        assert_eq!((head.status(), body.len()), (StatusCode::NO_CONTENT, 0));
    });
    // Others are told of it.
    let https = world.server.as_ref().unwrap().https()[0];
    let to = format!("{NAME}:{}:{}", https.port(), https.ip());
    let url = format!("https://{NAME}:{}/", https.port());
    let shown = curl(&["--insecure", "--resolve", &to, "--dump-header", "-", &url]);
    assert!(shown.contains("alt-svc: h3=\":8443\"; ma=86400"), "{shown}");
}

#[test]
fn bodies_go_both_ways_and_trailers_behind_them() {
    let world = World::new();
    world.run(async {
        let mut client = Client::of(&world).await;
        // More than all windows hold.
        let block = Bytes::from(vec![b'x'; 64 * 1024]);
        let stream = client.begin("POST", "/stream", &[]).await;
        let (mut send, mut receive) = stream.split();
        let sending = {
            let block = block.clone();
            tokio::spawn(async move {
                for _ in 0..64 {
                    send.send_data(block.clone()).await.unwrap();
                }
                send.finish().await.unwrap();
            })
        };
        let head = receive.recv_response().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        let mut got = 0;
        while let Some(data) = receive.recv_data().await.unwrap() {
            got += data.remaining();
        }
        sending.await.unwrap();
        assert_eq!(got, 64 * block.len());
        let mut stream = client.begin("PUT", "/", &[("content-length", "5")]).await;
        stream
            .send_data(Bytes::from_static(b"hello"))
            .await
            .unwrap();
        stream.finish().await.unwrap();
        let (_, body) = answer(&mut stream).await.unwrap();
        let said = said(&body);
        assert_eq!(said["body"], "hello");
        assert_eq!(said["headers"]["content-length"], "5");
        let mut stream = client.begin("POST", "/", &[("te", "trailers")]).await;
        stream.send_data(Bytes::from_static(b"a")).await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        stream.send_trailers(trailers).await.unwrap();
        stream.finish().await.unwrap();
        assert_eq!(
            answer(&mut stream).await.unwrap().0.status(),
            StatusCode::OK
        );
    });
}

/// What HTTP/1.1 behind the gateway could take for another request never gets there.
#[test]
fn what_is_malformed_is_refused() {
    let world = World::new();
    world.run(async {
        let mut client = Client::of(&world).await;
        let cases: [Case<'_>; 11] = [
            ("POST", &[("transfer-encoding", "chunked")], "0\r\n\r\n"),
            ("GET", &[("connection", "close")], ""),
            ("GET", &[("upgrade", "websocket")], ""),
            ("GET", &[("keep-alive", "1")], ""),
            ("GET", &[("proxy-connection", "1")], ""),
            ("GET", &[("te", "gzip")], ""),
            ("POST", &[("content-length", "3")], "more"),
            ("POST", &[("content-length", "9")], "less"),
            ("POST", &[("content-length", "+1")], "x"),
            (
                "POST",
                &[("content-length", "1"), ("content-length", "1")],
                "x",
            ),
            ("GET", &[("content-length", "0")], "x"),
        ];
        for (method, headers, body) in cases {
            let mut stream = client.begin(method, "/", headers).await;
            // It may be refused before that.
            let _ = stream.send_data(Bytes::from_static(body.as_bytes())).await;
            let _ = stream.finish().await;
            match answer(&mut stream).await {
                Ok((head, _)) => assert_eq!(head.status(), StatusCode::BAD_REQUEST, "{headers:?}"),
                Err(error) => assert!(error.contains("H3_MESSAGE_ERROR"), "{headers:?}: {error}"),
            }
        }
        let long = "x".repeat(40 * 1024);
        let mut stream = client.begin("GET", "/", &[]).await;
        stream.finish().await.unwrap();
        assert_eq!(
            answer(&mut stream).await.unwrap().0.status(),
            StatusCode::OK
        );
        let many: Vec<(String, String)> =
            (0..120).map(|n| (format!("x-{n}"), "1".into())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut stream = client.begin("GET", "/", &many).await;
        stream.finish().await.unwrap();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert_eq!(head.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let request = Request::get(format!("https://{NAME}/")).header("x", long);
        // The client itself knows better, once it has heard of the limit.
        match client.send.send_request(request.body(()).unwrap()).await {
            Ok(mut stream) => {
                let (head, _) = answer(&mut stream).await.unwrap();
                assert_eq!(head.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            }
            Err(error) => assert!(error.to_string().contains("too big"), "{error}"),
        }
    });
    assert!(
        world.backend.requests() <= 5,
        "{}",
        world.backend.requests()
    );
}

#[test]
fn a_host_of_another_certificate_is_for_another_connection() {
    let world = World::new();
    let (_, other) = certificate("other.com");
    let (chain, own) = certificate(NAME);
    let identities = [("other.com", other), (NAME, own)];
    let named =
        identities.map(|(name, identity)| (portolan_gateway::Host::parse(name).unwrap(), identity));
    let any = portolan_gateway::server::Identity::self_signed().unwrap();
    let certificates = portolan_gateway::server::Certificates::new(named, any);
    let rules = json!([all_of(NAME), all_of("other.com")]);
    world.server.as_ref().unwrap().swap(Live {
        certificates: Arc::new(certificates),
        ..live(rules, &[world.backend.address])
    });
    let world = World { chain, ..world };
    world.run(async {
        let mut client = Client::of(&world).await;
        let request = Request::get("https://other.com/").body(()).unwrap();
        let mut stream = client.send.send_request(request).await.unwrap();
        stream.finish().await.unwrap();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert_eq!(head.status(), StatusCode::MISDIRECTED_REQUEST);
    });
}

/// Rapid reset (CVE-2023-44487): streams that are reset at once keep nobody else from being served.
#[test]
fn a_flood_of_resets_costs_its_client_alone() {
    let world = World::new();
    world.run(async {
        let mut flood = Client::of(&world).await;
        for _ in 0..1000 {
            let mut stream = flood.begin("GET", "/wait", &[]).await;
            stream.stop_stream(h3::error::Code::H3_REQUEST_CANCELLED);
            stream.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        }
        let mut client = Client::of(&world).await;
        let (head, _) = client.get("/").await;
        assert_eq!(head.status(), StatusCode::OK);
    });
    assert!(
        world.backend.requests() <= 130,
        "{}",
        world.backend.requests()
    );
}

#[test]
fn who_says_nothing_more_is_given_up() {
    let short = Duration::from_millis(300);
    let world = World::with(Settings {
        limits: Limits {
            client_timeout: short,
            ..Limits::default()
        },
        ..Settings::default()
    });
    world.run(async {
        let mut client = Client::of(&world).await;
        let mut stream = client.begin("POST", "/", &[("content-length", "9")]).await;
        stream.send_data(Bytes::from_static(b"less")).await.unwrap();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert_eq!(head.status(), StatusCode::REQUEST_TIMEOUT);
    });
}

/// What is under way ends well, and nothing new begins.
#[test]
fn a_server_that_stops_finishes_what_it_has_begun() {
    let mut world = World::new();
    let server = world.server.take().unwrap();
    let (told, stopped) = tokio::sync::oneshot::channel();
    world.run(async {
        let mut client = Client::of(&world).await;
        let mut stream = client.begin("GET", "/wait", &[]).await;
        stream.finish().await.unwrap();
        while world.backend.requests() == 0 {
            tokio::task::yield_now().await;
        }
        std::thread::spawn(move || {
            server.stop();
            let _ = told.send(());
        });
        // GOAWAY has come when the client itself sends no more.
        loop {
            let request = Request::get(format!("https://{NAME}/")).body(()).unwrap();
            match client.send.send_request(request).await {
                Err(_) => break,
                Ok(mut stream) => drop(stream.finish().await),
            }
            tokio::task::yield_now().await;
        }
        world.backend.go.notify_one();
        let (head, _) = answer(&mut stream).await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
        let reason = client.ended.await.unwrap();
        assert!(client.quic.close_reason().is_some(), "{reason}");
        stopped.await.unwrap();
    });
}
