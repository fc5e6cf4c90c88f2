//! iptables mode: kube-proxy's chains, by its names, and only what changed is written.
//!
//! ```text
//!  nat     PREROUTING, OUTPUT ▶ KUBE-SERVICES ─▶ KUBE-SVC-… (ClusterIP) ──────────────┬▶ KUBE-SEP-… ▶ DNAT
//!                                 │  └─▶ KUBE-FW-… (who may enter) ─▶ KUBE-EXT-… ─▶ KUBE-SVC-…, KUBE-SVL-…
//!                                 └─(node's addresses)─▶ KUBE-NODEPORTS ─▶ KUBE-EXT-…
//!          POSTROUTING ▶ KUBE-POSTROUTING: mark 0x4000 → MASQUERADE
//!  filter  INPUT, FORWARD, OUTPUT, new flows that were not sent to an endpoint:
//!            KUBE-EXTERNAL-SERVICES, KUBE-PROXY-FIREWALL, KUBE-SERVICES: REJECT, DROP
//!  mangle, nat, filter: KUBE-PROXY-CANARY
//! ```
//!
//! Names of chains and words in comments are kube-proxy's, since other tools look for them. Where kube-proxy's iptables
//! mode falls short of docs/semantics.md, chains named `PORTOLAN-…` add what is missing: unused ports of a ClusterIP
//! are rejected, unallocated ones dropped, and the node's own processes get the same answers as everybody else.
//!
//! How a change stays small: the chains of a Service port are its own and are written anew when they change; in the
//! few chains that all share, each Service has *lines* in no particular order, which are deleted by their exact text
//! and inserted at the top. What belongs to the node stands below them.
//!
//! [`Ops`] are made into the text for `iptables-restore --noflush` by [`write`]; [`Saved`] understands what
//! `iptables-save` prints. Rules are rendered exactly as it prints them, so both compare byte by byte.

mod adopt;
mod compile;
mod diff;
mod fraction;
mod layout;
mod name;
mod parse;
mod part;
mod render;
mod restore;
mod rule;
mod state;
mod trace;

pub use adopt::{Saved, adopt};
pub use diff::{Change, Ops};
pub use layout::Hook;
pub use name::{Chain, Fixed, Hash, Role, Table};
pub use restore::{commits, show, write, write_removal};
pub use rule::{COMMENT_MAX, Match, Rule, State as FlowState, Target};
pub use state::State;

/// The bit of the packet mark that asks for masquerade, unless users choose another one.
pub use super::nftables::MASQUERADE_MARK;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{Backend, Packet, PortKey, Problem, Snapshot, Verdict};

/// With more endpoints than this in a family, rules carry no words for people: they would be a third of the text that
/// has to be written. The number is kube-proxy's.
pub const LARGE_CLUSTER: usize = 1000;

/// The iptables data plane, and what users can choose of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iptables {
    /// The bit of the packet mark that asks for masquerade (`--iptables-masquerade-bit`).
    pub mark: u32,
    /// Whether packets that fit no flow are dropped on their way through the node; not with
    /// `--conntrack-tcp-be-liberal`, with which the kernel takes them for what they are.
    pub drop_invalid: bool,
}

impl Iptables {
    /// As kube-proxy does it when nobody says otherwise.
    pub const DEFAULT: Iptables = Iptables {
        mark: MASQUERADE_MARK,
        drop_invalid: true,
    };
}

impl Default for Iptables {
    fn default() -> Self {
        Iptables::DEFAULT
    }
}

impl Backend for Iptables {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        compile::compile(*self, snapshot)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        compile::update(*self, state, snapshot, touched)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        diff::diff(from, to)
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        ops.changes.is_empty()
    }

    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        trace::trace(state, packet)
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        trace::shares(state, packet)
    }
}
