//! eBPF mode: sockets of this node are connected to an endpoint at once; nftables mode stands underneath for the rest.
//!
//! ```text
//!   connect(2), sendmsg(2) ──▶ program ──▶ @services   (address . port . protocol → identity, lists of slots)
//!                                          @endpoints  (identity . list . slot → address . port)
//!                                          @members    (identity . list . address . port), where pods stay
//!                                 │ found: the socket goes to the endpoint; no packet is ever translated
//!                                 └ not found: the packet goes its way, to the rules of nftables mode
//! ```
//!
//! Why this shape:
//! - A program may always answer "not mine": the rules of nftables mode stand complete underneath. So programs do only
//!   what they can do exactly, and nothing is wrong while a map is being changed.
//! - A *list* is a row of slots, named by the identity of its Service port and a hash of what is in it. New slots come
//!   first, then the Service's entry is replaced, then old slots go: a change is atomic for each frontend.
//! - Whom a socket belongs to is known by its network namespace: that of the node is the host, any other one a pod.
//!   Its address is not known before it is connected. So whatever depends on the client's address (hashes, source
//!   ranges that let only some in), or needs packets to be changed (masquerade), is left to nftables mode. A pod that
//!   stays with its endpoint is known by its namespace.
//!
//! docs/decisions/0008 says why. The programs are in `ebpf/`; `portolan-kernel` loads them.

mod adopt;
mod bytes;
mod compile;
mod diff;
pub mod outside;
mod state;
mod trace;

pub use adopt::{Readback, adopt};
pub use bytes::{
    ENDPOINT_KEY_LEN, ENDPOINT_LEN, MEMBER_LEN, NODE_PORT_IP_LEN, SERVICE_KEY_LEN, SERVICE_LEN,
    endpoint_key_of, endpoint_of, ip_of, member_of, read_endpoint, read_endpoint_key, read_ip,
    read_member, read_service, read_service_key, service_key_of, service_of,
};
pub use diff::{Op, Ops};
pub use state::{Deed, Entry, ListKey, Pick, Sockets, State};
pub use trace::{Decision, connects, decides};

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{Backend, Packet, PortKey, Problem, Snapshot, Verdict};

use crate::nftables::Nftables;

/// The eBPF data plane.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ebpf;

impl Backend for Ebpf {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        let (rules, problems) = Nftables.compile(snapshot);
        let state = State {
            rules,
            sockets: compile::compile(snapshot),
            outside: outside::compile(snapshot),
        };
        (state, problems)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        // Before the rules are brought to the new Snapshot: they hold the old one.
        let before = &state.rules.snapshot;
        compile::update(&mut state.sockets, before, snapshot, touched);
        outside::update(&mut state.outside, before, snapshot, touched);
        Nftables.update(&mut state.rules, snapshot, touched)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        Ops {
            rules: Nftables.diff(from.map(|from| &from.rules), &to.rules),
            sockets: diff::diff(from.map(|from| &from.sockets), &to.sockets),
            outside: outside::diff(from.map(|from| &from.outside), &to.outside),
            outside_after: to.outside.clone(),
        }
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        Nftables.is_empty(&ops.rules) && ops.sockets.is_empty() && ops.outside.is_empty()
    }

    /// A socket that is connected at once, else the first packet: at a device, or in the rules. Whether a pod that reaches itself is masqueraded is
    /// what the rules would do; at a socket such a connection does not leave the pod (R-HAIRPIN-1).
    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        trace::trace(&state.sockets, packet)
            .or_else(|| outside::trace(&state.outside, packet))
            .unwrap_or_else(|| Nftables.trace(&state.rules, packet))
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        trace::shares(&state.sockets, packet)
            .or_else(|| outside::shares(&state.outside, packet))
            .unwrap_or_else(|| Nftables.shares(&state.rules, packet))
    }
}
