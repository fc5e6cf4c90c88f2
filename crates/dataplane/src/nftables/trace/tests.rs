//! States that no compiler makes: what would be wrong in the kernel is wrong here.

use std::num::NonZeroU16;
use std::sync::Arc;

use portolan_model::{Endpoint, NodeFacts, PortKey, Protocol, ServicePort, Snapshot};

use super::super::compile::{NoServers, compile};
use super::*;

/// A Service at 172.30.0.1:80 with two endpoints, and what it is compiled to.
fn state() -> State {
    let key = PortKey::new("shop", "web", "http", Protocol::Tcp);
    let endpoint = |last| Endpoint::ready(SocketAddr::from(([10, 2, 0, last], 8080)));
    let mut snapshot = Snapshot::new(NodeFacts::default());
    snapshot.set(ServicePort {
        cluster_ips: vec![IpAddr::from([172, 30, 0, 1])],
        endpoints: [10, 11].map(endpoint).into(),
        ..ServicePort::new(key, NonZeroU16::new(80).unwrap())
    });
    compile(&snapshot, &NoServers).0
}

fn ask(state: &State) -> Verdict {
    let packet = Packet {
        source: SocketAddr::from(([10, 1, 0, 5], 40_000)),
        destination: SocketAddr::from(([172, 30, 0, 1], 80)),
        protocol: Protocol::Tcp,
        interface: Some("pod0".into()),
    };
    trace(state, &packet, &|_| Vec::new())
}

#[test]
fn a_chain_that_is_not_there_serves_nobody() {
    let mut state = state();
    assert!(matches!(ask(&state), Verdict::Deliver(_)));
    let chains = &mut state.table_mut(Family::V4).chains;
    let all: Vec<ChainId> = chains.keys().copied().collect();
    for chain in all
        .iter()
        .filter(|chain| !matches!(chain, ChainId::Base(_)))
    {
        chains.remove(chain);
    }
    // As any port of a ClusterIP that nobody serves.
    assert_eq!(ask(&state), Verdict::Reject);
}

#[test]
fn endpoints_in_the_other_map_are_not_found() {
    let mut state = state();
    let table = state.table_mut(Family::V4);
    let (id, backing) = table.backings.iter().next().unwrap();
    let (id, mut backing) = (*id, backing.clone());
    Arc::make_mut(&mut backing).remembers = true;
    table.backings.insert(id, backing);
    assert_ne!(ask(&state), ask(&self::state()));
}
