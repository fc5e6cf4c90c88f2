//! Random clusters and packets, as scenarios whose expected verdicts are what the oracle says.
//!
//! Pools are small on purpose: Services clash over addresses, endpoints are listed twice, and hints, policies and
//! conditions meet in every combination.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::scenario::{Probe, Scenario, Step};
use crate::world;
use portolan_model::{Balance, Family, Listener, LocalPods, NodeFacts, Protocol, Verdict};

/// Largest cluster: enough for every pair of features to meet, small enough to read.
const SERVICES_MAX: usize = 4;

/// A Service, as choices out of small pools.
#[derive(Clone, Debug)]
struct Plan {
    families: &'static [Family],
    protocol: Protocol,
    kind: &'static str,
    external: bool,
    ranges: Option<&'static str>,
    sticky: bool,
    balance: Balance,
    internal_local: bool,
    external_local: bool,
    created: u8,
    endpoints: Vec<(usize, &'static str, &'static str)>,
    /// Of the endpoints, in their order; those after the last one have the default.
    weights: Vec<u8>,
}

const CONDITIONS: [&str; 5] = [
    r#"{"ready": true}"#,
    r#"{"ready": true}"#,
    r#"{"ready": false}"#,
    r#"{"ready": false, "serving": true, "terminating": true}"#,
    r#"{"ready": false, "serving": false, "terminating": true}"#,
];

const HINTS: [&str; 4] = [
    "null",
    "null",
    r#"{"forZones": [{"name": "east"}]}"#,
    r#"{"forZones": [{"name": "west"}], "forNodes": [{"name": "n1"}]}"#,
];

const SENDERS: [[&str; 2]; 6] = [
    ["pod", "pod"],
    ["host", "host"],
    ["node", "node"],
    ["outside", "outside"],
    ["10.1.0.10", "fd00:10:1::10"],
    ["203.0.113.130", "2001:db8:113::130"],
];

