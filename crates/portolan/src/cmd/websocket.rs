//! The frames of a WebSocket (RFC 6455), as far as `portolan echo` and `portolan ask` need them: whole messages of
//! bounded length, with answers to pings and to the end. The upgrade itself is made by who has the HTTP connection.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message, in bytes: what is said here is a line or a short answer, and nobody else's memory is to be had.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// How long somebody is listened to who has been told to stop.
const LINGER: Duration = Duration::from_secs(2);
/// How much of them is taken, in bytes: sixteen messages, more than is under way as a rule. Who says more may see a reset.
const LINGER_BYTES_MAX: u64 = 1024 * 1024;

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What is said in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Binary(Vec<u8>),
}

/// Why a WebSocket cannot go on; the number is what the other side is told (RFC 6455 section 7.4.1).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection has ended without an end of the WebSocket.
    #[error("the connection: {0}")]
    Io(#[from] std::io::Error),
    /// Something that may not be said.
    #[error("the other side breaks the rules ({0}): {1}")]
    Wrong(u16, &'static str),
}

/// The end for good, as each side says it.
pub const NORMAL: u16 = 1000;
/// The server ends.
pub const GOING_AWAY: u16 = 1001;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// One side of a WebSocket.
pub struct Socket<S> {
    stream: S,
    is_client: bool,
    /// We have said that it is the end: the other side's end is the answer, and gets none.
    is_closed: bool,
}

struct Frame {
    is_last: bool,
    kind: u8,
    data: Vec<u8>,
}

/// `Sec-WebSocket-Accept` of a key.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}{GUID}")))
}

