//! `--count-connections`: what the kernel has counted, read when somebody asks and not before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_kernel::nft::ConnectionCounts;
use portolan_model::counts::{Counts, PortCount};
use portolan_model::{ApplyError, NodeFacts, PortKey, Snapshot};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::sockets::Sockets;

/// The kernel's counts and their totals.
#[derive(Debug)]
pub(super) struct Tally {
    state: Mutex<State>,
    connections: Family<Vec<(&'static str, String)>, Counter>,
    others: Counter,
}

struct State {
    /// The kernel's table; none while it cannot be had.
    table: Option<ConnectionCounts>,
    pairs_max: u32,
    counts: Counts,
    /// Of the programs of eBPF mode.
    programs: Counts,
}

impl State {
    /// Takes in what the kernel has counted. Without a table it asks for one: somebody else may have had it, such as the
    /// former process of this node. That nothing can be counted is no reason to stop.
    fn read(&mut self, snapshot: &Snapshot) -> Result<(), ApplyError> {
        let table = match &mut self.table {
            Some(table) => table,
            None => {
                let table = ConnectionCounts::open(self.pairs_max)?;
                self.counts.begin_anew();
                self.table.insert(table)
            }
        };
        match table.read()? {
            Some(counted) => self.counts.take(snapshot, counted),
            None => self.table = None,
        }
        Ok(())
    }

    fn read_programs(&mut self, snapshot: &Snapshot, sockets: &Sockets) -> Result<(), ApplyError> {
        let counted = sockets.pairs(|flow| {
            let frontend = snapshot.frontend(flow.protocol, flow.destination);
            let owner = frontend.and_then(|frontend| snapshot.owner(&frontend));
            owner.is_none_or(|port| port.endpoint(flow.replier).is_none())
        })?;
        self.programs.take(snapshot, counted);
        Ok(())
    }

    /// What the rules have counted and what programs have.
    fn all(&self) -> BTreeMap<PortKey, PortCount> {
        let mut all = self.counts.ports().clone();
        for (key, more) in self.programs.ports() {
            let port = all.entry(key.clone()).or_default();
            port.total += more.total;
            for (endpoint, count) in &more.endpoints {
                *port.endpoints.entry(*endpoint).or_default() += count;
            }
        }
        all
    }

    fn others(&self) -> u64 {
        self.counts.others() + self.programs.others()
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.counts.fmt(f)
    }
}

impl Tally {
    /// Nothing has been counted yet. The kernel gets room for `pairs_max` pairs of each family.
    pub(super) fn new(pairs_max: u32, registry: &mut Registry) -> Self {
        let (connections, others) = (Family::default(), Counter::default());
        registry.register(
            "portolan_proxy_service_connections",
            "New flows through a port of a Service, on this node",
            connections.clone(),
        );
        registry.register(
            "portolan_proxy_other_service_connections",
            "New flows through ports of Services that there are too many of to tell them apart",
            others.clone(),
        );
        let state = State {
            table: None,
            pairs_max,
            counts: Counts::default(),
            programs: Counts::default(),
        };
        let tally = Tally {
            state: Mutex::new(state),
            connections,
            others,
        };
        // The rules begin to count now, not when somebody asks for the first time.
        drop(tally.update(&Snapshot::new(NodeFacts::default()), &Sockets::default()));
        tally
    }

    /// Brings the metrics up to date: one series for each Service port that has had a flow. They are whole as long as
    /// what is returned is kept.
    pub(super) fn publish(&self, snapshot: &Snapshot, sockets: &Sockets) -> impl Sized + use<'_> {
        let state = self.update(snapshot, sockets);
        self.connections.clear();
        for (key, count) in state.all() {
            let series = self.connections.get_or_create(&labels(&key));
            series.inc_by(count.total);
        }
        self.others.inc_by(state.others() - self.others.get());
        state
    }

    /// The same with every endpoint, for people and programs that ask for it.
    pub(super) fn json(&self, snapshot: &Snapshot, sockets: &Sockets) -> Value {
        let state = self.update(snapshot, sockets);
        let all = state.all();
        let ports = all.iter().map(|(key, count)| {
            let endpoints = count.endpoints.iter();
            let endpoints: serde_json::Map<String, Value> = endpoints
                .map(|(address, count)| (address.to_string(), json!(count)))
                .collect();
            json!({
                "namespace": key.service.namespace.as_ref(),
                "service": key.service.name.as_ref(),
                "port": key.port.as_ref(),
                "protocol": key.protocol.as_str(),
                "connections": count.total,
                "endpoints": endpoints,
            })
        });
        let ports: Vec<Value> = ports.collect();
        json!({ "ports": ports, "others": state.others() })
    }

    fn update(&self, snapshot: &Snapshot, sockets: &Sockets) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = [state.read(snapshot), state.read_programs(snapshot, sockets)];
        for error in read.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "connections are told as they were counted before");
        }
        state
    }
}

/// Names a Service port in metrics.
pub(super) fn labels(key: &PortKey) -> Vec<(&'static str, String)> {
    vec![
        ("namespace", key.service.namespace.to_string()),
        ("service", key.service.name.to_string()),
        ("port", key.port.to_string()),
        ("protocol", key.protocol.to_string()),
    ]
}

#[cfg(test)]
mod tests;
