//! Every limit of the servers, with its number and its reason.

use std::time::Duration;

/// Datagrams that are taken or sent by one call.
pub(crate) const BATCH_MAX: usize = 64;

/// The longest answer that goes to its client with others as one packet: IPv6 lets this pass everywhere (1280 bytes with
/// both headers), so that no train is refused because of its cars.
pub(crate) const CAR_BYTES_MAX: usize = 1232;

/// Bytes of one train: what one IP packet can carry. The kernel's limit of 64 cars is [`BATCH_MAX`].
pub(crate) const TRAIN_BYTES_MAX: usize = 65_000;

/// A batch of so many datagrams says that many more are coming.
pub(crate) const GATHER_FROM: usize = 4;

/// How long they may gather before they are taken: a tenth of what a query waits under such a load anyway.
pub(crate) const GATHER: Duration = Duration::from_micros(25);

/// After so many pauses it is judged whether they save packets: enough that chance does not decide.
pub(crate) const PAUSES_TRIED: u32 = 16;

/// Batches without a pause after a judgement against them: trying costs little more than a hundredth, and who begins to
/// ask much is known in a fraction of a second.
pub(crate) const PAUSES_UNTRIED: u32 = 1024;

/// The longest query that is taken over UDP: a name of 255 bytes, OPT with a cookie, TSIG; EDNS allows no more than this
/// to be sent without knowing the path (RFC 9715).
pub(crate) const QUERY_BYTES_MAX: usize = 1500;

/// How long a thread waits for datagrams before it looks whether it should end.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Room that is asked for in UDP sockets, so that a burst is not lost while a thread is busy. The kernel cuts it to
/// `net.core.rmem_max`.
pub(crate) const DATAGRAM_BUFFER_BYTES: usize = 4 << 20;

/// Connections that wait to be taken; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 1024;

/// Wait before a listener takes again after the system had no file descriptor or memory left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of answers that are collected before they are written: the answers to queries that came together go together.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

/// The path at which HTTPS is served (RFC 8484, section 4.1; CoreDNS' path, too).
pub(crate) const HTTPS_PATH: &str = "/dns-query";

/// How much is carried at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that are open, over all listeners. Each takes a file descriptor and some kilobytes; the next one is closed
    /// at once.
    pub streams_max: usize,
    /// Queries of one stream that wait for their answers; its next one is not read before one has been answered.
    pub pipelined_max: usize,
    /// UDP queries that wait for their answers, over all listeners; the next one gets none. Each takes some kilobytes.
    pub waiting_max: usize,
    /// A stream without a whole query for so long is closed (RFC 7766, section 6.2.3: some seconds).
    pub idle: Duration,
    /// A client that takes no bytes of an answer for so long has gone away.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            streams_max: 8192,
            pipelined_max: 128,
            waiting_max: 16_384,
            idle: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}
