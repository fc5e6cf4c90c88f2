//! Requests at a fixed rate over connections that are kept, each timed: how long clients wait at a server that is not busy.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Connections, and requests in a second over each: what none of the servers is busy with.
pub const CONNECTIONS: u32 = 32;
pub const PACE: u32 = 100;
/// No answer takes longer, unless something is wrong.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of an answer; those that are asked for here are small.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Times of all requests of a while, from the calling thread's network namespace; the thread is then on this core.
pub fn run(
    core: usize,
    server: Ipv4Addr,
    request: &str,
    time: Duration,
) -> Result<Vec<Duration>, String> {
    let mut cores = CpuSet::new();
    let pinned = cores
        .set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &cores));
    pinned.map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..CONNECTIONS {
            let to = SocketAddr::from((server, 80));
            tasks.spawn(connection(number, to, request.as_bytes().to_vec(), time));
        }
        let mut all = Vec::new();
        for times in tasks.join_all().await {
            all.extend(times.map_err(|e| format!("at a fixed rate: {e}"))?);
        }
        Ok(all)
    })
}

async fn connection(
    number: u32,
    to: SocketAddr,
    request: Vec<u8>,
    time: Duration,
) -> std::io::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let between = Duration::from_secs(1) / PACE;
    // Connections do not ask all at once.
    let mut clock = interval(between);
    clock.reset_after(between * number / CONNECTIONS);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < end {
        clock.tick().await;
        let begun = Instant::now();
        stream.write_all(&request).await?;
        tokio::time::timeout(ANSWER_LIMIT, answer(&mut stream)).await??;
        times.push(begun.elapsed());
    }
    Ok(times)
}

/// Reads an answer to its end; it must be a good one.
async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(1024);
    while bytes.len() < ANSWER_BYTES_MAX && stream.read_buf(&mut bytes).await? > 0 {
        match length(&bytes) {
            Some(length) if bytes.len() >= length => {
                return match bytes.starts_with(b"HTTP/1.1 200 ") {
                    true => Ok(()),
                    false => Err(std::io::Error::other("an answer is not 200")),
                };
            }
            _ => {}
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

/// Bytes of an answer whose head is there.
fn length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let given = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))?;
    Some(end + 4 + given.trim().parse::<usize>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_length() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(length(head), Some(head.len() + 3));
        assert_eq!(length(&head[..20]), None);
    }
}
