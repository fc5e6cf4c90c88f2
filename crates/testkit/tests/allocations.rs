//! One event costs what it touches: its allocations, stage by stage, are the same with 1 000 Services and with 100 000.
//! And what is kept of a Service and of an endpoint has a budget.
//!
//! ```text
//!   bytes ──decode──▶ slice ──track──▶ Snapshot ──compile──▶ State ──diff──▶ Ops ──apply──▶ kernel
//! ```
//!
//! Counts and bytes are exact, so they can be asserted where times cannot. Persistent maps copy the path to what
//! changes, which grows with the logarithm: hence a factor of two for a hundred times as many Services.

#![allow(clippy::unwrap_used)] // A test that cannot set up its world has failed.

use std::collections::BTreeSet;

use allocation_counter::{AllocationInfo, measure};
use portolan_dataplane::nftables::{Nftables, State};
use portolan_k8s::watch::Event;
use portolan_k8s::wire::EndpointSlice;
use portolan_kernel::nft::NftTarget;
use portolan_model::{Backend, Snapshot, Target};
use portolan_reflect::{DetectLocal, NodeOptions, NodePortAddresses, Tracker};
use serde_json::{Value, json};

const FEW: u32 = 1_000;
const MANY: u32 = 100_000;

/// Events that are measured, each about another Service: trees are not equally deep everywhere.
const EVENTS: u32 = 64;

/// How many times the allocations of a stage may be with [`MANY`] Services what they are with [`FEW`].
const GROWTH_MAX: u64 = 2;

const STAGES: [&str; 5] = ["decode", "track", "compile", "diff", "apply"];

#[test]
fn an_event_costs_what_it_touches() {
    portolan_kernel::isolated!(an_event_costs_what_it_touches, {
        let (few, many) = (World::of(FEW).events(), World::of(MANY).events());
        for ((stage, few), many) in STAGES.iter().zip(few).zip(many) {
            let told = format!(
                "{stage:<8} allocations {:>4} → {:>4}, bytes {:>7} → {:>7}",
                few.allocations / u64::from(EVENTS),
                many.allocations / u64::from(EVENTS),
                few.bytes / u64::from(EVENTS),
                many.bytes / u64::from(EVENTS),
            );
            eprintln!("{told}");
            assert!(few.allocations > 0, "{told}: not measured");
            assert!(many.allocations <= few.allocations * GROWTH_MAX, "{told}");
            assert!(many.bytes <= few.bytes * GROWTH_MAX, "{told}");
        }
    });
}

/// Bytes that all stages together keep of a Service with two endpoints, and of each endpoint more. They are 1 221 and
/// 84; agents with 10 000 Services are measured with them.
const SERVICE_BYTES_MAX: u64 = 1_400;
const ENDPOINT_BYTES_MAX: u64 = 100;

#[test]
fn what_is_kept_has_a_budget() {
    let kept = |endpoints: u32| {
        let (mut tracker, mut all) = (tracker(), None);
        let kept = measure(|| {
            fill(&mut tracker, KEPT, endpoints);
            let snapshot = (*tracker.reflect().unwrap().snapshot).clone();
            let (state, _) = Nftables.compile(&snapshot);
            all = Some((snapshot, state));
        });
        u64::try_from(kept.bytes_current).unwrap() / u64::from(KEPT)
    };
    let (few, many) = (kept(2), kept(10));
    let told = format!("a Service with 2 endpoints {few} B, with 10 {many} B");
    eprintln!("{told}");
    assert!(few <= SERVICE_BYTES_MAX, "{told}");
    assert!((many - few) / 8 <= ENDPOINT_BYTES_MAX, "{told}");
}

/// Services whose memory is measured. Hash tables have room for a power of two: this is what the agent is measured with.
const KEPT: u32 = 10_000;

/// An agent that has everything standing.
struct World {
    size: u32,
    tracker: Tracker,
    snapshot: Snapshot,
    state: State,
    target: NftTarget,
}

