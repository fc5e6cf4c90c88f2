//! One check of an endpoint: a connection on which we say at once that we have nothing to say.
//!
//! A server that lives closes such a connection, or sends its greeting. A kernel alone does neither.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use portolan_model::health::Answer;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout_at};

/// Checks that are known for our own when conntrack tells of them: more than are begun while it is not listened to.
const OWN_MAX: usize = 1024;

/// The ports that the newest checks come from: a check is no client, though it looks like one.
#[derive(Debug, Default)]
pub(super) struct Own(VecDeque<u16>);

impl Own {
    /// A socket that is going to check `address`.
    pub(super) fn socket(&mut self, address: SocketAddr) -> io::Result<TcpSocket> {
        let (socket, any) = match address {
            SocketAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
        };
        // Ports of checks that are long over may be used again.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(any, 0))?;
        if self.0.len() == OWN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(socket.local_addr()?.port());
        Ok(socket)
    }

    /// Whether one of these checks comes from there.
    pub(super) fn has(&self, source: SocketAddr) -> bool {
        self.0.contains(&source.port())
    }
}

/// Connects, closes our half, and waits for a word or the end.
pub(super) async fn check(
    socket: io::Result<TcpSocket>,
    address: SocketAddr,
    patience: Duration,
) -> Answer {
    let deadline = Instant::now() + patience;
    let connected = async { socket?.connect(address).await };
    let mut stream = match timeout_at(deadline, connected).await {
        Err(_) => return Answer::Unreachable,
        Ok(Err(error)) => return without_connection(&error),
        Ok(Ok(stream)) => stream,
    };
    let answer = async {
        stream.shutdown().await?;
        stream.read(&mut [0; 1]).await
    };
    match timeout_at(deadline, answer).await {
        // The end, or a word. An error is a reset, which is an answer too.
        Ok(_) => Answer::Answered,
        Err(_) => {
            // Or our half would stay for a minute.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            Answer::Silent
        }
    }
}

fn without_connection(error: &io::Error) -> Answer {
    match error.kind() {
        ErrorKind::ConnectionRefused => Answer::Refused,
        ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut => Answer::Unreachable,
        // Out of descriptors or ports, or forbidden here: that is about us.
        _ => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn ask(address: SocketAddr, patience: Duration) -> Answer {
        check(Own::default().socket(address), address, patience).await
    }

    fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn a_server_that_closes_or_greets_answers() {
        for greeting in ["", "220 hello\r\n"] {
            let (listener, address) = listen();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(greeting.as_bytes()).unwrap();
                // Read what the client says, which is that it has done.
                let end = std::io::copy(&mut stream, &mut std::io::sink());
                assert!(end.is_err() || end.is_ok_and(|bytes| bytes == 0));
            });
            assert_eq!(ask(address, PATIENCE).await, Answer::Answered);
            server.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_kernel_alone_is_silent() {
        // Nobody accepts.
        let (_listener, address) = listen();
        let answer = ask(address, Duration::from_millis(50)).await;
        assert_eq!(answer, Answer::Silent);
    }

    #[tokio::test]
    async fn nobody_listens() {
        let (listener, address) = listen();
        drop(listener);
        assert_eq!(ask(address, PATIENCE).await, Answer::Refused);
    }

    #[tokio::test]
    async fn the_newest_checks_are_known_for_our_own() {
        let (_listener, address) = listen();
        let mut own = Own::default();
        let first = own.socket(address).unwrap();
        let source = first.local_addr().unwrap();
        own.0.extend(std::iter::repeat_n(0, OWN_MAX - 1));
        assert!(own.has(source));
        // The oldest gives way.
        own.socket(address).unwrap();
        assert!(!own.has(source) && own.0.len() == OWN_MAX);
    }

    #[test]
    fn what_is_our_own_fault_tells_nothing() {
        for errno in [
            nix::libc::EMFILE,
            nix::libc::EADDRNOTAVAIL,
            nix::libc::EPERM,
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(without_connection(&error), Answer::Unknown, "{error}");
        }
        let error = io::Error::from_raw_os_error(nix::libc::EHOSTUNREACH);
        assert_eq!(without_connection(&error), Answer::Unreachable);
    }
}
