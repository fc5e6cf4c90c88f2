//! The endpoints of all Services: one thread on the clients' core that answers each request with bytes that it has
//! ready. It reads requests as far as it must: they have no bodies.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use portolan_kernel::command::CommandNamespaces;
use portolan_kernel::topology::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::objects::{ENDPOINT_PORT, ENDPOINT_RANGES};

/// Bytes of a small body, and of a large one.
pub const SMALL: usize = 128;
pub const LARGE: usize = 64 * 1024;
/// Heads of requests that have come and are not answered yet.
const HEADS_BYTES_MAX: usize = 64 * 1024;

/// Starts the thread, which ends with this process. Every address of the endpoints becomes one of the host's.
pub fn start(host: &Host, core: usize) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(["route", "add", "local", ENDPOINT_RANGES[0], "dev", "lo"]);
    let command = command.in_netns(&host.netns).map_err(|e| e.to_string())?;
    match command.status() {
        Ok(status) if status.success() => {}
        other => return Err(format!("ip route add local: {other:?}")),
    }
    let listener = host
        .run(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, ENDPOINT_PORT)))
        .map_err(|e| e.to_string())?
        .map_err(|e| format!("cannot listen as endpoints: {e}"))?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let mut cores = CpuSet::new();
    cores.set(core).map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        // Where it runs is a matter of fairness, and the same for all servers if it cannot be chosen.
        let _ = sched_setaffinity(Pid::from_raw(0), &cores);
        runtime.block_on(serve(listener));
    });
    Ok(())
}

async fn serve(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let answers: &'static [Vec<u8>; 2] = Box::leak(Box::new([SMALL, LARGE].map(answer)));
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            // A connection that is closed is no news.
            let _ = connection(stream, answers).await;
        });
    }
}

fn answer(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

async fn connection(mut stream: TcpStream, answers: &[Vec<u8>; 2]) -> std::io::Result<()> {
    let mut heads = Vec::with_capacity(4096);
    while heads.len() < HEADS_BYTES_MAX && stream.read_buf(&mut heads).await? > 0 {
        while let Some(end) = heads.windows(4).position(|four| four == b"\r\n\r\n") {
            let line = heads
                .split(|byte| *byte == b'\r')
                .next()
                .unwrap_or_default();
            let is_large = line.windows(4).any(|four| four == b"/big");
            stream.write_all(&answers[usize::from(is_large)]).await?;
            heads.drain(..end + 4);
        }
    }
    Ok(())
}
