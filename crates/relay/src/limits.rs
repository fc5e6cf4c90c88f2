//! Every limit of the relay, with its number and its reason.

use std::time::Duration;

/// How long each try to reach an endpoint may take; every try goes to the next endpoint. The numbers are those of
/// kube-proxy's userspace mode: fast for a cluster, and together less than a client waits.
pub const DIAL_TIMEOUTS: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// A UDP client that got answers is forgotten when nothing was said for so long: conntrack's time for a stream, so that
/// this mode forgets when the others do. (kube-proxy's 250 ms made every slow answer a lost one.)
pub const SESSION_IDLE: Duration = Duration::from_secs(120);

/// A UDP client that never got an answer is forgotten after this: conntrack's time, too.
pub const SESSION_IDLE_UNANSWERED: Duration = Duration::from_secs(30);

/// Connections that wait in a door before they are taken; the kernel cuts it to `net.core.somaxconn`.
pub(crate) const BACKLOG_MAX: u32 = 4096;

/// Connections that a thread may have more than another one before it lets that one take the next: less, and threads
/// wake each other for nothing; more, and a few that are busy share a thread while another one has none.
pub(crate) const AHEAD_MAX: usize = 3;

/// Wait before a door takes again after the system had no file descriptor or memory left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// After this long without a byte both ends of a connection are asked whether they still live, every
/// [`KEEPALIVE_INTERVAL`], [`KEEPALIVE_PROBES_MAX`] times. That begins when the connection is so old, which most never
/// are: a dead client costs its room for three minutes at most.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered questions after which a peer counts as dead and its connection is reset: one may be lost on the way, four
/// in a row are not.
pub(crate) const KEEPALIVE_PROBES_MAX: u32 = 4;

/// What one pipe holds, and so what one turn of a connection moves: the largest that a process without privileges may
/// ask for (`fs.pipe-max-size`) divided by four, because pipes without privileges share 64 MiB.
pub(crate) const PIPE_BYTES: usize = 256 << 10;

/// Pipes that each thread keeps for the next connection that has bytes to move. They are needed for as long as bytes
/// are in them only, so this many serve any number of connections.
pub(crate) const PIPES_KEPT_MAX: usize = 32;

/// Turns that a connection takes before others get theirs.
pub(crate) const TURNS_MAX: u32 = 16;

/// What is copied at once. A request and its answer mostly fit; what does not goes through a pipe.
pub(crate) const COPY_BYTES: usize = 16 << 10;

/// Datagrams that are taken or sent by one call.
pub(crate) const BATCH_MAX: usize = 32;

/// Bytes that go to the kernel as one packet: what fits into one, with all headers.
pub(crate) const TRAIN_BYTES_MAX: usize = 65_000;

/// The largest datagram that UDP has.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Batches that a door or a session moves before others get their turn.
pub(crate) const BATCHES_MAX: u32 = 16;

/// Room that is asked for in the sockets of doors and sessions, so that a burst is not lost while a thread is busy.
/// The kernel cuts it to `net.core.rmem_max`.
pub(crate) const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;

/// How much one relay carries at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// TCP connections, over all Services. Each takes two file descriptors.
    pub connections_max: usize,
    /// TCP connections of one Service port: no Service takes the room of all others.
    pub connections_per_port_max: usize,
    /// Of UDP.
    pub datagrams: DatagramLimits,
    /// Clients whose endpoint is remembered for session affinity, for each Service port; the one that was silent for
    /// longest makes room.
    pub clients_per_port_max: usize,
}

/// How many UDP clients a relay knows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramLimits {
    /// Over all Services. Each takes one file descriptor.
    pub sessions_max: usize,
    /// Of one Service port; the client that was silent for longest makes room.
    pub sessions_per_port_max: usize,
}

impl Limits {
    /// What fits into so many file descriptors: a tenth is left for everything else, two thirds of the rest are for
    /// TCP; a Service port gets half of what there is.
    pub fn for_files(files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX).min(FILES_MAX);
        let ours = files - files / 10;
        let connections_max = (ours / 3).max(1);
        let sessions_max = (ours / 3).max(1);
        Limits {
            connections_max,
            connections_per_port_max: connections_max.div_ceil(2),
            datagrams: DatagramLimits {
                sessions_max,
                sessions_per_port_max: sessions_max.div_ceil(2),
            },
            clients_per_port_max: CLIENTS_PER_PORT_MAX,
        }
    }
}

/// More file descriptors than this are not made use of: a connection costs some kilobytes beside them.
const FILES_MAX: usize = 1 << 20;

/// 65 536 clients cost about 8 MB.
const CLIENTS_PER_PORT_MAX: usize = 65_536;

impl Default for Limits {
    /// For 64 000 file descriptors, kube-proxy's number.
    fn default() -> Self {
        Limits::for_files(64_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_fit_into_the_file_descriptors() {
        for files in [0, 16, 1024, 64_000, u64::MAX] {
            let limits = Limits::for_files(files);
            let used = 2 * limits.connections_max + limits.datagrams.sessions_max;
            assert!(
                used as u64 <= files.max(3),
                "{files} file descriptors, {used} used"
            );
            assert!(limits.connections_per_port_max > 0);
        }
    }
}
