//! All endpoints: one thread that answers under every address of the range with that address, and speaks WebSocket. An
//! endpoint that is gone closes its idle connections after a while and takes no new ones, as a server does that ends;
//! WebSockets it keeps until their clients go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Result;
use crate::site::{PORT, RANGE};

/// From the moment that the API knows an endpoint no more until it ends its connections; kubelet gives a pod thirty.
pub const GRACE: Duration = Duration::from_secs(2);
/// Bytes of a head that is not at its end.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How the handshake of a WebSocket ends (RFC 6455 section 1.3); its clients do not check the key.
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// What the writer and the endpoints know of each other.
#[derive(Clone)]
pub struct Endpoints(Arc<Shared>);

struct Shared {
    /// Those that are gone, and since when.
    gone: Mutex<BTreeMap<Ipv4Addr, Instant>>,
    /// Those that have had a request.
    asked: Mutex<BTreeSet<Ipv4Addr>>,
    late: AtomicU64,
    /// Becomes another number with each endpoint that ends.
    ended: watch::Sender<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Endpoints {
    /// Starts the thread, which ends with this process.
    pub fn start() -> Result<Endpoints> {
        let mut command = Command::new("ip");
        command.args(["route", "add", "local", RANGE, "dev", "lo"]);
        match command.status() {
            Ok(status) if status.success() => {}
            other => return Err(format!("ip route add local {RANGE}: {other:?}")),
        }
        let shared = Endpoints(Arc::new(Shared {
            gone: Mutex::default(),
            asked: Mutex::default(),
            late: AtomicU64::new(0),
            ended: watch::channel(0).0,
        }));
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = listener.map_err(|e| format!("cannot listen as endpoints: {e}"))?;
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        let for_thread = shared.clone();
        std::thread::spawn(move || runtime.block_on(for_thread.serve(listener)));
        Ok(shared)
    }

    async fn serve(self, listener: std::net::TcpListener) {
        let Ok(listener) = TcpListener::from_std(listener) else {
            return;
        };
        let ending = self.clone();
        tokio::spawn(async move { ending.end_in_time().await });
        while let Ok((stream, _)) = listener.accept().await {
            let one = self.clone();
            tokio::spawn(async move {
                // A connection that breaks is seen by the client that loses a request by it.
                let _ = one.connection(stream).await;
            });
        }
    }

    /// Tells connections of endpoints whose time is over.
    async fn end_in_time(self) {
        let mut look = tokio::time::interval(GRACE / 20);
        loop {
            look.tick().await;
            let over = lock(&self.0.gone)
                .values()
                .filter(|since| since.elapsed() > GRACE)
                .count();
            self.0.ended.send_replace(over as u64);
        }
    }

    /// The API knows this one no more.
    pub fn remove(&self, address: Ipv4Addr) {
        lock(&self.0.gone).insert(address, Instant::now());
    }

    /// Whether it has had a request.
    pub fn is_asked(&self, address: Ipv4Addr) -> bool {
        lock(&self.0.asked).contains(&address)
    }

    /// Requests for somebody who had been gone for too long.
    pub fn late(&self) -> u64 {
        self.0.late.load(Ordering::Relaxed)
    }

    fn is_over(&self, address: Ipv4Addr) -> bool {
        let gone = lock(&self.0.gone);
        gone.get(&address)
            .is_some_and(|since| since.elapsed() > GRACE)
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let IpAddr::V4(own) = stream.local_addr()?.ip() else {
            return Ok(());
        };
        stream.set_nodelay(true)?;
        if self.is_over(own) {
            self.0.late.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let mut ended = self.0.ended.subscribe();
        let mut bytes = Vec::new();
        loop {
            let read = tokio::select! {
                read = stream.read_buf(&mut bytes) => read?,
                changed = ended.changed() => match changed.is_err() || (self.is_over(own) && bytes.is_empty()) {
                    true => return Ok(()),
                    false => continue,
                },
            };
            if read == 0 || bytes.len() > HEAD_BYTES_MAX {
                return Ok(());
            }
            while let Some(length) = request_length(&bytes) {
                let head = bytes[..length].to_ascii_lowercase();
                bytes.drain(..length);
                lock(&self.0.asked).insert(own);
                if self.is_over(own) {
                    self.0.late.fetch_add(1, Ordering::Relaxed);
                }
                if contains(&head, b"upgrade: websocket") {
                    stream.write_all(SWITCHING).await?;
                    return echo(stream, bytes).await;
                }
                let body = own.to_string();
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    }
}

/// Bytes of the first request, when all of it is there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let given = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = given.and_then(|length| length.trim().parse::<usize>().ok());
    let all = head + length.unwrap_or_default();
    (bytes.len() >= all).then_some(all)
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|part| part == what)
}

/// Answers each short frame with the same payload (RFC 6455 section 5.2).
async fn echo(mut stream: TcpStream, mut bytes: Vec<u8>) -> std::io::Result<()> {
    loop {
        while let Some((payload, length)) = frame(&bytes) {
            let mut answer = vec![0x81, payload.len() as u8];
            answer.extend(payload);
            bytes.drain(..length);
            stream.write_all(&answer).await?;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
}

/// The payload of a masked frame of at most 125 bytes, and how long the frame is.
fn frame(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let [_, length, mask @ ..] = bytes else {
        return None;
    };
    let length = usize::from(length & 0x7f);
    let (mask, rest) = mask.split_at_checked(4)?;
    let masked = rest.get(..length)?.iter().zip(mask.iter().cycle());
    Some((masked.map(|(byte, mask)| byte ^ mask).collect(), 6 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        let post = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        assert_eq!(request_length(post), Some(post.len() - 18));
        assert_eq!(request_length(&post[..40]), None);
        assert_eq!(request_length(b"GET / HTTP/1.1\r\n\r\n"), Some(18));
    }

    #[test]
    fn frames_are_unmasked() {
        let bytes = [0x81, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2, 0x81];
        assert_eq!(frame(&bytes), Some((b"ab".to_vec(), 8)));
        assert_eq!(frame(&bytes[..7]), None);
    }
}
