//! The echo server's TCP and UDP side: one line (or datagram) in, one line out.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::state::{State, plain};

/// The longest line that is read.
const LINE_MAX: u64 = 4096;

/// The answer to one line, as one line of JSON: who, where, with which address, whom it saw, and what that one said.
fn answer(state: &State, client: std::net::SocketAddr, line: &str) -> String {
    let who = &state.identity;
    let client = plain(client);
    let answer = serde_json::json!({
        "pod": who.name, "node": who.node, "podIP": who.pod_ip, "version": who.version,
        "client": client.to_string(), "clientIP": client.ip().to_string(), "said": line.trim_end(),
    });
    format!("{answer}\n")
}

/// Accepts until stopped, then waits for the connections that are left.
pub async fn serve_tcp(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, client)) = accepted {
                connections.spawn(converse(stream, client, state.clone(), stop.clone()));
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn converse(
    stream: TcpStream,
    client: std::net::SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut read).take(LINE_MAX);
        tokio::select! {
            length = limited.read_line(&mut line) => if length? == 0 { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
        wait(&state).await;
        state.tell(format_args!("{} tcp {}", plain(client), line.trim_end()));
        write
            .write_all(answer(&state, client, &line).as_bytes())
            .await?;
    }
}

/// Answers datagrams until stopped.
pub async fn serve_udp(socket: UdpSocket, state: Arc<State>, stop: CancellationToken) {
    let mut buffer = vec![0; LINE_MAX as usize];
    loop {
        tokio::select! {
            received = socket.recv_from(&mut buffer) => if let Ok((length, client)) = received && !state.hangs() {
                let text = String::from_utf8_lossy(&buffer[..length]);
                state.tell(format_args!("{} udp {}", plain(client), text.trim_end()));
                let _ = socket.send_to(answer(&state, client, &text).as_bytes(), client).await;
            },
            () = stop.cancelled() => return,
        }
    }
}

/// The wait that the server has been told to make: for ever while it hangs.
pub async fn wait(state: &State) {
    tokio::time::sleep(Duration::from_millis(state.delay_ms())).await;
    while state.hangs() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cmd::echo::state::Identity;

    #[test]
    fn an_answer_names_the_server_and_the_client() {
        let identity = Identity {
            name: "web-1".into(),
            node: "n1".into(),
            pod_ip: "10.1.0.2".into(),
            version: String::new(),
        };
        let state = State::new(identity, 0, false, None, true);
        let text = answer(
            &state,
            "[::ffff:10.2.0.3]:555".parse().unwrap(),
            "hello\r\n",
        );
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&answer["pod"], &answer["said"]),
            (&"web-1".into(), &"hello".into())
        );
        assert_eq!(answer["client"], "10.2.0.3:555");
    }
}
