//! One check of an endpoint: a connection on which we say at once that we have nothing to say.
//!
//! A server that lives closes such a connection, or sends its greeting. A kernel alone does neither.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use portolan_model::health::Answer;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Connects, closes our half, and waits for a word or the end.
pub(super) async fn check(address: SocketAddr, patience: Duration) -> Answer {
    let deadline = Instant::now() + patience;
    let mut stream = match timeout_at(deadline, TcpStream::connect(address)).await {
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
            assert_eq!(check(address, PATIENCE).await, Answer::Answered);
            server.join().unwrap();
        }
    }

    #[tokio::test]
    async fn a_kernel_alone_is_silent() {
        // Nobody accepts.
        let (_listener, address) = listen();
        let answer = check(address, Duration::from_millis(50)).await;
        assert_eq!(answer, Answer::Silent);
    }

    #[tokio::test]
    async fn nobody_listens() {
        let (listener, address) = listen();
        drop(listener);
        assert_eq!(check(address, PATIENCE).await, Answer::Refused);
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
