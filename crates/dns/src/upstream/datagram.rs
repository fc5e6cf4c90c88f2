//! One query over UDP, on a socket of its own: the kernel gives it a random port, and hands over only what comes from
//! the server that was asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

use super::random;
use super::{Ask, DATAGRAM_BYTES_MAX, Failure, local_address};
use crate::message::{Message, Question};
use crate::wire::eq_names;

/// Datagrams that are no answer to the question, after which a server is not listened to any more: either somebody
/// guesses, or it is broken.
pub(super) const STRANGE_MAX: usize = 64;

/// When a query is sent once more: most servers answer within 100 ms, and one try has 2 s.
const RESEND_AFTER: Duration = Duration::from_millis(700);

/// What came.
pub(super) enum Came {
    /// The answer.
    Answer(Message),
    /// An answer in which the letters of the question have lost their case: it may be forged, or the server may not
    /// keep the case. A stream tells.
    OtherCase,
}

/// Asks, and waits for as long as the caller does.
pub(super) async fn ask(
    ask: &Ask,
    to: SocketAddr,
    source: Option<IpAddr>,
    mixed: bool,
) -> Result<Came, Failure> {
    let (query, id, question) = random::query(ask, mixed)?;
    let socket = UdpSocket::bind(local_address(to, source)).await?;
    socket.connect(to).await?;
    socket.send(&query).await?;
    let waits = answer(&socket, id, &question);
    match tokio::time::timeout(RESEND_AFTER, waits).await {
        Ok(came) => came,
        // Either datagram may have been lost. The same query once more: both answers are right.
        Err(_) => {
            socket.send(&query).await?;
            answer(&socket, id, &question).await
        }
    }
}

async fn answer(socket: &UdpSocket, id: u16, question: &Question) -> Result<Came, Failure> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    for _ in 0..STRANGE_MAX {
        let length = socket.recv(&mut buffer).await?;
        let Ok(message) = Message::read(&buffer[..length]) else {
            match truncated(&buffer[..length], id) {
                true => return Err(Failure::Mismatch),
                false => continue,
            }
        };
        let same = message.response && message.id == id;
        let found = &message.question;
        if !same || (found.rtype, found.class) != (question.rtype, question.class) {
            continue;
        }
        if found.name == question.name {
            return Ok(Came::Answer(message));
        }
        if eq_names(found.name.as_wire(), question.name.as_wire()) {
            return Ok(Came::OtherCase);
        }
    }
    Err(Failure::Mismatch)
}

/// An answer with the right number that cannot be read, because it was cut off in the middle or has no question.
fn truncated(bytes: &[u8], id: u16) -> bool {
    bytes.len() >= 12 && bytes[..2] == id.to_be_bytes() && bytes[2] & 0x80 != 0
}
