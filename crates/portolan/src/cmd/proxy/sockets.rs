//! What the programs of eBPF mode note about the sockets that they connect, for metrics and for those threads that watch
//! connections: to conntrack these go to an endpoint by themselves.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_kernel::ebpf::Notes;
use portolan_model::reset::{Connection, Fate};
use portolan_model::{ApplyError, Flow, Listener};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The notes of the programs that stand; none in other modes.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    notes: Mutex<Option<Notes>>,
    /// Those of programs that stood before another mode took over: connected sockets of UDP still go to the endpoints
    /// that they were given. Of modes before that one nobody knows any more, nor does the next process.
    former: Mutex<Option<Notes>>,
    outcomes: Family<[(&'static str, &'static str); 1], Counter>,
    /// Whether flows are counted.
    pub(super) counts: bool,
}

impl Sockets {
    /// Nothing is noted yet.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let sockets = Sockets::default();
        registry.register(
            "portolan_sockets",
            "Sockets that the programs of eBPF mode have seen, by what became of them",
            sockets.outcomes.clone(),
        );
        sockets
    }

    /// These programs stand from now on.
    pub(super) fn are_noted(&self, notes: Notes) {
        if let Err(error) = notes.want_dials() {
            tracing::warn!(%error, "connections that programs make say nothing about endpoints");
        }
        if self.counts
            && let Err(error) = notes.want_pairs()
        {
            tracing::warn!(%error, "connections that programs make are not counted");
        }
        *self.lock() = Some(notes);
    }

    /// None stand any more.
    pub(super) fn retire(&self) {
        if let Some(notes) = self.lock().take() {
            *lock(&self.former) = Some(notes);
        }
    }

    /// Where the last socket wanted to go that a program has connected to this endpoint of TCP.
    pub(super) fn asked(&self, endpoint: SocketAddr) -> Option<SocketAddr> {
        let notes = self.lock().clone()?;
        notes.asked(endpoint).unwrap_or_else(|error| {
            tracing::debug!(%error, "a connection was not looked at");
            None
        })
    }

    /// What the programs have counted; nothing in other modes. Pairs of which `is_old` says so are forgotten.
    pub(super) fn pairs(
        &self,
        is_old: impl Fn(&Flow) -> bool,
    ) -> Result<Vec<(Flow, u64)>, ApplyError> {
        let notes = self.lock().clone();
        notes.map_or(Ok(Vec::new()), |notes| notes.pairs(is_old))
    }

    /// Looks for namespaces that have come or gone; false in other modes.
    pub(super) fn refresh(&self) -> bool {
        let Some(notes) = self.lock().clone() else {
            return false;
        };
        if let Err(error) = notes.refresh() {
            tracing::warn!(%error, "sockets of UDP in new pods are not connected by programs");
        }
        true
    }

    /// Ends or forgets stale flows of UDP, also of programs that stood before, and says how many.
    pub(super) fn sweep(&self, is_stale: impl Fn(&Flow) -> bool) -> Result<u64, ApplyError> {
        let all = [self.lock().clone(), lock(&self.former).clone()];
        let counts = all.into_iter().flatten().map(|n| n.sweep(&is_stale));
        counts.sum()
    }

    /// Ends connections that lead nowhere, and says how many.
    pub(super) fn reset(
        &self,
        fate: impl Fn(&Connection) -> Fate + Sync,
    ) -> Result<u64, ApplyError> {
        let notes = self.lock().clone();
        notes.map_or(Ok(0), |notes| notes.reset(fate))
    }

    /// Ends connections to these endpoints that were not answered.
    pub(super) fn leave(&self, listeners: &BTreeSet<Listener>) {
        let Some(notes) = self.lock().clone() else {
            return;
        };
        match notes.leave(listeners) {
            Ok(count) => tracing::debug!(count, "sockets that were not answered are told"),
            Err(error) => tracing::warn!(%error, "sockets that were not answered go on waiting"),
        }
    }

    /// Brings the metrics up to date; what cannot be read stays as it was.
    pub(super) fn tell(&self) {
        let notes = self.lock();
        let Some(notes) = &*notes else { return };
        match notes.outcomes() {
            Ok(outcomes) => {
                for (name, count) in outcomes.all() {
                    let counter = self.outcomes.get_or_create(&[("outcome", name)]);
                    counter.inc_by(count.saturating_sub(counter.get()));
                }
            }
            Err(error) => tracing::warn!(%error, "what programs do is told as it was before"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Notes>> {
        lock(&self.notes)
    }
}

fn lock(notes: &Mutex<Option<Notes>>) -> MutexGuard<'_, Option<Notes>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}
