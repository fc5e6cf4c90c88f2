//! `portolan ask`: a client that opens a new connection for each request and counts who answered.
//!
//! Every request is a new flow, so that the Service's data plane decides anew each time;
//! an ordinary HTTP client would keep its connection and see one endpoint only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::cmd::websocket::{self, Message, NORMAL, Socket};

/// Answers longer than this are cut: what is counted is one short line.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Arguments of `portolan ask`.
#[derive(clap::Args)]
pub struct Args {
    /// Whom to ask: http://HOST:PORT/PATH, ws://HOST:PORT/PATH (one message over a WebSocket), tcp://HOST:PORT or
    /// udp://HOST:PORT.
    target: String,
    /// A header of each request, as `NAME: VALUE` (may be repeated).
    #[arg(short = 'H', long, value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// How many requests; the default is 1, or no limit with --for or --until-eof.
    #[arg(short = 'n', long)]
    count: Option<u64>,
    /// How long to go on, in seconds.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Go on until standard input is closed.
    #[arg(long)]
    until_eof: bool,
    /// How many requests are under way at once.
    #[arg(short = 'c', long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Pause after each request, in milliseconds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// How long one request may take, in milliseconds.
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// The field of the answer that is counted: pod, node, version, client, …; other answers are counted by their first line.
    #[arg(long, default_value = "pod")]
    field: String,
    /// Print JSON instead of a table.
    #[arg(short = 'o', long, value_parser = ["json"])]
    output: Option<String>,
}

/// What was seen: who answered how often, and what went wrong how often.
#[derive(Default, Serialize)]
struct Tally {
    requests: u64,
    failed: u64,
    answers: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    slowest_ms: f64,
}

impl Tally {
    fn count(&mut self, result: Result<String, String>, took: Duration) {
        self.requests += 1;
        self.slowest_ms = self.slowest_ms.max(took.as_secs_f64() * 1000.0);
        match result {
            Ok(who) => *self.answers.entry(who).or_default() += 1,
            Err(why) => {
                self.failed += 1;
                *self.failures.entry(why).or_default() += 1;
            }
        }
    }

    fn merge(&mut self, other: Tally) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.slowest_ms = self.slowest_ms.max(other.slowest_ms);
        for (who, count) in other.answers {
            *self.answers.entry(who).or_default() += count;
        }
        for (why, count) in other.failures {
            *self.failures.entry(why).or_default() += count;
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (who, count) in &self.answers {
            text += &format!("{count:>7}  {who}\n");
        }
        for (why, count) in &self.failures {
            text += &format!("{count:>7}  FAILED: {why}\n");
        }
        text + &format!("{} requests, {} failed\n", self.requests, self.failed)
    }
}

