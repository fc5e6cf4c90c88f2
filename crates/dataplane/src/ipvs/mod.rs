//! ipvs mode: flows are balanced by the kernel's virtual servers, and nf_tables decides which flows those are.
//!
//! ```text
//!  nat chains of `nftables` mode ──┬─ reject, drop, source ranges, who is masqueraded: as in nftables mode
//!  (a new flow, one class chain)   └─ accept, with SERVER_MARK in the flow's conntrack mark
//!                                        │ chains of kernel::ipvs: every packet of such a flow is delivered locally
//!                                        ▼
//!                            IPVS: virtual server at the packet's own address and port ─▶ real server
//!  postrouting of `nftables` mode: masquerade, hairpin
//! ```
//!
//! Why this shape (docs/decisions/0007 says more):
//! - One place decides: a class chain is what it is in nftables mode, with one more way for a flow to go on
//!   ([`Way::Server`](crate::nftables::Way)). So sources, policies, rejections and ClusterIPs without a port are alike.
//! - A virtual server has one list of endpoints. Where the model serves origins from different lists, the outside's list
//!   is the virtual server's, and the short cut of pods and the node goes through the maps of nftables mode.
//! - What the kernel's schedulers do otherwise than docs/semantics.md says (hashes, turns over several addresses) goes
//!   through these maps as well, unless an annotation asks for a scheduler by name.
//! - Only packets of marked flows are delivered locally, so virtual addresses need not be addresses of the node: its
//!   own services cannot be reached on them, and nobody answers ARP for them.

mod compile;
mod diff;
mod path;
mod state;

pub use diff::{Changes, Op, Ops, changes};
pub use path::{PATH_TABLE, PathChain, TRANSLATED_MARK, path};
pub use state::{Server, Servers, State, is_drained};

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use portolan_model::{Backend, Packet, PortKey, Problem, Scheduler, Snapshot, Verdict};

use crate::nftables::{self, Spot};

/// The ipvs data plane.
#[derive(Clone, Debug, Default)]
pub struct Ipvs {
    /// The scheduler of Services that ask for none (`--ipvs-scheduler`).
    pub scheduler: Scheduler,
    /// Schedulers that this kernel does not have: whoever asks for one gets the next best, and is told.
    pub missing: Vec<Scheduler>,
    /// Virtual servers in these ranges are somebody else's (`--ipvs-exclude-cidrs`): what a Service has there is served
    /// by nf_tables.
    pub excluded: Vec<IpNet>,
}

impl Backend for Ipvs {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        compile::compile(self, snapshot)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        compile::update(self, state, snapshot, touched)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        diff::diff(from, to)
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        ops.is_empty()
    }

    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        nftables::trace::trace(&state.rules, packet, &|packet| served(state, packet))
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        nftables::trace::shares(&state.rules, packet, &|packet| served(state, packet))
    }
}

/// The endpoints of the virtual server at the packet's destination that get new flows, with their weights.
fn served(state: &State, packet: &Packet) -> Vec<(SocketAddr, u32)> {
    let spot = Spot {
        address: packet.destination.ip(),
        protocol: packet.protocol,
        port: packet.destination.port(),
    };
    let server = state.servers().get(&spot);
    let endpoints = server
        .into_iter()
        .flat_map(|server| server.endpoints.iter());
    endpoints
        .copied()
        .filter(|(_, weight)| *weight > 0)
        .collect()
}
