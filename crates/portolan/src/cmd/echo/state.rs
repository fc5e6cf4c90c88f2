//! Who the echo server is, and what it has been told to do.

use std::fmt::Arguments;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Who answers.
pub struct Identity {
    /// The pod's name, or the machine's.
    pub name: String,
    /// `$NODE_NAME`.
    pub node: String,
    /// `$POD_IP`.
    pub pod_ip: String,
    /// `$VERSION`.
    pub version: String,
}

impl Identity {
    /// Reads what the pod's manifest put into the environment.
    pub fn from_env(name: Option<String>) -> Identity {
        let var = |name| std::env::var(name).unwrap_or_default();
        let host = || {
            nix::unistd::gethostname()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let name = name
            .or_else(|| std::env::var("POD_NAME").ok())
            .unwrap_or_else(host);
        Identity {
            name,
            node: var("NODE_NAME"),
            pod_ip: var("POD_IP"),
            version: var("VERSION"),
        }
    }
}

/// The server's state, changed at run time through its HTTP paths.
pub struct State {
    /// Who answers.
    pub identity: Identity,
    delay_ms: AtomicU64,
    hang: AtomicBool,
    ready: AtomicBool,
    terminating: AtomicBool,
    unready_file: Option<PathBuf>,
    quiet: bool,
}

impl State {
    /// Says on standard output what happens, unless it shall be quiet.
    pub fn tell(&self, what: Arguments) {
        if !self.quiet {
            // Who closes our output does not want to know.
            let _ = writeln!(std::io::stdout(), "{what}");
        }
    }

    /// A server that is ready.
    pub fn new(
        identity: Identity,
        delay_ms: u64,
        hang: bool,
        unready_file: Option<PathBuf>,
        quiet: bool,
    ) -> State {
        State {
            identity,
            delay_ms: delay_ms.into(),
            hang: hang.into(),
            ready: true.into(),
            terminating: false.into(),
            unready_file,
            quiet,
        }
    }

    /// How long to wait before an answer, in milliseconds.
    pub fn delay_ms(&self) -> u64 {
        self.delay_ms.load(Relaxed)
    }

    /// Sets the wait before each answer.
    pub fn set_delay_ms(&self, delay_ms: u64) {
        self.delay_ms.store(delay_ms, Relaxed);
    }

    /// Whether requests are left without an answer.
    pub fn hangs(&self) -> bool {
        self.hang.load(Relaxed)
    }

    /// Starts or stops leaving requests without an answer.
    pub fn set_hang(&self, hang: bool) {
        self.hang.store(hang, Relaxed);
    }

    /// Whether the readiness probe is answered with success.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed)
            && !self.is_terminating()
            && !self.unready_file.as_ref().is_some_and(|file| file.exists())
    }

    /// Tells the readiness probe what to answer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Relaxed);
    }

    /// Whether SIGTERM has come.
    pub fn is_terminating(&self) -> bool {
        self.terminating.load(Relaxed)
    }

    /// From here on the server is not ready and asks its clients to close their connections.
    pub fn begin_termination(&self) {
        self.terminating.store(true, Relaxed);
    }
}

/// The client's address as a person writes it: an IPv4 client of a dual-stack socket is an IPv4 address.
pub fn plain(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
        v4 => v4,
    };
    SocketAddr::new(ip, address.port())
}
