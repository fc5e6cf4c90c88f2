//! Stale flows of UDP and SCTP: looked for after the rules have changed, on the same thread, never in their way.
//! Connections to endpoints that have just been ejected: those that were never answered go elsewhere at once.
//! What conntrack has of them and, in eBPF mode, what sockets have.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use portolan_kernel::{Conntrack, ebpf};
use portolan_model::{
    ApplyError, Doors, Family, Flow, Protocol, Snapshot, Sweep, Sweeper, newly_ejected,
};

use super::metrics::Telemetry;
use super::sockets::Sockets;

/// conntrack of this network namespace, and what is still to be looked for in it.
pub(super) struct Flows {
    /// `None` for a mode that leads no flow through it.
    conntrack: Option<Conntrack>,
    /// Where programs of eBPF mode have the flows from outside, in whatever mode: some may live on.
    pins: PathBuf,
    sweeper: Sweeper,
    standing: Option<Snapshot>,
    /// When to look for namespaces that have come or gone, in eBPF mode.
    namespaces_due: Option<Duration>,
}

/// Sockets of UDP in a pod that is newer than this may still meet the rules.
const NAMESPACES_EVERY: Duration = Duration::from_secs(2);

impl Flows {
    /// Those of the network namespace that the calling thread is in; `relay` waits behind these doors, if there is one.
    pub(super) fn open(relay: Option<Doors>, pins: &Path) -> Result<Self, ApplyError> {
        Ok(Flows {
            conntrack: Some(Conntrack::open()?),
            pins: pins.into(),
            sweeper: relay.map_or(Sweeper::default(), Sweeper::with_relay),
            standing: None,
            namespaces_due: None,
        })
    }

    /// For a mode that leads no flow through conntrack: nothing is ever looked for.
    pub(super) fn none() -> Self {
        Flows {
            conntrack: None,
            pins: PathBuf::new(),
            sweeper: Sweeper::default(),
            standing: None,
            namespaces_due: None,
        }
    }

    /// `snapshot` stands in the kernel.
    pub(super) fn on_stands(&mut self, snapshot: &Snapshot, sockets: &Sockets) {
        let Some(conntrack) = &mut self.conntrack else {
            return;
        };
        self.sweeper.on_stands(snapshot);
        let before = self.standing.replace(snapshot.clone());
        let out = before.map(|before| newly_ejected(&before, snapshot));
        if let Some(out) = out.filter(|out| !out.is_empty()) {
            match conntrack.leave(&out) {
                Ok(count) => {
                    tracing::debug!(count, "connections that were not answered go elsewhere")
                }
                Err(error) => {
                    tracing::warn!(%error, "connections that were not answered go nowhere")
                }
            }
            sockets.leave(&out);
        }
    }

    /// When [`Flows::sweep`] wants to be called, counted from its `start`.
    pub(super) fn due(&self) -> Option<Duration> {
        let all = [self.sweeper.due(), self.namespaces_due];
        all.into_iter().flatten().min()
    }

    /// Forgets stale flows, if that is due. A failure is told and counted, and done anew later.
    pub(super) fn sweep(&mut self, start: Instant, telemetry: &Telemetry) {
        let now = start.elapsed();
        if self.namespaces_due.is_none_or(|due| due <= now) {
            let has_programs = telemetry.sockets.refresh();
            self.namespaces_due = has_programs.then_some(now + NAMESPACES_EVERY);
        }
        let began = Instant::now();
        let Some(sweep) = self.sweeper.begin(start.elapsed()) else {
            return;
        };
        let mut deleted = 0;
        let mut look = |family| {
            let (began, mut count) = (Instant::now(), 0);
            let result = self.look(family, &sweep, &telemetry.sockets, &mut count);
            telemetry.swept(family, count, began.elapsed(), result.is_ok());
            deleted += count;
            result
        };
        let result = Family::ALL.into_iter().try_for_each(&mut look);
        let took = began.elapsed();
        self.sweeper.end(start.elapsed(), took, result.is_ok());
        match result {
            Ok(()) => tracing::debug!(deleted, ?took, "stale flows forgotten"),
            Err(error) => tracing::error!(%error, deleted, "stale flows may live on, trying again"),
        }
    }

    fn look(
        &mut self,
        family: Family,
        sweep: &Sweep,
        sockets: &Sockets,
        deleted: &mut u64,
    ) -> Result<(), ApplyError> {
        let Some(conntrack) = &mut self.conntrack else {
            return Ok(());
        };
        sweep.protocols().into_iter().try_for_each(|protocol| {
            let is_stale = |flow: &_| sweep.is_stale(flow);
            conntrack.sweep(family, protocol, is_stale, deleted)?;
            ebpf::sweep(&self.pins, family, protocol, is_stale, deleted)
        })?;
        if sweep.protocols().contains(&Protocol::Udp) {
            let of_family = |flow: &Flow| Family::of(flow.destination.ip()) == family;
            *deleted += sockets.sweep(|flow| of_family(flow) && sweep.is_stale(flow))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
