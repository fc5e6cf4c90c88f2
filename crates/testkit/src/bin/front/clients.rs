//! Full load: clients on one thread, each with a connection that is kept, who ask for one route after the other without a
//! pause; and WebSockets that say something now and then. Every answer must be right and from the right Service.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use portolan_testkit::program::PATIENCE;
use portolan_testkit::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::site::{self, GATEWAY, HOSTS, SERVICES};

/// Clients that ask without a pause.
const CLIENTS: u32 = 64;
/// One request of so many has a body, and may not be sent twice.
const POST_EACH: u32 = 8;
/// WebSockets that stay open for the whole run.
pub const WEB_SOCKETS: u32 = 32;
/// Between two messages of one.
const MESSAGE_EACH: Duration = Duration::from_millis(100);
/// Whoever waits for longer has lost its request, or its WebSocket.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Words that are kept about what went wrong.
const WORDS_MAX: usize = 10;
/// Bytes of an answer; ours are much shorter.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What went wrong, how often, and the first words about it.
#[derive(Debug, Default)]
pub struct Wrong {
    pub count: u64,
    pub words: Vec<String>,
}

impl Wrong {
    fn add(&mut self, words: String) {
        self.count += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(words);
        }
    }

    fn join(&mut self, other: Wrong) {
        self.count += other.count;
        let room = WORDS_MAX - self.words.len();
        self.words.extend(other.words.into_iter().take(room));
    }
}

/// What all clients have done.
#[derive(Debug, Default)]
pub struct Traffic {
    pub requests: u64,
    pub failed: Wrong,
    pub messages: u64,
    pub dropped: Wrong,
}

/// The thread.
pub struct Clients {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Traffic>,
}

impl Clients {
    /// Begins.
    pub fn start() -> Result<Clients> {
        let done = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let for_thread = Arc::clone(&done);
        let thread = std::thread::spawn(move || runtime.block_on(all(for_thread)));
        Ok(Clients { done, thread })
    }

    /// Ends, and says what there was.
    pub fn stop(self) -> Result<Traffic> {
        self.done.store(true, Ordering::Relaxed);
        let joined = self.thread.join();
        joined.map_err(|_| "the clients have panicked".to_owned())
    }
}

async fn all(done: Arc<AtomicBool>) -> Traffic {
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        tasks.spawn(requests(number, Arc::clone(&done)));
    }
    for number in 0..WEB_SOCKETS {
        tasks.spawn(messages(number, Arc::clone(&done)));
    }
    let mut sum = Traffic::default();
    for one in tasks.join_all().await {
        sum.requests += one.requests;
        sum.messages += one.messages;
        sum.failed.join(one.failed);
        sum.dropped.join(one.dropped);
    }
    sum
}

async fn requests(number: u32, done: Arc<AtomicBool>) -> Traffic {
    let mut seen = Traffic::default();
    let mut connection = None;
    let mut turn = number;
    while !done.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        let (host, service) = (turn % HOSTS, turn / HOSTS % SERVICES);
        let is_post = turn.is_multiple_of(POST_EACH);
        seen.requests += 1;
        let asked = request(&mut connection, host, service, is_post);
        let result = timeout(LOST_AFTER, asked).await;
        if let Err(words) = result.unwrap_or_else(|_| Err("no answer".into())) {
            connection = None;
            let method = if is_post { "POST" } else { "GET" };
            seen.failed
                .add(format!("{method} of Service {service}: {words}"));
        }
    }
    seen
}

/// One request over a connection, which is opened if there is none.
async fn request(
    connection: &mut Option<TcpStream>,
    host: u32,
    service: u32,
    is_post: bool,
) -> Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(open().await?),
    };
    let (host, path) = (site::host(host), site::path(service));
    let text = match is_post {
        true => format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello"),
        false => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    };
    let sent = stream.write_all(text.as_bytes()).await;
    sent.map_err(|e| format!("cannot send: {e}"))?;
    let (head, body) = answer(stream).await?;
    if !head.starts_with("http/1.1 200 ") {
        return Err(format!("{:?}", head.lines().next().unwrap_or_default()));
    }
    let from: Ipv4Addr = body.parse().map_err(|_| format!("answer {body:?}"))?;
    if site::service_of(from) != service {
        return Err(format!("an answer of {from}"));
    }
    if head.contains("\nconnection: close") {
        *connection = None;
    }
    Ok(())
}

