//! Every limit of the server, with its number and its reason.

use std::time::Duration;

/// Connections that wait to be taken; the kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG_MAX: i32 = 4096;

/// Connections that one thread has at one time; further ones wait in the backlog. Each costs some 20 KiB, so a thread
/// takes at most 320 MiB.
pub(super) const CONNECTIONS_MAX: usize = 16_384;

/// Wait before a thread takes connections again after the system had no file descriptor or memory left.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A client must finish its TLS handshake in this time.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client must send the head of a request in this time, counted from the end of the request before: nginx' 60 s.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of the head of one request: the four buffers of 8 KiB that nginx has. More is answered with 431.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of one request; more is answered with 431. Browsers send twenty.
pub(super) const HEADERS_MAX: usize = 100;

/// Requests that one HTTP/2 connection may have open: nginx' number. Streams that a client resets before they are
/// answered are counted by h2 itself, which ends the connection at 20 (CVE-2023-44487).
pub(super) const STREAMS_MAX: u32 = 128;

/// Endpoints that are tried for one request, of which nothing has been sent to any before the last.
pub(super) const TRIES_MAX: usize = 3;

/// An endpoint must take a connection in this time; it is in the same cluster.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint must begin its answer in this time, counted from the last byte that the client has sent: nginx' 60 s.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

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
