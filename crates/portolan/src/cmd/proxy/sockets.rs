//! What the programs of eBPF mode note about the sockets that they connect, for metrics and for those threads that watch
//! connections: to conntrack these go to an endpoint by themselves.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_kernel::ebpf::Notes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// The notes of the programs that stand; none in other modes.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    notes: Mutex<Option<Notes>>,
    outcomes: Family<[(&'static str, &'static str); 1], Counter>,
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
        *self.lock() = Some(notes);
    }

    /// None stand any more.
    pub(super) fn forget(&self) {
        *self.lock() = None;
    }

    /// Where the last socket wanted to go that a program has connected to this endpoint of TCP.
    pub(super) fn asked(&self, endpoint: SocketAddr) -> Option<SocketAddr> {
        let notes = self.lock().clone()?;
        notes.asked(endpoint).unwrap_or_else(|error| {
            tracing::debug!(%error, "a connection was not looked at");
            None
        })
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
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
