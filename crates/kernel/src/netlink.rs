//! A blocking rtnetlink conversation: one request, its answers, its acknowledgement.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::{Error, Result};
use crate::netns::Netns;

/// A netlink socket of one network namespace.
pub struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    /// A socket of the calling thread's namespace.
    pub fn open() -> Result<RouteSocket> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        Ok(RouteSocket {
            socket: open().map_err(|e| Error::call("open a netlink socket", e))?,
            sequence: 0,
        })
    }

    /// A socket of `netns`; it can be used from any thread.
    pub fn open_in(netns: &Netns) -> Result<RouteSocket> {
        netns.run(RouteSocket::open)?
    }

    /// Sends one change and waits until the kernel has made or refused it.
    pub fn change(&mut self, what: &str, flags: u16, message: RouteNetlinkMessage) -> Result<()> {
        self.ask(what, NLM_F_REQUEST | NLM_F_ACK | flags, message)
            .map(drop)
    }

    /// Sends one question and collects the answer.
    pub fn question(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.ask(what, NLM_F_REQUEST | NLM_F_ACK, message)
    }

    /// Sends one listing request and collects the answers.
    pub fn dump(
        &mut self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.ask(what, NLM_F_REQUEST | NLM_F_DUMP, message)
    }

    fn ask(
        &mut self,
        what: &str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map_err(|e| Error::call(what, e))?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self
                .socket
                .recv_from_full()
                .map_err(|e| Error::call(what, e))?;
            if self.read_datagram(what, &datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Reads the messages of one datagram; true when the conversation is over.
    fn read_datagram(
        &self,
        what: &str,
        datagram: &[u8],
        answers: &mut Vec<RouteNetlinkMessage>,
    ) -> Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|e| Error::Protocol(format!("{what}: unreadable netlink answer: {e}")))?;
            let length = (message.header.length as usize)
                .next_multiple_of(4)
                .clamp(4, rest.len());
            rest = &rest[length..];
            if message.header.sequence_number != self.sequence {
                continue;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                NetlinkPayload::Error(error) => match error.code {
                    None => return Ok(true),
                    Some(code) => {
                        return Err(Error::Netlink {
                            request: what.to_string(),
                            source: io::Error::from_raw_os_error(code.get().abs()),
                            hint: explanation(&error.header),
                        });
                    }
                },
                _ => {}
            }
        }
        Ok(false)
    }
}

/// The text of an extended acknowledgement: after the 16 bytes of the refused header, attribute 1 is a C string.
fn explanation(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes.get(16..)?;
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        let kind = u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == 1 {
            let text = value.split(|byte| *byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}
