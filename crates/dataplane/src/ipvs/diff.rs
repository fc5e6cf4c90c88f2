//! From one State to another: what the kernel has to be told, and in which order.
//!
//! IPVS has no transactions. New virtual servers and endpoints come before the rules that lead to them, and what nobody
//! leads to any more goes after, so that a flow never finds a virtual server without its endpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::state::{Server, Servers, State};
use crate::nftables::{self, Spot};

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes a virtual server stand with exactly these endpoints, whatever stands there.
    Put(Spot, Arc<Server>),
    /// Gives it another scheduler or affinity; its endpoints stay.
    Change(Spot, Arc<Server>),
    /// Adds an endpoint with its weight, or gives it another weight.
    Weigh(Spot, SocketAddr, u32),
    /// The endpoint gets no new flows and goes; if it keeps connections, as soon as it has none.
    RemoveEndpoint(Spot, SocketAddr),
    /// The same for all endpoints, and then the virtual server.
    Remove(Spot),
}

/// Steps before the rules change, and after.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Nothing that stands is taken away here.
    pub before: Vec<Op>,
    /// What goes.
    pub after: Vec<Op>,
}

/// All that there is to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ops {
    /// When everything is rewritten: the virtual servers that are wanted. Whoever applies this finds out what stands.
    pub rewrite: Option<Servers>,
    /// The virtual servers that change.
    pub servers: Changes,
    /// The rules that change.
    pub rules: nftables::Ops,
}

impl Ops {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        let servers = self.servers.before.is_empty() && self.servers.after.is_empty();
        self.rewrite.is_none() && servers && self.rules.0.is_empty()
    }
}

pub(crate) fn diff(from: Option<&State>, to: &State) -> Ops {
    let rules = nftables::diff::diff(from.map(State::rules), to.rules());
    match from {
        None => Ops {
            rewrite: Some(to.servers().clone()),
            servers: Changes::default(),
            rules,
        },
        Some(from) => Ops {
            rewrite: None,
            servers: changes(from.servers(), to.servers()),
            rules,
        },
    }
}

/// What leads from some virtual servers to others.
pub fn changes(from: &Servers, to: &Servers) -> Changes {
    let mut all = Changes::default();
    for item in from.map().diff(to.map()) {
        match item {
            DiffItem::Add(spot, server) => all.before.push(Op::Put(*spot, server.clone())),
            DiffItem::Remove(spot, _) => all.after.push(Op::Remove(*spot)),
            DiffItem::Update { old, new } => server(*new.0, old.1, new.1, &mut all),
        }
    }
    all
}

fn server(spot: Spot, old: &Server, new: &Arc<Server>, all: &mut Changes) {
    if (old.scheduler, old.affinity_s) != (new.scheduler, new.affinity_s) {
        all.before.push(Op::Change(spot, new.clone()));
    }
    let weight = |server: &Server, endpoint: &SocketAddr| {
        let index = server.endpoints.binary_search_by_key(endpoint, |e| e.0);
        index.ok().map(|index| server.endpoints[index].1)
    };
    for (endpoint, is) in &new.endpoints {
        if weight(old, endpoint) != Some(*is) {
            all.before.push(Op::Weigh(spot, *endpoint, *is));
        }
    }
    let gone = old.endpoints.iter().map(|(endpoint, _)| *endpoint);
    let gone = gone.filter(|endpoint| weight(new, endpoint).is_none());
    all.after
        .extend(gone.map(|endpoint| Op::RemoveEndpoint(spot, endpoint)));
}
