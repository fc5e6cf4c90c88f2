//! Userspace mode as the proxy runs it: the portal's rules, and a relay in a process of its own that outlives this one.

mod remote;
mod roster;

use std::path::PathBuf;

use portolan_dataplane::nftables::{Portal, PortalTarget};
use portolan_kernel::NftTarget;
use portolan_model::ApplyError;
use portolan_relay::{Dial, RelayTarget, Userspace};
use tokio::sync::mpsc;

use super::metrics::Telemetry;
use remote::Remote;
use roster::Roster;

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
        let relay = Remote::open(self.roster()?, self, telemetry.relayed())?;
        let doors = backend().doors;
        Ok(RelayTarget {
            portal,
            relay,
            doors,
        })
    }

    /// Relays of this network namespace are not wanted any more: their connections come to their end.
    pub(super) fn retire(&self) {
        match self.roster() {
            Ok(roster) => roster.retire(),
            Err(error) => tracing::warn!(%error, "a relay may go on"),
        }
    }

    fn roster(&self) -> Result<Roster, ApplyError> {
        Roster::here(&self.dir).map_err(told("find the relays of this node"))
    }
}

/// Ends all relays of the calling thread's network namespace, with their connections (`--cleanup`).
pub(super) fn end_all(dir: &std::path::Path) -> Result<(), ApplyError> {
    let roster = Roster::here(dir).map_err(told("find the relays of this node"))?;
    roster.end().map_err(told("end a relay"))
}

fn told(doing: &str) -> impl FnOnce(std::io::Error) -> ApplyError {
    move |error| ApplyError {
        doing: doing.into(),
        words: error.to_string(),
    }
}
