//! Userspace and loopback mode as the proxy runs them: a relay in a process of its own that outlives this one, behind
//! the portal's rules or behind sockets of its own.

mod remote;
mod roster;

use std::path::PathBuf;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portolan_dataplane::nftables::{Portal, PortalTarget};
use portolan_kernel::NftTarget;
use portolan_model::ApplyError;
use portolan_relay::{Dial, Loopback, LoopbackTarget, RelayTarget, Userspace};
use tokio::sync::mpsc;

use super::metrics::Telemetry;
use super::mode::Mode;
use remote::Remote;
pub(super) use roster::Kind;
use roster::Roster;

/// File descriptors that the agent asks for in loopback mode: one for each door, and some hundred for everything else.
const FILES_WANTED: u64 = 4096;

/// What both halves go by.
pub(super) fn backend() -> Userspace<Portal> {
    Userspace::default()
}

/// Where relays are found, and how they are started.
#[derive(Clone, Debug)]
pub(super) struct Relays {
    /// Who hears of connections to endpoints.
    pub(super) dials: mpsc::Sender<Dial>,
    /// Where their sockets are.
    pub(super) dir: PathBuf,
    pub(super) verbosity: u32,
    pub(super) logging_format: String,
}

impl Relays {
    /// The target of this mode, in the network namespace of the calling thread. The metrics get what it counts.
    pub(super) fn open(
        &self,
        telemetry: &Telemetry,
    ) -> Result<RelayTarget<PortalTarget<NftTarget>, Remote>, ApplyError> {
        let portal = PortalTarget(NftTarget::open()?);
        let relay = self.remote(Kind::Portal, telemetry)?;
        let doors = backend().doors;
        Ok(RelayTarget {
            portal,
            relay,
            doors,
        })
    }

    /// The target of loopback mode, in the network namespace of the calling thread.
    pub(super) fn open_loopback(
        &self,
        telemetry: &Telemetry,
    ) -> Result<LoopbackTarget<Remote>, ApplyError> {
        // Each door takes one file descriptor of ours.
        if let Err(error) = raise_files(FILES_WANTED) {
            tracing::warn!(%error, "there is room for few Services only");
        }
        Ok(LoopbackTarget::new(self.remote(Kind::Loopback, telemetry)?))
    }

    fn remote(&self, kind: Kind, telemetry: &Telemetry) -> Result<Remote, ApplyError> {
        Remote::open(self.roster(kind)?, self, telemetry.relayed())
    }

    /// Relays of other modes in this network namespace are not wanted any more: their connections come to their end.
    pub(super) fn retire_others(&self, mode: Mode) {
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| mode.relay() != Some(*kind))
        {
            match self.roster(kind) {
                Ok(roster) => roster.retire(),
                Err(error) => tracing::warn!(%error, "a relay may go on"),
            }
        }
    }

    fn roster(&self, kind: Kind) -> Result<Roster, ApplyError> {
        Roster::here(&self.dir, kind).map_err(told("find the relays of this node"))
    }
}

/// What loopback mode goes by: the kernel says which ports are for everybody.
pub(super) fn loopback() -> Loopback {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_port = text.ok().and_then(|text| text.trim().parse().ok());
    Loopback {
        // The kernel's default.
        first_port: first_port.unwrap_or(1024),
    }
}

/// Lets this process have so many file descriptors, or as many as it may; returns how many.
pub(in crate::cmd) fn raise_files(wanted: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = wanted.min(hard).max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}

/// Ends all relays of the calling thread's network namespace, with their connections (`--cleanup`).
pub(super) fn end_all(dir: &std::path::Path) -> Result<(), ApplyError> {
    Kind::ALL.into_iter().try_for_each(|kind| {
        let roster = Roster::here(dir, kind).map_err(told("find the relays of this node"))?;
        roster.end().map_err(told("end a relay"))
    })
}

fn told(doing: &str) -> impl FnOnce(std::io::Error) -> ApplyError {
    move |error| ApplyError {
        doing: doing.into(),
        words: error.to_string(),
    }
}
