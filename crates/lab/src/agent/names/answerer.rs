//! Whether the node's answerer answers: it is asked over a connection that stays open, so that its end is noticed at
//! once, whatever ended it, and a process that hangs is noticed when it owes an answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How often it is asked.
const ASK_INTERVAL: Duration = Duration::from_secs(1);
/// How long it may take: the answer is in its memory, and a stub resolver would wait five times as long.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How soon one that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(50);
/// The code of an answerer that knows its cluster not yet.
const SERVFAIL: u8 = 2;
/// What is asked: the address of the Service that every cluster has, which an answerer knows when it knows anything.
const NAME: [&str; 5] = ["kubernetes", "default", "svc", "cluster", "local"];
/// The number of our questions; there is one at a time.
const ID: [u8; 2] = [0x70, 0x6f];

/// Tells whether the answerer at `address` answers, for ever.
pub async fn observe(address: SocketAddr, tell: &watch::Sender<Option<bool>>) {
    let set = |answers: bool| {
        tell.send_if_modified(|known| known.replace(answers) != Some(answers));
    };
    loop {
        let began = Instant::now();
        let answered = stay(address, || set(true)).await;
        // A connection that ends after an answer may have been closed by one that goes on: it is asked anew first.
        if !answered {
            set(false);
        }
        if !answered || began.elapsed() < RETRY {
            sleep(RETRY).await;
        }
    }
}

/// Asks over one connection until that ends. Whether the last question was answered well.
async fn stay(address: SocketAddr, well: impl Fn()) -> bool {
    let Ok(Ok(mut stream)) = timeout(ANSWER_MAX, TcpStream::connect(address)).await else {
        return false;
    };
    loop {
        match timeout(ANSWER_MAX, ask(&mut stream)).await {
            Ok(Ok(true)) => well(),
            _ => return false,
        }
        let mut byte = [0];
        if timeout(ASK_INTERVAL, stream.read(&mut byte)).await.is_ok() {
            return true;
        }
    }
}

async fn ask(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(&question()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(is_good(&answer))
}

/// The message with its length before it, as over a stream (RFC 1035, sections 4.1 and 4.2.2).
fn question() -> Vec<u8> {
    let mut message = ID.to_vec();
    // No flags; one question, nothing else.
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    // The root, type A, class IN.
    message.extend([0, 0, 1, 0, 1]);
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.append(&mut message);
    framed
}

/// Any answer to our question but SERVFAIL: a Corefile may serve another domain.
fn is_good(answer: &[u8]) -> bool {
    let is_answer = answer.len() >= 12 && answer[..2] == ID && answer[2] & 0x80 != 0;
    is_answer && answer[3] & 0x0f != SERVFAIL
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn what_is_a_good_answer() {
        let answer = |flags: u8, code: u8| {
            let mut message = [0; 12];
            message[..2].copy_from_slice(&ID);
            message[2..4].copy_from_slice(&[flags, code]);
            message
        };
        assert!(is_good(&answer(0x84, 0)));
        assert!(is_good(&answer(0x80, 3)));
        assert!(!is_good(&answer(0x80, SERVFAIL)));
        assert!(!is_good(&answer(0, 0)), "our own question");
        assert!(!is_good(&answer(0x80, 0)[..11]));
        assert!(!is_good(&[0; 12]));
    }

    /// Answers questions until it has answered `count`, and closes the connection.
    async fn serve(listener: &TcpListener, count: usize) {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..count {
            let length = stream.read_u16().await.unwrap();
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await.unwrap();
            message[2] |= 0x80;
            stream.write_u16(length).await.unwrap();
            stream.write_all(&message).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_end_is_noticed_and_a_new_connection_is_no_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut answers) = watch::channel(None);
        let watching = tokio::spawn(async move { observe(address, &tell).await });
        serve(&listener, 1).await;
        answers.wait_for(|now| *now == Some(true)).await.unwrap();
        answers.mark_unchanged();
        serve(&listener, 1).await;
        // It was asked again and nothing was told, since nothing has changed.
        assert!(!answers.has_changed().unwrap());
        drop(listener);
        answers.wait_for(|now| *now == Some(false)).await.unwrap();
        watching.abort();
    }
}