/// Runs the command until it is done; fails when a request failed.
#[allow(clippy::print_stdout)]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    portolan_kernel::process::end_with_broken_pipe();
    let mut target = Target::parse(&args.target, &args.field)?;
    target.headers = args.header.clone();
    let target = Arc::new(target);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let tally = runtime.block_on(ask_all(&args, target))?;
    // A thread may still wait in a read of standard input; it must not hold us back.
    runtime.shutdown_background();
    match args.output.as_deref() {
        Some(_) => println!("{}", serde_json::to_string(&tally)?),
        None => print!("{}", tally.table()),
    }
    Ok(match tally.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Asks from `concurrency` tasks until count, time or an interrupt ends it.
async fn ask_all(args: &Args, target: Arc<Target>) -> anyhow::Result<Tally> {
    let endless = args.seconds.is_some() || args.until_eof;
    let left = Arc::new(AtomicU64::new(match (args.count, endless) {
        (Some(count), _) => count,
        (None, true) => u64::MAX,
        (None, false) => 1,
    }));
    let until = args
        .seconds
        .map(|s| Instant::now() + Duration::from_secs_f64(s.clamp(0.0, 86_400.0)));
    let timeout = Duration::from_millis(args.timeout_ms);
    let pause = Duration::from_millis(args.pause_ms);
    let workers: Vec<_> = (0..args.concurrency)
        .map(|_| {
            let (left, target) = (left.clone(), target.clone());
            tokio::spawn(async move {
                let mut tally = Tally::default();
                while until.is_none_or(|at| Instant::now() < at) && take(&left) {
                    let begun = Instant::now();
                    let result = match tokio::time::timeout(timeout, target.ask()).await {
                        Ok(result) => result.map_err(|error| format!("{error:#}")),
                        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
                    };
                    tally.count(result, begun.elapsed());
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                tally
            })
        })
        .collect();
    let interrupts = tokio::spawn(stop_when_told(left, args.until_eof));
    let mut tally = Tally::default();
    for worker in workers {
        tally.merge(worker.await?);
    }
    interrupts.abort();
    let _cancelled = interrupts.await;
    Ok(tally)
}

/// Sets what is left to nothing at an interrupt, at SIGTERM or, if asked for, when standard input ends.
async fn stop_when_told(left: Arc<AtomicU64>, until_eof: bool) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let end = async {
        if !until_eof {
            return std::future::pending().await;
        }
        let mut rest = tokio::io::sink();
        tokio::io::copy(&mut tokio::io::stdin(), &mut rest).await
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
        _ = end => {}
    }
    left.store(0, Ordering::Relaxed);
    Ok(())
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
        .is_ok()
}

/// Whom to ask and how.
struct Target {
    scheme: Scheme,
    authority: String,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    field: String,
}

#[derive(PartialEq, Eq)]
enum Scheme {
    Http,
    WebSocket,
    Tcp,
    Udp,
}

impl Target {
    fn parse(text: &str, field: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let scheme = match scheme {
            "http" => Scheme::Http,
            "ws" => Scheme::WebSocket,
            "tcp" => Scheme::Tcp,
            "udp" => Scheme::Udp,
            other => bail!("{text:?}: scheme {other:?} is none of http, ws, tcp, udp"),
        };
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = match (has_port, &scheme) {
            (true, _) => authority.to_string(),
            (false, Scheme::Http | Scheme::WebSocket) => format!("{authority}:80"),
            (false, _) => bail!("{text:?} has no port; write HOST:PORT"),
        };
        Ok(Target {
            scheme,
            authority,
            path: path.to_string(),
            headers: Vec::new(),
            field: field.to_string(),
        })
    }

    /// One request on a flow of its own; who answered.
    async fn ask(&self) -> anyhow::Result<String> {
        let answer = match self.scheme {
            Scheme::Http => self.ask_http().await?,
            Scheme::WebSocket => self.ask_websocket().await?,
            Scheme::Tcp => self.ask_tcp().await?,
            Scheme::Udp => self.ask_udp().await?,
        };
        Ok(who(&answer, &self.field))
    }

    async fn ask_http(&self) -> anyhow::Result<String> {
        let own = [(CONNECTION, HeaderValue::from_static("close"))];
        let (response, connection) = self.request(&own).await?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|e| anyhow::anyhow!("body: {e}"))?
            .to_bytes();
        connection.abort();
        if !status.is_success() {
            bail!("status {status}");
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Opens a WebSocket, says one text, and ends it after the answer.
    async fn ask_websocket(&self) -> anyhow::Result<String> {
        let key = websocket::key();
        let own = [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", &key),
        ];
        let own = own.map(|(name, value)| {
            let value = HeaderValue::from_str(value).expect("invariant: base64 is a value");
            (HeaderName::from_static(name), value)
        });
        let (response, connection) = self.request(&own).await?;
        let accepted = response.headers().get("sec-websocket-accept");
        if response.status() != 101 {
            bail!("status {} instead of a WebSocket", response.status());
        }
        if accepted.is_none_or(|value| *value != *websocket::accept(&key)) {
            bail!("the answer is not for the WebSocket that was asked for");
        }
        let stream = hyper::upgrade::on(response).await.context("upgrade")?;
        connection.await?.context("upgrade")?;
        let mut socket = Socket::client(TokioIo::new(stream));
        socket.send(&Message::Text("who".into())).await?;
        let answer = socket.next().await?;
        socket.close(NORMAL).await?;
        while socket.next().await?.is_some() {}
        match answer {
            Some(Message::Text(text)) => Ok(text),
            Some(Message::Binary(data)) => Ok(String::from_utf8_lossy(&data).into_owned()),
            None => bail!("the WebSocket was closed without an answer"),
        }
    }

    /// The head of the answer, and the task that carries its connection.
    async fn request(
        &self,
        own: &[(HeaderName, HeaderValue)],
    ) -> anyhow::Result<(
        http::Response<Incoming>,
        tokio::task::JoinHandle<hyper::Result<()>>,
    )> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .context("connect")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection.with_upgrades());
        let mut request = http::Request::get(&self.path).body(Empty::<Bytes>::new())?;
        let headers = request.headers_mut();
        let host = self
            .authority
            .strip_suffix(":80")
            .unwrap_or(&self.authority);
        headers.insert(HOST, host.parse()?);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in own.iter().chain(&self.headers) {
            headers.insert(name, value.clone());
        }
        let response = sender.send_request(request).await.context("request")?;
        Ok((response, connection))
    }

    async fn ask_tcp(&self) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.authority)
            .await
            .context("connect")?;
        stream.write_all(b"who\n").await.context("write")?;
        stream.shutdown().await.context("shutdown")?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX as u64)
            .read_to_end(&mut answer)
            .await
            .context("read")?;
        if answer.is_empty() {
            bail!("connection closed without an answer");
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    async fn ask_udp(&self) -> anyhow::Result<String> {
        let to: SocketAddr = tokio::net::lookup_host(&self.authority)
            .await?
            .next()
            .with_context(|| format!("{} has no address", self.authority))?;
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(to).await?;
        socket.send(b"who\n").await.context("send")?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let length = socket.recv(&mut answer).await.context("receive")?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    }
}

