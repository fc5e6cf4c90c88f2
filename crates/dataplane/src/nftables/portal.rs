//! The portal of userspace mode: the rules of nftables mode, but a flow goes to a door of the relay.
//!
//! ```text
//!   packet ──▶ services ──▶ class: who is let in, reject, drop ──▶ dnat to the door of its origin ──▶ relay
//! ```
//!
//! Who may enter, who is rejected and who is dropped stays with the kernel, by the very rules that nftables mode has;
//! the relay learns from conntrack where a flow was going. The tables are the same, so one transaction leads from
//! either mode to the other. What the relay cannot carry (SCTP) the kernel balances itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{
    ApplyError, Backend, Choices, Doors, Family, NodeFacts, Origin, Packet, PortKey, Problem,
    Protocol, ServicePort, Snapshot, Target, Treatment, Verdict,
};

use super::compile::{self, Servers};
use super::{Nftables, Ops, State};

/// Compiles the portal. Its State, Ops and trace are those of [`Nftables`]; a trace delivers to a door.
#[derive(Clone, Copy, Debug, Default)]
pub struct Portal {
    /// Where the relay waits.
    pub doors: Doors,
}

impl Backend for Portal {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        compile::compile(snapshot, &self.doors)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        compile::update(state, snapshot, touched, &self.doors)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        Nftables.diff(from, to)
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        Nftables.is_empty(ops)
    }

    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        Nftables.trace(state, packet)
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        Nftables.shares(state, packet)
    }
}

impl Servers for Doors {
    const EXIST: bool = false;

    fn served<'a>(&self, _: &NodeFacts, _: &ServicePort, _: &'a Treatment) -> Option<&'a Choices> {
        None
    }

    fn doors(&self, node: &NodeFacts, family: Family) -> Vec<(SocketAddr, Origin)> {
        self.all(node, family)
    }

    /// The relay knows no SCTP, and without an address it has no doors: the kernel balances these itself.
    fn relays(&self, node: &NodeFacts, port: &ServicePort, family: Family) -> bool {
        port.key.protocol != Protocol::Sctp && Doors::address(node, family).is_some()
    }
}

/// A target of nftables mode that takes the portal.
#[derive(Clone, Debug, Default)]
pub struct PortalTarget<T>(pub T);

impl<T: Target<Nftables>> Target<Portal> for PortalTarget<T> {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        self.0.apply(ops)
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        self.0.read()
    }

    fn unchanged(&mut self) -> Result<bool, ApplyError> {
        self.0.unchanged()
    }
}