fn plan() -> impl Strategy<Value = Plan> {
    let families: [&'static [Family]; 3] =
        [&[Family::V4], &[Family::V6], &[Family::V4, Family::V6]];
    let endpoint = (0..PLACES, select(&CONDITIONS[..]), select(&HINTS[..]));
    let place = (
        select(families.to_vec()),
        select(vec![
            Protocol::Tcp,
            Protocol::Tcp,
            Protocol::Udp,
            Protocol::Udp,
            Protocol::Sctp,
        ]),
        0..3_u8,
    );
    let kind = select(vec!["ClusterIP", "NodePort", "LoadBalancer"]);
    let ranges = select(vec![
        None,
        Some("203.0.113.0/25"),
        Some("2001:db8:113::/121"),
    ]);
    let flags = any::<[bool; 4]>();
    let balance = (
        prop_oneof![2 => Just(Balance::Random), 3 => select(&Balance::ALL[..])],
        // Small weights: each endpoint must be seen within a few flows.
        prop_oneof![2 => Just(Vec::new()), 1 => vec(0..4_u8, 1..4)],
    );
    (place, kind, ranges, flags, vec(endpoint, 0..5), balance).prop_map(
        |(
            (families, protocol, created),
            kind,
            ranges,
            [external, sticky, internal_local, external_local],
            endpoints,
            (balance, weights),
        )| Plan {
            families,
            protocol,
            kind,
            external,
            ranges: ranges.filter(|_| kind == "LoadBalancer"),
            sticky,
            // What a client did before decides with affinity, also at another address of the Service with another
            // policy, and probes of hashed ports are of single flows.
            balance: match balance {
                Balance::Maglev | Balance::SourceHash
                    if sticky && (internal_local || external_local) =>
                {
                    Balance::Random
                }
                Balance::Maglev if sticky => Balance::SourceHash,
                other => other,
            },
            internal_local,
            external_local: external_local && kind != "ClusterIP",
            created,
            endpoints,
            weights,
        },
    )
}

/// Source port of the first packet; the others follow, so that no two of a scenario have the same: a flow of UDP or
/// SCTP that is asked again is still the same flow.
const FIRST_PORT: u16 = 20_000;

/// Facts about the node: now and then one differs from what most nodes have.
fn facts() -> impl Strategy<Value = NodeFacts> {
    let pods = prop_oneof![
        7 => Just(world::node().local_pods),
        1 => Just(LocalPods::Unknown),
        1 => Just(LocalPods::InterfacePrefix("pod".into())),
        // Of one family and of this node only.
        1 => Just(LocalPods::Cidrs(vec![world::net("10.1.0.0/24")])),
    ];
    let answers_in = prop::option::weighted(0.2, select(Family::ALL.to_vec()));
    (any::<bool>(), prop::bool::weighted(0.1), pods, answers_in).prop_map(
        |(zone, masquerade_all, local_pods, answers_in)| {
            let mut facts = world::node();
            facts.zone = zone.then(|| "east".into());
            facts.masquerade_all = masquerade_all;
            facts.local_pods = local_pods;
            let answers = |ip: &IpAddr| answers_in.is_none_or(|family| Family::of(*ip) == family);
            facts.node_port_addresses.retain(answers);
            facts
        },
    )
}

/// How far beside a frontend a packet goes.
#[derive(Clone, Copy, Debug)]
enum Beside {
    No,
    /// To the next port.
    Port,
    /// To an address of the Service range that nobody has.
    Address,
}

/// Random scenarios with up to `steps_max` steps.
pub fn scenario(steps_max: usize) -> impl Strategy<Value = Scenario> {
    let beside = prop_oneof![
        8 => Just(Beside::No),
        1 => Just(Beside::Port),
        1 => Just(Beside::Address),
    ];
    let packets = vec((select(&SENDERS[..]), any::<Index>(), beside), 4..10);
    let silent = (0..PLACES, select(&Family::ALL[..]), 0..2_usize);
    let steps = vec(
        (
            vec(prop::option::weighted(0.8, plan()), 1..=SERVICES_MAX),
            vec(silent, 0..3),
            packets,
        ),
        1..=steps_max,
    );
    (facts(), steps).prop_map(|(facts, steps)| {
        let mut scenario = Scenario {
            name: "random".to_owned(),
            about: "A random cluster.".to_owned(),
            node: facts,
            steps: Vec::new(),
        };
        let mut cluster = Cluster::new(&scenario.node);
        let mut ports = FIRST_PORT..;
        for (plans, silent, packets) in steps {
            let mut step = step_of(&plans, &cluster);
            step.readmit = cluster.silent().iter().copied().collect();
            let of_all = |(place, family, parity): &(usize, Family, usize)| {
                let address = (address(*place, *family), 8080 + *parity as u16).into();
                [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
                    .map(|protocol| Listener { protocol, address })
            };
            step.eject = silent.iter().flat_map(of_all).collect();
            step.readmit
                .retain(|listener| !step.eject.contains(listener));
            cluster.take(&step);
            step.probes = packets
                .iter()
                .zip(ports.by_ref())
                .filter_map(|((from, at, off), port)| probe(&cluster, from, at, *off, port))
                .collect();
            scenario.steps.push(step);
        }
        leave_out_what_does_not_come_by(&mut scenario);
        scenario
    })
}

/// Leaves out packets of the other node that the network of the proof on the kernel does not bring to this node: to
/// addresses that live there because packets to them pass, and to endpoints there that would answer past this node.
fn leave_out_what_does_not_come_by(scenario: &mut Scenario) {
    let probes = scenario.steps.iter().flat_map(|step| &step.probes);
    let passing = probes.filter(|probe| probe.verdict == Verdict::Pass);
    let there: BTreeSet<IpAddr> = passing.map(|probe| probe.packet.destination.ip()).collect();
    let is_other = |address: IpAddr| world::home(address) == Some(world::Home::OtherNode);
    let goes_by = |probe: &Probe| match &probe.verdict {
        Verdict::Pass => false,
        _ if there.contains(&probe.packet.destination.ip()) => true,
        Verdict::Deliver(all) => all
            .iter()
            .any(|(to, masquerade)| is_other(to.ip()) && !masquerade),
        _ => false,
    };
    for step in &mut scenario.steps {
        step.probes
            .retain(|probe| !(is_other(probe.packet.source.ip()) && goes_by(probe)));
    }
}

/// The random scenario with up to `steps_max` steps that belongs to `seed`.
pub fn seeded(seed: u64, steps_max: usize) -> Scenario {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let tree = scenario(steps_max).new_tree(&mut runner);
    tree.expect("invariant: no strategy here rejects").current()
}

/// The step that makes these Services stand and no others; a hole deletes the Service of that number.
fn step_of(plans: &[Option<Plan>], cluster: &Cluster) -> Step {
    let mut step = Step {
        say: String::new(),
        apply: Vec::new(),
        delete: Vec::new(),
        eject: Vec::new(),
        readmit: Vec::new(),
        probes: Vec::new(),
    };
    for index in 0..SERVICES_MAX {
        match plans.get(index) {
            Some(Some(plan)) => {
                step.apply.push(service(index, plan));
                step.apply
                    .extend(Family::ALL.map(|family| slice(index, plan, family)));
            }
            _ => step.delete.extend(
                cluster
                    .names()
                    .filter(|name| name.name.starts_with(&format!("s{index}")))
                    .cloned(),
            ),
        }
    }
    step
}

fn service(index: usize, plan: &Plan) -> Value {
    let cluster_ip = |family: &Family| match family {
        Family::V4 => format!("172.30.0.{}", index + 1),
        Family::V6 => format!("fd00:172:30::{}", index + 1),
    };
    // Two external addresses for all Services: they clash.
    let external = |family: &Family| match family {
        Family::V4 => format!("198.51.100.{}", 70 + index % 2),
        Family::V6 => format!("2001:db8:198::{}", 70 + index % 2),
    };
    let balanced = |family: &Family| match family {
        Family::V4 => json!({"ip": format!("198.51.100.{}", index + 1)}),
        Family::V6 => json!({"ip": format!("2001:db8:198::{}", index + 1)}),
    };
    let policy = |local: bool| if local { "Local" } else { "Cluster" };
    let of_all =
        |text: &dyn Fn(&Family) -> String| plan.families.iter().map(text).collect::<Vec<_>>();
    let names = of_all(&|family| {
        if *family == Family::V4 {
            "IPv4"
        } else {
            "IPv6"
        }
        .to_owned()
    });
    let ingress: Vec<Value> = match plan.kind {
        "LoadBalancer" => plan.families.iter().map(balanced).collect(),
        _ => Vec::new(),
    };
    let node_port = if plan.kind == "ClusterIP" {
        0
    } else {
        30_080 + index
    };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": format!("s{index}"), "creationTimestamp": format!("2026-01-0{}T00:00:00Z", plan.created + 1),
            "annotations": {"portolan.dev/balance": plan.balance.as_str()}},
        "spec": {
            "type": plan.kind,
            "clusterIP": of_all(&cluster_ip)[0],
            "clusterIPs": of_all(&cluster_ip),
            "ipFamilies": names,
            "externalIPs": if plan.external { of_all(&external) } else { Vec::new() },
            "loadBalancerSourceRanges": plan.ranges.into_iter().collect::<Vec<_>>(),
            "sessionAffinity": if plan.sticky { "ClientIP" } else { "None" },
            "internalTrafficPolicy": policy(plan.internal_local),
            "externalTrafficPolicy": policy(plan.external_local),
            "ports": [{"name": "p", "protocol": plan.protocol.as_str(), "port": 80, "nodePort": node_port}],
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

/// Places of endpoints. Half of them are on n1; two of them are one.
const PLACES: usize = 6;
const NODES: [u8; PLACES] = [1, 1, 1, 2, 2, 3];

fn address(place: usize, family: Family) -> IpAddr {
    let node = NODES[place];
    let last = [10, 11, 10, 10, 11, 10][place];
    let text = match family {
        Family::V4 => format!("10.{node}.0.{last}"),
        Family::V6 => format!("fd00:10:{node}::{last}"),
    };
    text.parse()
        .expect("invariant: addresses in the code are well formed")
}

fn slice(index: usize, plan: &Plan, family: Family) -> Value {
    let kind = if family == Family::V4 { "IPv4" } else { "IPv6" };
    let weights = plan.endpoints.iter().zip(&plan.weights);
    let weights =
        weights.map(|((place, ..), weight)| format!("{}={weight}", address(*place, family)));
    let endpoint = |(place, conditions, hints): &(usize, &str, &str)| {
        let node = NODES[*place];
        let address = address(*place, family);
        let read = |text: &str| {
            serde_json::from_str::<Value>(text).expect("invariant: JSON in the code is well formed")
        };
        json!({"addresses": [address], "nodeName": format!("n{node}"), "conditions": read(conditions), "hints": read(hints)})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "shop",
            "name": format!("s{index}-{}", kind.to_ascii_lowercase()),
            "labels": {"kubernetes.io/service-name": format!("s{index}")},
            "annotations": {"portolan.dev/weights": weights.collect::<Vec<_>>().join(",")},
        },
        "addressType": kind,
        "ports": [{"name": "p", "protocol": plan.protocol.as_str(), "port": 8080 + index % 2}],
        "endpoints": plan.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

/// A packet from one of the senders to one of the frontends that there are, or right beside it.
fn probe(
    cluster: &Cluster,
    from: &[&str; 2],
    at: &Index,
    beside: Beside,
    source_port: u16,
) -> Option<Probe> {
    use portolan_model::Place;
    let snapshot = cluster.snapshot();
    let frontends: Vec<_> = snapshot.ports().flat_map(|port| port.wanted()).collect();
    if frontends.is_empty() {
        return None;
    }
    let (frontend, _) = at.get(&frontends);
    let family = frontend.place.family();
    let address = match (beside, frontend.place) {
        (Beside::Address, _) => world::unallocated(family),
        (_, Place::Address(address)) => address,
        (_, Place::NodePort(family)) => world::node_address(family, 1),
    };
    let port = match beside {
        Beside::Port => frontend.port.saturating_add(1),
        _ => frontend.port,
    };
    let mut packet = world::packet(
        from[family as usize],
        family,
        frontend.protocol,
        (address, port.get()).into(),
    )
    .ok()?;
    packet.source.set_port(source_port);
    // Beside a frontend can be another Service.
    let owner = snapshot
        .frontend(frontend.protocol, packet.destination)
        .and_then(|frontend| snapshot.owner(&frontend));
    let balance = owner.map_or(Balance::Random, |owner| owner.balance);
    // The kernel would choose another address of the node, and another port.
    let fixed_port = match balance {
        Balance::Maglev => true,
        Balance::SourceHash => packet.interface.is_none(),
        Balance::Random | Balance::RoundRobin => false,
    };
    Some(Probe {
        verdict: snapshot.route(&packet),
        sticks: owner.is_some_and(|owner| owner.affinity.is_some()),
        packet,
        fixed_port,
        shares: None,
        in_turn: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random clusters that had no endpoints, or packets that all pass, would prove nothing.
    #[test]
    fn every_verdict_is_frequent() {
        let mut counts = [0; 4];
        for seed in 0..200 {
            for probe in &seeded(seed, 1).steps[0].probes {
                counts[match probe.verdict {
                    Verdict::Deliver(_) => 0,
                    Verdict::Reject => 1,
                    Verdict::Drop => 2,
                    Verdict::Pass => 3,
                }] += 1;
            }
        }
        assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
        assert!(counts[0] > 400, "{counts:?}");
    }
}