async fn open() -> Result<TcpStream> {
    let opened = TcpStream::connect(GATEWAY).await;
    let stream = opened.map_err(|e| format!("cannot connect: {e}"))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Head, in small letters, and body of an answer.
async fn answer(stream: &mut TcpStream) -> Result<(String, String)> {
    let mut bytes = Vec::with_capacity(512);
    while bytes.len() < ANSWER_BYTES_MAX {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            let given = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let length = given.and_then(|length| length.trim().parse::<usize>().ok());
            let whole = end + 4 + length.unwrap_or_default();
            if let Some(body) = bytes.get(end + 4..whole) {
                return Ok((head, String::from_utf8_lossy(body).into_owned()));
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            Ok(0) => return Err("the connection has ended".into()),
            Err(error) => return Err(format!("cannot read: {error}")),
        }
    }
    Err("an answer without an end".into())
}

async fn messages(number: u32, done: Arc<AtomicBool>) -> Traffic {
    let mut seen = Traffic::default();
    let talk = async {
        let mut stream = handshake(number).await?;
        while !done.load(Ordering::Relaxed) {
            timeout(LOST_AFTER, message(&mut stream, seen.messages))
                .await
                .map_err(|_| "no answer to a message".to_owned())??;
            seen.messages += 1;
            sleep(MESSAGE_EACH).await;
        }
        Result::Ok(())
    };
    if let Err(words) = talk.await {
        seen.dropped.add(format!("WebSocket {number}: {words}"));
    }
    seen
}

async fn handshake(number: u32) -> Result<TcpStream> {
    let mut stream = open().await?;
    let (host, path) = (site::host(number % HOSTS), site::path(number % SERVICES));
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let sent = stream.write_all(text.as_bytes()).await;
    sent.map_err(|e| e.to_string())?;
    let (head, _) = timeout(LOST_AFTER, answer(&mut stream))
        .await
        .map_err(|_| "no handshake".to_owned())??;
    match head.starts_with("http/1.1 101 ") {
        true => Ok(stream),
        false => Err(format!("{:?}", head.lines().next().unwrap_or_default())),
    }
}

/// Says a number, and hears it again.
async fn message(stream: &mut TcpStream, number: u64) -> Result<()> {
    let payload = number.to_be_bytes();
    // The mask is zero: what a client must send, and what hides nothing here.
    let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend(payload);
    let sent = stream.write_all(&frame).await;
    sent.map_err(|e| format!("cannot send: {e}"))?;
    let mut answer = [0; 10];
    let read = stream.read_exact(&mut answer).await;
    read.map_err(|e| format!("it has ended: {e}"))?;
    match answer[2..] == payload {
        true => Ok(()),
        false => Err("another message comes back".into()),
    }
}

/// Waits until every route is served.
pub fn await_all() -> Result<()> {
    for host in 0..HOSTS {
        for service in 0..SERVICES {
            let is_there = || status(&site::host(host), &site::path(service)) == Some(200);
            if !wait::until(PATIENCE, is_there) {
                return Err(format!("host {host} does not serve Service {service}"));
            }
        }
    }
    Ok(())
}

/// The status of an answer over a connection of its own.
pub fn status(host: &str, path: &str) -> Option<u16> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&GATEWAY, LOST_AFTER).ok()?;
    stream.set_read_timeout(Some(LOST_AFTER)).ok()?;
    let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let answer = String::from_utf8_lossy(&bytes);
    answer.split(' ').nth(1)?.parse().ok()
}
