//! The laws of the ipvs backend, on random worlds, and what becomes of single Services.
#![allow(clippy::unwrap_used)] // A world that cannot be made is a failed test.

mod fake;
mod ways;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fake::FakeKernel;
use portolan_dataplane::ipvs::{Ipvs, Op, Ops, Server, Servers, State, changes};
use portolan_dataplane::nftables::{Spot, show};
use portolan_model::{
    Affinity, Backend, Balance, Endpoint, Protocol, Scheduler, ServicePort, Snapshot, TrafficPolicy,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// nf_tables and IPVS; the latter as strict as the real one.
#[derive(Clone, Default)]
struct Fake {
    nft: FakeKernel,
    servers: BTreeMap<Spot, Server>,
}

impl Fake {
    fn apply(&mut self, ops: &Ops) -> Result<(), String> {
        let mut after = ops.servers.after.clone();
        ops.servers.before.iter().try_for_each(|op| self.op(op))?;
        if let Some(wanted) = &ops.rewrite {
            for (spot, server) in wanted.iter() {
                self.servers.insert(*spot, Server::clone(server));
            }
            let gone = self
                .servers
                .keys()
                .filter(|spot| wanted.get(spot).is_none());
            after.extend(gone.map(|spot| Op::Remove(*spot)));
        }
        self.nft.apply(&ops.rules)?;
        after.iter().try_for_each(|op| self.op(op))
    }

    fn op(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::Put(spot, server) => {
                let old = self.servers.insert(*spot, Server::clone(server));
                return old.map_or(Ok(()), |_| Err(format!("{spot} stands")));
            }
            Op::Remove(spot) => drop(self.servers.remove(spot).ok_or("no such server")?),
            Op::Change(spot, server) => {
                let standing = self.servers.get_mut(spot).ok_or("no such server")?;
                (standing.scheduler, standing.affinity_s) = (server.scheduler, server.affinity_s);
            }
            Op::Weigh(spot, to, weight) => {
                let standing = self.servers.get_mut(spot).ok_or("no such server")?;
                let mut all: BTreeMap<SocketAddr, u32> =
                    standing.endpoints.iter().copied().collect();
                all.insert(*to, *weight);
                standing.endpoints = all.into_iter().collect();
            }
            Op::RemoveEndpoint(spot, to) => {
                let standing = self.servers.get_mut(spot).ok_or("no such server")?;
                let mut all: BTreeMap<SocketAddr, u32> =
                    standing.endpoints.iter().copied().collect();
                all.remove(to).ok_or("no such endpoint")?;
                standing.endpoints = all.into_iter().collect();
            }
        }
        Ok(())
    }

    fn read(&self) -> State {
        let servers = self.servers.clone().into_iter().collect();
        State::adopted(self.nft.read().unwrap(), servers)
    }
}

fn words(state: &State) -> String {
    let servers: Vec<String> = state.servers().iter().map(|s| format!("{s:?}")).collect();
    format!("{}\n{}", show(state.rules()), servers.join("\n"))
}