/// A key as a client sends it. It has to differ from others by accident only: it shows that no cache has answered.
pub fn key() -> String {
    STANDARD.encode(fastrand::u128(..).to_ne_bytes())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The side that was asked.
    pub fn server(stream: S) -> Self {
        Socket {
            stream,
            is_client: false,
            is_closed: false,
        }
    }

    /// The side that asks, whose frames are masked.
    pub fn client(stream: S) -> Self {
        Socket {
            stream,
            is_client: true,
            is_closed: false,
        }
    }

    /// The next message; `None` when the other side has said that it is the end, which is answered.
    /// What may not be said is told to the other side before the error is given. Must not be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Message>, Error> {
        let result = self.message().await;
        if let Err(Error::Wrong(code, _)) = result {
            self.close(code).await?;
            self.linger().await;
        }
        result
    }

    /// Says a whole message.
    pub async fn send(&mut self, message: &Message) -> Result<(), Error> {
        match message {
            Message::Text(text) => self.write(TEXT, text.as_bytes()).await,
            Message::Binary(data) => self.write(BINARY, data).await,
        }
    }

    /// Says that it is the end.
    pub async fn close(&mut self, code: u16) -> Result<(), Error> {
        self.is_closed = true;
        self.write(CLOSE, &code.to_be_bytes()).await
    }

    /// Takes what is still under way, and throws it away: a connection that is closed before that is reset, and the reset
    /// may overtake what we have said.
    async fn linger(&mut self) {
        let reading = async {
            self.stream.shutdown().await?;
            let mut rest = (&mut self.stream).take(LINGER_BYTES_MAX);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        // Who goes on for longer has had the time to hear it.
        let _ = tokio::time::timeout(LINGER, reading).await;
    }

    async fn message(&mut self) -> Result<Option<Message>, Error> {
        let (mut kind, mut whole) = (None, Vec::new());
        loop {
            let frame = self.frame(MESSAGE_BYTES_MAX - whole.len()).await?;
            match (frame.kind, kind) {
                (PING, _) => {
                    self.write(PONG, &frame.data).await?;
                    continue;
                }
                (PONG, _) => continue,
                (CLOSE, _) => {
                    let code = frame.data.get(..2).unwrap_or_default();
                    if !self.is_closed {
                        self.write(CLOSE, code).await?;
                    }
                    return Ok(None);
                }
                (TEXT | BINARY, None) => kind = Some(frame.kind),
                (CONTINUATION, Some(_)) => {}
                _ => return Err(Error::Wrong(1002, "a frame that is out of turn")),
            }
            whole.extend(frame.data);
            if frame.is_last {
                break;
            }
        }
        if kind == Some(BINARY) {
            return Ok(Some(Message::Binary(whole)));
        }
        let text = String::from_utf8(whole);
        let text = text.map_err(|_| Error::Wrong(1007, "a text that is no UTF-8"))?;
        Ok(Some(Message::Text(text)))
    }

    async fn frame(&mut self, bytes_max: usize) -> Result<Frame, Error> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await?;
        let (kind, is_masked) = (head[0] & 0x0f, head[1] & 0x80 != 0);
        if head[0] & 0x70 != 0 {
            return Err(Error::Wrong(1002, "an extension that was not agreed to"));
        }
        if is_masked == self.is_client {
            return Err(Error::Wrong(1002, "a mask where none belongs, or none"));
        }
        let length = match head[1] & 0x7f {
            126 => u64::from(self.stream.read_u16().await?),
            127 => self.stream.read_u64().await?,
            short => u64::from(short),
        };
        if kind >= CLOSE && (length > 125 || head[0] & 0x80 == 0) {
            return Err(Error::Wrong(
                1002,
                "a control frame that is long or in parts",
            ));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if kind < CLOSE && length > bytes_max {
            return Err(Error::Wrong(1009, "a message that is too long"));
        }
        let mut mask = [0; 4];
        if is_masked {
            self.stream.read_exact(&mut mask).await?;
        }
        let mut data = vec![0; length];
        self.stream.read_exact(&mut data).await?;
        turn(&mut data, mask);
        Ok(Frame {
            is_last: head[0] & 0x80 != 0,
            kind,
            data,
        })
    }

    async fn write(&mut self, kind: u8, data: &[u8]) -> Result<(), Error> {
        let masked = if self.is_client { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | kind];
        match data.len() {
            length @ ..126 => bytes.push(masked | length as u8),
            length @ 126..=0xffff => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(masked | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let begin = bytes.len();
        if self.is_client {
            let mask = fastrand::u32(..).to_ne_bytes();
            bytes.extend(mask);
            bytes.extend(data);
            turn(&mut bytes[begin + 4..], mask);
        } else {
            bytes.extend(data);
        }
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

/// Masks, or takes the mask off.
fn turn(data: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in data.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that repeats what it hears until the end, and how that came.
    async fn repeat(stream: tokio::io::DuplexStream) -> Result<(), Error> {
        let mut socket = Socket::server(stream);
        while let Some(message) = socket.next().await? {
            socket.send(&message).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn messages_of_every_length_come_back() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let server = tokio::spawn(repeat(theirs));
        let mut client = Socket::client(ours);
        for length in [0, 1, 125, 126, 1000, 65_535, MESSAGE_BYTES_MAX] {
            let message = Message::Binary(vec![7; length]);
            let (sent, heard) = (message.clone(), {
                client.send(&message).await.unwrap();
                client.next().await.unwrap()
            });
            assert_eq!(heard, Some(sent), "{length}");
        }
        client.send(&Message::Text("where?".into())).await.unwrap();
        let heard = client.next().await.unwrap();
        assert_eq!(heard, Some(Message::Text("where?".into())));
        client.close(NORMAL).await.unwrap();
        assert_eq!(client.next().await.unwrap(), None);
        server.await.unwrap().unwrap();
    }

    /// What the server makes of these bytes, and the code that it tells.
    async fn said(bytes: &[u8]) -> (Result<(), Error>, Option<u16>) {
        let (mut ours, theirs) = tokio::io::duplex(2 * MESSAGE_BYTES_MAX);
        let server = tokio::spawn(repeat(theirs));
        ours.write_all(bytes).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).await.unwrap();
        let code = match heard[..] {
            [.., 0x88, 2, high, low] => Some(u16::from_be_bytes([high, low])),
            _ => None,
        };
        (server.await.unwrap(), code)
    }

    #[tokio::test]
    async fn what_may_not_be_said_is_told() {
        let long = [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
        let just_too_long = (MESSAGE_BYTES_MAX as u64 + 1).to_be_bytes();
        let just_too_long = [&[0x82, 0xff][..], &just_too_long, &[0; 4]].concat();
        let cases: [(&[u8], u16); 7] = [
            (&[0x81, 0x01, b'a'], 1002),
            (&[0xc1, 0x81, 0, 0, 0, 0, b'a'], 1002),
            (&[0x80, 0x81, 0, 0, 0, 0, b'a'], 1002),
            (&[0x09, 0x80, 0, 0, 0, 0], 1002),
            (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
            (&long, 1009),
            (&just_too_long, 1009),
        ];
        for (bytes, expected) in cases {
            let (result, code) = said(bytes).await;
            assert!(matches!(result, Err(Error::Wrong(..))), "{bytes:?}");
            assert_eq!(code, Some(expected), "{bytes:?}");
        }
        let (cut, _) = said(&[0x81, 0x85, 0, 0]).await;
        assert!(matches!(cut, Err(Error::Io(_))));
    }

    /// The rest of a message that is too long must not turn the answer into a reset; and there is an end to it.
    #[tokio::test]
    async fn who_says_too_much_hears_why() {
        let (ours, theirs) = tokio::io::duplex(4096);
        let server = tokio::spawn(repeat(theirs));
        let (mut read, mut write) = tokio::io::split(ours);
        let much = vec![0; 2 * LINGER_BYTES_MAX as usize];
        let head = [
            &[0x82, 0xff][..],
            &(much.len() as u64).to_be_bytes(),
            &[0; 4],
        ]
        .concat();
        let saying = tokio::spawn(async move {
            write.write_all(&head).await.unwrap();
            write.write_all(&much).await
        });
        let mut heard = Vec::new();
        read.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, [0x88, 2, 3, 0xf1], "1009");
        assert!(matches!(server.await.unwrap(), Err(Error::Wrong(1009, _))));
        assert!(saying.await.unwrap().is_err(), "nobody takes all of it");
    }

    #[tokio::test]
    async fn parts_are_joined_and_pings_answered_between_them() {
        let parts = [
            &[0x01, 0x81, 0, 0, 0, 0, b'a'][..],
            &[0x89, 0x81, 0, 0, 0, 0, b'p'],
            &[0x80, 0x81, 0, 0, 0, 0, b'b'],
            &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8],
        ];
        let (result, code) = said(&parts.concat()).await;
        result.unwrap();
        assert_eq!(code, Some(NORMAL));
    }

    #[test]
    fn keys_are_accepted_as_the_specification_shows() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(STANDARD.decode(key()).unwrap().len(), 16);
    }
}
