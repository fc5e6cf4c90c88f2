//! Every limit of the server, with its number and its reason.

use std::time::Duration;

/// Connections that wait to be taken; the kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG_MAX: i32 = 4096;

/// Wait before a thread takes connections again after the system had no file descriptor or memory left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bytes of the head of one request: the four buffers of 8 KiB that nginx has. More is answered with 431.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of one request; more is answered with 431. Browsers send twenty.
pub(super) const HEADERS_MAX: usize = 100;

/// Requests that one HTTP/2 connection may have open: nginx' number. Streams that a client resets before they are
/// answered are counted by h2 itself, which ends the connection at 20 (CVE-2023-44487).
pub(super) const STREAMS_MAX: u32 = 128;

/// Streams that a client has reset before anybody has looked at them; one more ends the connection (rapid reset,
/// CVE-2023-44487). Browsers reset a handful when somebody moves on.
pub(super) const RESETS_PENDING_MAX: usize = 20;

/// Streams that a client has made us reset by breaking the protocol; one more ends the connection (CVE-2025-8671).
pub(super) const RESETS_OWN_MAX: usize = 64;

/// Bytes of the body of one stream that a client may send before anybody has read them.
pub(super) const STREAM_WINDOW: u32 = 256 * 1024;

/// And of all streams of a connection.
pub(super) const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of answers that are kept for one stream of a client that does not read them.
pub(super) const SEND_BYTES_MAX: usize = 256 * 1024;

/// Requests at a time over one connection of HTTP/2 to an endpoint; one more makes another connection. Servers allow
/// 100 or more as a rule (RFC 9113 section 6.5.2).
pub(super) const UPSTREAM_STREAMS_MAX: usize = 100;

/// Bytes of one answer that an endpoint may send by HTTP/2 before anybody has read them.
pub(super) const UPSTREAM_STREAM_WINDOW: u32 = 256 * 1024;

/// And of all answers of a connection.
pub(super) const UPSTREAM_CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Idle connections that a thread keeps to one endpoint; more are closed when their request is done.
pub(super) const IDLE_MAX: usize = 64;

/// Idle connections that a thread keeps to all endpoints: a quarter of the descriptors that a process has as a rule is
/// for four threads. At this many, a connection is closed when its request is done.
pub(super) const IDLE_ALL_MAX: usize = 4096;

/// A connection that is idle for so long is closed: before most servers close theirs.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often idle connections are looked through.
pub(super) const IDLE_LOOK: Duration = Duration::from_secs(5);

/// Requests that are under way when the server stops may take this long.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Handshakes of QUIC that wait to be looked at; more are refused.
pub(super) const HANDSHAKES_WAITING_MAX: usize = 1024;

/// Bytes that they have sent by then, all together.
pub(super) const HANDSHAKES_WAITING_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// With more connections of QUIC than this, clients show that their address is their own before they cost anything (Retry,
/// RFC 9000 section 8.1.2): that takes them one more round trip.
pub(super) const HANDSHAKES_TRUSTED_MAX: usize = 1024;

/// Streams that a client of HTTP/3 may have open for itself: there are three, and names to keep servers tolerant.
pub(super) const STREAMS_OF_CLIENT_MAX: u32 = 8;

/// How often it is tried to get the address of the gateway before us for HTTP/3.
pub(super) const BIND_PAUSE: Duration = Duration::from_millis(200);

/// So long it is waited until clients of HTTP/3 know that their connections are over.
pub(super) const PARTING_TIMEOUT: Duration = Duration::from_secs(1);

/// Limits of clients that an operator, or a test, may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that one thread has at one time; further ones wait in the backlog. Each costs some 20 KiB, so that with
    /// the default a thread takes at most 320 MiB.
    pub connections_max: usize,
    /// A client must finish its TLS handshake, and say who it is, in this time.
    pub handshake_timeout: Duration,
    /// A client must send the head of a request in this time, counted from the end of the request before: nginx' 60 s.
    pub head_timeout: Duration,
    /// A client must send some bytes of a body, and take some of an answer, in this time: nginx' 60 s.
    pub client_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 16_384,
            handshake_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(60),
            client_timeout: Duration::from_secs(60),
        }
    }
}
