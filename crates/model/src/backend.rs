//! The two halves of every data plane: a [`Backend`] that is pure, and a [`Target`] that does the I/O.
//!
//! ```text
//!   Snapshot ──compile──▶ State ──diff──▶ Ops ──apply──▶ kernel
//!                 pure            pure         Target
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::name::PortKey;
use crate::packet::{Packet, Verdict};
use crate::problem::Problem;
use crate::snapshot::Snapshot;

/// How one data plane renders a Snapshot. Everything here is pure and cannot fail.
///
/// Laws: `update` after any sequence of changes gives the State that `compile` gives at once;
/// the same Snapshot gives an equal State; `diff(Some(&a), &a)` is empty;
/// `trace` agrees with [`Snapshot::route`] for every packet, and `shares` with [`Snapshot::shares`].
pub trait Backend {
    /// What should stand in the kernel: globals and one fragment per Service port. A clone costs O(1).
    type State: Clone + PartialEq;
    /// The change from one State to another, ready to be applied.
    type Ops;

    /// The State for a whole Snapshot.
    fn compile(&self, snapshot: &Snapshot) -> (Self::State, Vec<Problem>);

    /// Brings `state` from the Snapshot it was compiled from to `snapshot`; `touched` names every port that differs
    /// ([`Snapshot::touched`]). Costs O(touched · log n). A change of the node needs `compile`.
    fn update(
        &self,
        state: &mut Self::State,
        snapshot: &Snapshot,
        touched: &[PortKey],
    ) -> Vec<Problem>;

    /// What must be done to get from `from` to `to`; from `None`, everything that we own is rewritten.
    fn diff(&self, from: Option<&Self::State>, to: &Self::State) -> Self::Ops;

    /// Whether these ops do nothing.
    fn is_empty(&self, ops: &Self::Ops) -> bool;

    /// What a kernel that holds `state` does with the first packet of a flow: every random choice is followed.
    fn trace(&self, state: &Self::State, packet: &Packet) -> Verdict;

    /// How many of its random choices lead this packet to each endpoint, as [`Snapshot::shares`] says it.
    fn shares(&self, state: &Self::State, packet: &Packet) -> BTreeMap<SocketAddr, u32>;
}

/// The place where a State is made to stand: the kernel, or a fake.
pub trait Target<B: Backend> {
    /// Applies all of `ops` or nothing.
    fn apply(&mut self, ops: &B::Ops) -> Result<(), ApplyError>;

    /// Reads back what stands there now, so that it can be adopted; `None` if nothing of ours does,
    /// or if it is of a shape that cannot be understood.
    fn read(&mut self) -> Result<Option<B::State>, ApplyError>;

    /// Whether it is certain, at little cost, that nobody else has changed anything since the last `read`, or since the
    /// last `apply` that rewrote everything. A target that cannot know says false, and is read.
    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        Ok(false)
    }
}

/// A target refused or failed; the sync loop backs off, reads back or rewrites fully.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {words}")]
pub struct ApplyError {
    /// What was being done, e.g. "nf_tables refused message 14 (new rule in lb3)".
    pub doing: String,
    /// The kernel's own words, e.g. "No such file or directory".
    pub words: String,
}