/// Reads `NAME: VALUE`.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let parts = text.split_once(':').and_then(|(name, value)| {
        let name: HeaderName = name.parse().ok()?;
        Some((name, value.trim().parse().ok()?))
    });
    parts.ok_or_else(|| "write NAME: VALUE".to_owned())
}

/// The field of a JSON answer, or the first line of any other.
fn who(answer: &str, field: &str) -> String {
    let json = serde_json::from_str::<serde_json::Value>(answer).ok();
    match json.as_ref().and_then(|value| value.get(field)) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => answer.lines().next().unwrap_or_default().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_or_refused() {
        assert_eq!(
            Target::parse("172.30.0.5", "pod").unwrap().authority,
            "172.30.0.5:80"
        );
        assert_eq!(
            Target::parse("http://[fd00::1]:81/x", "pod").unwrap().path,
            "/x"
        );
        assert!(Target::parse("tcp://172.30.0.5", "pod").is_err());
        let socket = Target::parse("ws://shop.apps.example/chat", "pod").unwrap();
        assert!(socket.scheme == Scheme::WebSocket && socket.authority == "shop.apps.example:80");
        assert!(Target::parse("ftp://172.30.0.5:21", "pod").is_err());
    }

    #[test]
    fn headers_are_read_or_refused() {
        let (name, value) = header("X-Next: always").unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-next", &b"always"[..])
        );
        assert!(header("X-Next").is_err() && header("X Next: a").is_err());
    }

    #[test]
    fn json_answers_are_counted_by_a_field_and_others_by_their_first_line() {
        assert_eq!(who(r#"{"pod":"web-1"}"#, "pod"), "web-1");
        assert_eq!(who("web-2\nmore", "pod"), "web-2");
        assert_eq!(who("what is this", "pod"), "what is this");
    }
}
