//! nftables mode: a constant number of chains, and all Services in a few maps.
//!
//! ```text
//!  prerouting (nat, -100) ─┐                         per Service frontend: one element
//!  output     (nat, -100) ─┴▶ services ──▶ @services    (address . protocol . port → class . identity)
//!                                 │        @node-ports  (protocol . port → class . identity)
//!                                 ▼
//!                             @classes ──goto──▶ one chain per class, shared by every Service of that class:
//!                                                  @endpoints (identity . slot → address . port), then dnat
//!  postrouting (nat, 100): mark 0x4000 or hairpin → masquerade
//! ```
//!
//! Why this shape:
//! - A *class* ([`Class`]) is everything a chain has to know: how many endpoints, who is masqueraded, affinity.
//!   It is a number that [`Class::pack`] computes, so nothing has to be allocated and an update needs no global view.
//! - `services` is a map of *data*, not of verdicts: the kernel validates every chain that a verdict map can reach each
//!   time such a map gets an element, which would make one more Service cost O(all Services). Only the small `classes`
//!   map holds verdicts.
//! - The *identity* of a Service port is its first frontend in the family. All its frontends share one list of
//!   endpoints and one memory of clients, so a change of endpoints costs the same for one frontend or five.
//! - Everything, also reject and drop, happens in chains of type nat: the kernel runs them for the first packet of a
//!   flow only, so that packets of established connections cost nothing.
//! - An endpoint has one slot, or as many as its weight and the way to balance ask for (`model::balance`). A chain draws
//!   the slot at random, or by a hash of the client. A counter lives in its rule, and Services must not share it: for
//!   round robin the chain of the class leads on, by `@turns`, to a small chain of the Service port's own.
//! - The memory of clients (`affinity`) holds the endpoint itself, not its slot. Chains check that it is still a
//!   member; so removing an endpoint moves only its own clients, and nothing has to be cleaned.

mod addresses;
mod adopt;
mod bytes;
mod class;
pub(crate) mod compile;
pub(crate) mod diff;
mod element;
mod expr;
mod layout;
mod portal;
mod render;
mod show;
mod state;
pub(crate) mod trace;

pub use adopt::{Readback, adopt};
pub use bytes::Data;
pub use class::{Class, List, Turn, Via, Way};
use compile::NoServers;
pub use diff::{Op, Ops};
pub use element::{Element, Spot};
pub use expr::{Expr, Field, Reg, Rejection, Rule};
pub use layout::{AFFINITY_MAX, BaseChain, ChainId, Kind, Part, SetName, TABLE};
pub use portal::{Portal, PortalTarget};
pub(crate) use render::STATUS_DNAT;
pub use show::show;
pub use state::State;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{Backend, Packet, PortKey, Problem, Snapshot, Verdict};

/// The bit of the packet mark that asks postrouting to masquerade, as kube-proxy's default.
pub const MASQUERADE_MARK: u32 = 0x4000;

/// The bit of the mark of flows, and of their packets on the way in, that leads to a virtual server of ipvs mode.
pub const SERVER_MARK: u32 = 0x2000;

/// The most endpoints that one list of one Service port can have: slots and counts are 16 bits wide.
pub use portolan_model::balance::ENDPOINTS_MAX;

/// The nftables data plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nftables;

impl Backend for Nftables {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        compile::compile(snapshot, &NoServers)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        compile::update(state, snapshot, touched, &NoServers)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        diff::diff(from, to)
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        ops.0.is_empty()
    }

    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        trace::trace(state, packet, &|_| Vec::new())
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        trace::shares(state, packet, &|_| Vec::new())
    }
}