fn ipvs() -> Ipvs {
    Ipvs::default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_does_what_the_oracle_says(
        snapshot in world::snapshot(),
        packets in vec(world::packet(), 60),
    ) {
        let (state, _) = ipvs().compile(&snapshot);
        for packet in packets {
            let (wanted, found) = (snapshot.route(&packet), ipvs().trace(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, words(&state));
            let (wanted, found) = (snapshot.shares(&packet), ipvs().shares(&state, &packet));
            prop_assert_eq!(&found, &wanted, "{:?}\n{}", packet, words(&state));
        }
    }

    #[test]
    fn updates_give_what_compile_gives(
        mut snapshot in world::snapshot(),
        steps in vec(vec(world::change(), 1..4), 1..8),
    ) {
        let (mut state, _) = ipvs().compile(&snapshot);
        let mut kernel = Fake::default();
        kernel.apply(&ipvs().diff(None, &state)).unwrap();
        for step in steps {
            let (before, old) = (snapshot.clone(), state.clone());
            step.iter().for_each(|change| change.make(&mut snapshot));
            let touched = snapshot.touched(&before);
            if snapshot.node() == before.node() {
                ipvs().update(&mut state, &snapshot, &touched);
            } else {
                state = ipvs().compile(&snapshot).0;
            }
            let (whole, _) = ipvs().compile(&snapshot);
            prop_assert!(state == whole, "{}\n--- compiled ---\n{}", words(&state), words(&whole));
            let ops = ipvs().diff(Some(&old), &state);
            prop_assert_eq!(ipvs().is_empty(&ops), old == state);
            kernel.apply(&ops).unwrap();
            let read = kernel.read();
            prop_assert!(read == state, "{}\n--- wanted ---\n{}", words(&read), words(&state));
        }
    }

    #[test]
    fn diff_goes_from_anything_to_anything(a in world::snapshot(), b in world::snapshot()) {
        let (a, b) = (ipvs().compile(&a).0, ipvs().compile(&b).0);
        prop_assert!(ipvs().is_empty(&ipvs().diff(Some(&a), &a)));
        let mut kernel = Fake::default();
        kernel.apply(&ipvs().diff(None, &a)).unwrap();
        let adopted = kernel.read();
        prop_assert!(adopted == a);
        kernel.apply(&ipvs().diff(Some(&adopted), &b)).unwrap();
        prop_assert!(kernel.read() == b);
        kernel.apply(&ipvs().diff(None, &a)).unwrap();
        prop_assert!(kernel.read() == a);
        let there = changes(b.servers(), a.servers());
        prop_assert!(there.before.iter().all(|op| !matches!(op, Op::Remove(_) | Op::RemoveEndpoint(..))));
        prop_assert!(there.after.iter().all(|op| matches!(op, Op::Remove(_) | Op::RemoveEndpoint(..))));
    }
}

/// One Service with two endpoints, the first of them here, as `change` makes it.
fn with(change: impl Fn(&mut ServicePort)) -> Snapshot {
    let mut snapshot = ways::every_way(1);
    let mut port = ServicePort::clone(snapshot.ports().next().unwrap());
    let at = |ip: &str| Endpoint::ready(SocketAddr::new(ip.parse().unwrap(), 8080));
    let here = Endpoint {
        local: true,
        ..at("10.1.0.10")
    };
    port.endpoints = [here, at("10.2.0.10")].into();
    port.cluster_ips = vec!["172.30.0.1".parse().unwrap()];
    port.load_balancer_ips = vec!["198.51.100.1".parse().unwrap()];
    change(&mut port);
    snapshot.set(port);
    snapshot
}

/// The virtual servers of a world with their endpoints, as `ipvsadm` would name them.
fn listed(ipvs: &Ipvs, snapshot: &Snapshot) -> Vec<String> {
    let (state, _) = ipvs.compile(snapshot);
    let line = |(spot, server): (&Spot, &std::sync::Arc<Server>)| {
        let ends = server
            .endpoints
            .iter()
            .map(|(to, weight)| format!("{to}={weight}"));
        let ends: Vec<String> = ends.collect();
        let memory = match server.affinity_s {
            0 => String::new(),
            seconds => format!(" persistent {seconds}"),
        };
        format!("{spot} {}{memory}: {}", server.scheduler, ends.join(" "))
    };
    state.servers().iter().map(line).collect()
}

#[test]
fn every_address_has_a_virtual_server() {
    let snapshot = with(|_| {});
    assert_eq!(
        listed(&ipvs(), &snapshot),
        [
            "172.30.0.1 . 80 . tcp rr: 10.1.0.10:8080=1 10.2.0.10:8080=1",
            "192.168.0.11 . 30001 . tcp rr: 10.1.0.10:8080=1 10.2.0.10:8080=1",
            "198.51.100.1 . 80 . tcp rr: 10.1.0.10:8080=1 10.2.0.10:8080=1",
        ]
    );
}

/// The outside gets local endpoints from the virtual server; pods and the node, who get all, go through nf_tables.
#[test]
fn the_outside_is_what_a_virtual_server_is_for() {
    let snapshot = with(|port| port.external_policy = TrafficPolicy::Local);
    let all = listed(&ipvs(), &snapshot);
    assert_eq!(all[2], "198.51.100.1 . 80 . tcp rr: 10.1.0.10:8080=1");
    let (state, _) = ipvs().compile(&snapshot);
    let rules = show(state.rules());
    assert!(rules.contains("chain alias-mMs-2 {"), "{rules}");
}

#[test]
fn a_scheduler_is_chosen_by_flag_and_by_annotation() {
    let by_flag = Ipvs {
        scheduler: Scheduler::LeastConnection,
        ..ipvs()
    };
    let all = listed(&by_flag, &with(|_| {}));
    assert!(all[0].contains(" lc: "), "{all:?}");
    let sed = Some(Scheduler::ShortestDelay);
    let all = listed(&by_flag, &with(|port| port.scheduler = sed));
    assert!(all[0].contains(" sed: "), "{all:?}");
    let weighted = with(|port| {
        let mut endpoints = port.endpoints.to_vec();
        endpoints[1].weight = 3;
        port.endpoints = endpoints.into();
    });
    let all = listed(&by_flag, &weighted);
    assert!(
        all[0].contains(" wlc: 10.1.0.10:8080=1 10.2.0.10:8080=3"),
        "{all:?}"
    );
}

/// What one kernel lacks must not keep the rules of all Services from standing.
#[test]
fn a_scheduler_that_the_kernel_lacks_is_told() {
    let twos = Scheduler::PowerOfTwo;
    let ipvs = Ipvs {
        missing: vec![twos],
        ..ipvs()
    };
    let snapshot = with(|port| port.scheduler = Some(twos));
    assert!(listed(&ipvs, &snapshot)[0].contains(" rr: "));
    let (_, problems) = ipvs.compile(&snapshot);
    let reasons: Vec<&str> = problems.iter().map(|problem| problem.reason).collect();
    assert_eq!(reasons, ["SchedulerMissing"]);
    let (_, problems) = ipvs.compile(&with(|_| {}));
    assert!(problems.is_empty());
}

/// What no scheduler does as docs/semantics.md says goes through nf_tables, unless a scheduler is asked for by name.
#[test]
fn what_schedulers_do_otherwise_is_left_to_nf_tables() {
    for balance in [Balance::SourceHash, Balance::Maglev, Balance::RoundRobin] {
        let port = |scheduler: Option<Scheduler>| {
            move |port: &mut ServicePort| {
                port.balance = balance;
                port.scheduler = scheduler;
            }
        };
        assert!(listed(&ipvs(), &with(port(None))).is_empty(), "{balance}");
        let named = listed(&ipvs(), &with(port(Some(Scheduler::SourceHash))));
        assert_eq!(named.len(), 3, "{balance}");
    }
    let one_address = with(|port| {
        port.balance = Balance::RoundRobin;
        port.load_balancer_ips.clear();
        port.node_port = None;
    });
    let all = listed(&ipvs(), &one_address);
    assert_eq!(all.len(), 1);
    assert!(all[0].contains(" rr: "), "{all:?}");
}

#[test]
fn what_is_excluded_is_somebody_elses() {
    let ipvs = Ipvs {
        excluded: vec!["198.51.100.0/24".parse().unwrap()],
        ..ipvs()
    };
    let all = listed(&ipvs, &with(|_| {}));
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|line| !line.starts_with("198.51.100")));
}

