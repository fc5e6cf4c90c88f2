//! The netlink socket: sends a batch and collects what the kernel says to it; asks for dumps.

use std::io;

use netlink_sys::Socket;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER};
use nix::sys::socket::sockopt::{SndBuf, SndBufForce};
use nix::sys::socket::{getsockopt, setsockopt};
use portolan_model::ApplyError;

use super::wire::{Attributes, HEADER_LEN, Message, Writer, read_u32};

/// The largest transaction: netlink takes a batch as one datagram, whose size is a 31-bit number of bytes.
/// A hundred thousand Services with two endpoints each take about 60 MB. What does not fit is sent in parts.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// What netlink counts beyond the bytes of a datagram.
const OVERHEAD_BYTES: usize = 4096;

/// Room for the kernel's answers: a hundred thousand errors with their texts.
const RECEIVE_BYTES: usize = 16 << 20;

/// One datagram of a dump has at most 32 KiB, one of acknowledgements less.
const DATAGRAM_BYTES: usize = 128 << 10;

const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`: the rule set changed while it was dumped.
const INTERRUPTED: u16 = 0x10;
const CAPPED: u16 = 0x100;
const WITH_WORDS: u16 = 0x200;

/// What the kernel refused: the message's sequence number and the error.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub sequence: u32,
    pub errno: i32,
    pub words: String,
}

pub(crate) struct Nfnetlink {
    socket: Socket,
    send_bytes: usize,
    sequence: u32,
    /// For one datagram at a time; kept, because memory of this size costs a system call each time.
    buffer: Vec<u8>,
}

pub(crate) fn failed(doing: &str) -> impl Fn(io::Error) -> ApplyError + '_ {
    move |error| ApplyError {
        doing: doing.into(),
        words: words_of(error.raw_os_error().unwrap_or(0)),
    }
}

/// The kernel's own words for an error number, without Rust's "(os error 2)".
pub(crate) fn words_of(errno: i32) -> String {
    nix::errno::Errno::from_raw(errno).desc().into()
}

impl Nfnetlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, ApplyError> {
        Nfnetlink::open_to(NETLINK_NETFILTER)
            .map_err(failed("cannot open a netlink socket to netfilter"))
    }

    /// The same towards generic netlink, which IPVS speaks: with [`Writer::begin_generic`].
    pub fn open_generic() -> Result<Self, ApplyError> {
        Nfnetlink::open_to(NETLINK_GENERIC).map_err(failed("cannot open a generic netlink socket"))
    }

    fn open_to(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        // Without the privilege the first transaction says so; a small buffer only loses the words of errors.
        let _ = socket.set_rx_buf_sz(RECEIVE_BYTES as libc::c_int);
        Ok(Nfnetlink {
            socket,
            send_bytes: 0,
            sequence: 1,
            buffer: Vec::with_capacity(DATAGRAM_BYTES),
        })
    }

    pub fn next_sequence(&self) -> u32 {
        self.sequence
    }

    /// Makes the send buffer fit a datagram of `size` bytes, if that is allowed; says how long one may be.
    /// Only root of the machine may pass `net.core.wmem_max`; others get what that allows.
    pub fn room(&mut self, size: usize) -> Result<usize, ApplyError> {
        let wanted = (size + OVERHEAD_BYTES).min(BATCH_BYTES_MAX);
        if wanted > self.send_bytes {
            // The kernel doubles the number.
            if setsockopt(&self.socket, SndBufForce, &(wanted / 2 + 1)).is_err() {
                let _ = setsockopt(&self.socket, SndBuf, &(wanted / 2 + 1));
            }
            let now = getsockopt(&self.socket, SndBuf).map_err(std::io::Error::from);
            self.send_bytes = now.map_err(failed("cannot enlarge the socket to netfilter"))?;
        }
        Ok(self.send_bytes - OVERHEAD_BYTES.min(self.send_bytes))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let sent = self.socket.send(bytes, 0);
        sent.map(drop).map_err(failed("cannot send to the kernel"))
    }

    /// Puts the next datagram into the buffer; false when there is none.
    fn receive(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Runs a transaction. The kernel answers before `send` returns: either the last message is acknowledged,
    /// or those that are refused are named.
    pub fn transact(&mut self, batch: &[u8], sequence_end: u32) -> Result<(), Vec<Refusal>> {
        let lost = |error: ApplyError| {
            vec![Refusal {
                sequence: 0,
                errno: 0,
                words: format!("{}: {}", error.doing, error.words),
            }]
        };
        self.sequence = sequence_end;
        self.drain();
        self.send(batch).map_err(lost)?;
        let mut refusals = Vec::new();
        let mut acknowledged = false;
        loop {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return Err(lost(failed("cannot hear the kernel")(error))),
            }
            for message in Message::all(&self.buffer).filter(|m| m.kind == ERROR) {
                match refusal(&message) {
                    Some(refusal) => refusals.push(refusal),
                    None => acknowledged = true,
                }
            }
        }
        match (refusals.is_empty(), acknowledged) {
            (true, true) => Ok(()),
            (true, false) => Err(vec![Refusal {
                sequence: 0,
                errno: 0,
                words: "no answer".into(),
            }]),
            (false, _) => Err(refusals),
        }
    }

    /// Throws away answers to earlier questions.
    fn drain(&mut self) {
        while let Ok(true) = self.receive() {}
    }

    /// Asks one question and tells every message of the answer. False if there is no such thing.
    pub fn ask(
        &mut self,
        doing: &str,
        question: impl Fn(&mut Writer),
        mut tell: impl FnMut(Attributes<'_>),
    ) -> Result<Answer, ApplyError> {
        self.drain();
        let mut out = Writer::new(self.sequence);
        question(&mut out);
        out.end();
        let sequence = self.sequence;
        self.sequence = out.sequence;
        self.send(&out.bytes)?;
        let mut answer = Answer::Whole;
        while self.receive().map_err(failed(doing))? {
            for message in Message::all(&self.buffer).filter(|m| m.sequence == sequence) {
                if message.flags & INTERRUPTED != 0 {
                    answer = Answer::Interrupted;
                }
                match message.kind {
                    DONE => return Ok(answer),
                    ERROR => {
                        return match refusal(&message) {
                            None => Ok(answer),
                            Some(r) if r.errno == libc::ENOENT => Ok(Answer::Nothing),
                            Some(refusal) => Err(ApplyError {
                                doing: doing.into(),
                                words: refusal.words,
                            }),
                        };
                    }
                    _ => tell(message.attributes()),
                }
            }
        }
        Ok(answer)
    }
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Whole,
    /// Something changed meanwhile: ask again.
    Interrupted,
    /// There is no such thing.
    Nothing,
}

/// The error of an ERROR message; `None` for an acknowledgement.
fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let errno = -(read_u32(message.body, 0)? as i32);
    if errno == 0 {
        return None;
    }
    let sequence = read_u32(message.body, 4 + 8).unwrap_or(0);
    let mut words = words_of(errno);
    if message.flags & WITH_WORDS != 0 {
        let original = match message.flags & CAPPED != 0 {
            true => HEADER_LEN,
            false => read_u32(message.body, 4).unwrap_or(0) as usize,
        };
        let extra = message.body.get(4 + original.next_multiple_of(4)..);
        if let Some(text) = extra.and_then(|extra| Attributes(extra).text(1)) {
            words = format!("{words} ({text})");
        }
    }
    Some(Refusal {
        sequence,
        errno,
        words,
    })
}