impl World {
    fn of(size: u32) -> Self {
        let mut tracker = tracker();
        fill(&mut tracker, size, 2);
        let snapshot = (*tracker.reflect().unwrap().snapshot).clone();
        let (state, _) = Nftables.compile(&snapshot);
        let mut target = NftTarget::open().unwrap();
        target.apply(&Nftables.diff(None, &state)).unwrap();
        World {
            size,
            tracker,
            snapshot,
            state,
            target,
        }
    }

    /// What each stage allocates for [`EVENTS`] events.
    fn events(mut self) -> [Cost; 5] {
        let mut costs = [Cost::default(); 5];
        for round in 1..=EVENTS {
            let bytes = slice(round * 7919 % self.size, 2, round);
            for (sum, one) in costs.iter_mut().zip(self.event(&bytes)) {
                sum.allocations += one.count_total;
                sum.bytes += one.bytes_total;
            }
        }
        costs
    }

    fn event(&mut self, bytes: &[u8]) -> [AllocationInfo; 5] {
        let (mut event, mut news, mut ops) = (None, None, None);
        let decoded = measure(|| event = Some(decode(bytes)));
        let tracked = measure(|| {
            self.tracker.slice(Event::Apply(event.take().unwrap()));
            news = self.tracker.reflect();
        });
        let snapshot = (*news.unwrap().snapshot).clone();
        let before = self.state.clone();
        let compiled = measure(|| {
            let touched = snapshot.touched(&self.snapshot);
            assert_eq!(touched.len(), 1);
            Nftables.update(&mut self.state, &snapshot, &touched);
        });
        self.snapshot = snapshot;
        let compared = measure(|| ops = Some(Nftables.diff(Some(&before), &self.state)));
        let applied = measure(|| self.target.apply(ops.as_ref().unwrap()).unwrap());
        [decoded, tracked, compiled, compared, applied]
    }
}

/// What one stage has allocated.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    allocations: u64,
    bytes: u64,
}

fn tracker() -> Tracker {
    let node = NodeOptions {
        name: "n1".into(),
        primary_address: None,
        detect_local: DetectLocal::ClusterCidr(vec!["10.0.0.0/8".parse().unwrap()]),
        node_port_addresses: NodePortAddresses::PRIMARY,
        masquerade_all: false,
        service_cidrs: Vec::new(),
    };
    Tracker::new(node, BTreeSet::new())
}

/// Lists so many Services, each with a slice.
fn fill(tracker: &mut Tracker, services: u32, endpoints: u32) {
    tracker.service(Event::Init);
    tracker.slice(Event::Init);
    tracker.node(Event::Init);
    for index in 0..services {
        let service = serde_json::from_value(service(index)).unwrap();
        tracker.service(Event::InitApply(service));
        tracker.slice(Event::InitApply(decode(&slice(index, endpoints, 0))));
    }
    tracker.service(Event::InitDone);
    tracker.slice(Event::InitDone);
    tracker.node(Event::InitDone);
}

fn decode(bytes: &[u8]) -> EndpointSlice {
    serde_json::from_slice(bytes).unwrap()
}

fn service(index: u32) -> Value {
    let [_, high, middle, low] = index.to_be_bytes();
    json!({
        "metadata": {"namespace": "shop", "name": format!("s{index:06}")},
        // The plan's Service range ends before 100,000 Services do; this one is only used in here.
        "spec": {"clusterIPs": [format!("172.{}.{middle}.{low}", 30 + high)],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

/// As the API sends it; the first endpoint is another one in each `round`.
fn slice(index: u32, endpoints: u32, round: u32) -> Vec<u8> {
    let endpoint = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        json!({"addresses": [format!("10.{high}.{middle}.{low}")], "nodeName": "n2", "conditions": {"ready": true}})
    };
    // New addresses are not among those of anybody.
    let first = index * endpoints;
    let replaced = [first + round * endpoints * MANY];
    let addresses = replaced.into_iter().chain(first + 1..first + endpoints);
    let slice = json!({
        "metadata": {"namespace": "shop", "name": format!("s{index:06}-1"), "managedFields": [{"manager": "x"}],
            "labels": {"kubernetes.io/service-name": format!("s{index:06}")}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": addresses.map(endpoint).collect::<Vec<_>>(),
    });
    serde_json::to_vec(&slice).unwrap()
}