/// R-AFFINITY-3, and the limit of ipvs mode, which is told.
#[test]
fn clients_are_remembered_at_each_address() {
    let with_affinity = |seconds: u64| {
        with(|port| {
            let timeout = Duration::from_secs(seconds);
            port.affinity = Some(Affinity { timeout });
        })
    };
    for (seconds, written) in [(0, 1), (10_800, 10_800), (1_000_000, 0x1_ffff)] {
        let all = listed(&ipvs(), &with_affinity(seconds));
        let persistent = format!(" persistent {written}: ");
        assert!(all[0].contains(&persistent), "{all:?}");
    }
    let (_, problems) = ipvs().compile(&with_affinity(60));
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].reason, "AffinityPerAddress");
    assert!(
        problems[0].message.contains("answers at 3 addresses"),
        "{problems:?}"
    );
}

/// R-STALE-3: a UDP flow stays with an endpoint that serves while it terminates. TCP is the target's affair.
#[test]
fn who_only_keeps_flows_has_weight_0() {
    let draining = |protocol: Protocol| {
        with(|port| {
            port.key.protocol = protocol;
            let mut endpoints = port.endpoints.to_vec();
            endpoints[1].ready = false;
            endpoints[1].terminating = true;
            port.endpoints = endpoints.into();
        })
    };
    for (protocol, ends) in [
        (Protocol::Tcp, "tcp rr: 10.1.0.10:8080=1"),
        (Protocol::Udp, "udp rr: 10.1.0.10:8080=1 10.2.0.10:8080=0"),
    ] {
        let all = listed(&ipvs(), &draining(protocol));
        assert!(all.iter().any(|line| line.ends_with(ends)), "{all:?}");
    }
}

/// An address that a Service has by itself comes before the node port there, whoever came first.
#[test]
fn an_address_comes_before_a_node_port() {
    let mut snapshot = with(|_| {});
    let (mut state, _) = ipvs().compile(&snapshot);
    let spot = Spot {
        address: "192.168.0.11".parse().unwrap(),
        protocol: Protocol::Tcp,
        port: 30_001,
    };
    let ends = |state: &State| state.servers().get(&spot).map(|s| s.endpoints.len());
    assert_eq!(ends(&state), Some(2));
    let before = snapshot.clone();
    let mut other = ServicePort::clone(snapshot.ports().next().unwrap());
    other.key.port = "other".into();
    other.port = 30_001.try_into().unwrap();
    other.cluster_ips = vec!["172.30.0.2".parse().unwrap()];
    other.external_ips = vec![spot.address];
    other.node_port = None;
    other.load_balancer_ips.clear();
    other.endpoints = other.endpoints[..1].into();
    let key = other.key.clone();
    snapshot.set(other);
    ipvs().update(&mut state, &snapshot, &snapshot.touched(&before));
    assert_eq!(ends(&state), Some(1));
    let before = snapshot.clone();
    snapshot.remove(&key);
    ipvs().update(&mut state, &snapshot, &snapshot.touched(&before));
    assert_eq!(ends(&state), Some(2));
    assert!(state == ipvs().compile(&snapshot).0);
}

/// A virtual server that changes gets its new endpoints before the old ones go.
#[test]
fn a_change_tells_the_kernel_only_itself() {
    let (one, two) = (
        with(|_| {}),
        with(|port| {
            let mut endpoints = port.endpoints.to_vec();
            endpoints[1].address.set_ip("10.3.0.10".parse().unwrap());
            port.endpoints = endpoints.into();
        }),
    );
    let servers = |snapshot: &Snapshot| -> Servers { ipvs().compile(snapshot).0.servers().clone() };
    let changes = changes(&servers(&one), &servers(&two));
    assert_eq!(changes.before.len(), 3);
    assert!(
        changes
            .before
            .iter()
            .all(|op| matches!(op, Op::Weigh(_, _, 1)))
    );
    assert_eq!(changes.after.len(), 3);
    assert!(
        changes
            .after
            .iter()
            .all(|op| matches!(op, Op::RemoveEndpoint(..)))
    );
}
