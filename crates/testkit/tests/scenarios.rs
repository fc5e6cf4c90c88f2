//! Every scenario file against the oracle and against the traces of the data planes.

use std::net::{IpAddr, SocketAddr};

use portolan_dataplane::ebpf::Ebpf;
use portolan_dataplane::iptables::Iptables;
use portolan_dataplane::ipvs::Ipvs;
use portolan_dataplane::nftables::Nftables;
use portolan_model::{Backend, Packet, Protocol, ServicePort, Snapshot, Verdict};
use portolan_relay::{Loopback, Open};
use portolan_testkit::cluster::Cluster;
use portolan_testkit::fake_ebpf::FakeEbpf;
use portolan_testkit::fake_iptables::FakeIptables;
use portolan_testkit::fake_ipvs::FakeIpvs;
use portolan_testkit::fake_nft::FakeNft;
use portolan_testkit::userspace::{self, FakeUserspace};
use portolan_testkit::{Scenario, faulty, pure, random};

/// Runs `prove` over all scenarios and fails with everything that is wrong, by scenario.
fn over_all(prove: impl Fn(&Scenario) -> Vec<String>) {
    let scenarios = Scenario::all().expect("every scenario file can be read");
    assert!(
        scenarios.len() >= 30,
        "only {} scenarios found",
        scenarios.len()
    );
    let wrong: Vec<String> = scenarios
        .iter()
        .flat_map(|scenario| {
            prove(scenario)
                .into_iter()
                .map(|words| format!("{}: {words}", scenario.name))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn the_oracle_agrees() {
    over_all(pure::against_oracle);
}

#[test]
fn the_trace_of_nftables_agrees() {
    over_all(|scenario| pure::against_trace(&Nftables, scenario));
}

#[test]
fn the_trace_of_ebpf_agrees() {
    over_all(|scenario| pure::against_trace(&Ebpf, scenario));
}

#[test]
fn the_trace_of_userspace_agrees() {
    over_all(|scenario| pure::against_trace(&userspace::backend(), &userspace::seen(scenario)));
}

/// Loopback mode answers elsewhere, but whoever comes there from the node is treated as the oracle says: refused where
/// other modes drop.
#[test]
fn the_trace_of_loopback_agrees() {
    let loopback = Loopback { first_port: 1024 };
    let mut compared = 0;
    let scenarios = Scenario::all().expect("every scenario file can be read");
    for scenario in &scenarios {
        let mut cluster = Cluster::new(&scenario.node);
        for step in &scenario.steps {
            cluster.take(step);
            let snapshot = cluster.snapshot();
            let (state, _) = loopback.compile(snapshot);
            let ports = snapshot.ports();
            for port in ports.filter(|port| port.key.protocol != Protocol::Sctp) {
                compared += agree_about(&loopback, &state, snapshot, port, &scenario.name);
            }
        }
    }
    assert!(compared > scenarios.len() / 2, "only {compared} compared");
}

/// At each ClusterIP of one Service port; returns how many those are.
fn agree_about(
    loopback: &Loopback,
    state: &Open,
    snapshot: &Snapshot,
    port: &ServicePort,
    name: &str,
) -> usize {
    let packet = |destination| Packet {
        protocol: port.key.protocol,
        source: "127.0.0.1:4000".parse().expect("an address"),
        destination,
        interface: None,
    };
    let number = port.port.get();
    let places = |ip: &IpAddr| Some((SocketAddr::new(*ip, number), loopback.place(*ip, number)?));
    let all: Vec<_> = port.cluster_ips.iter().filter_map(places).collect();
    for (meant, place) in &all {
        let who = |verdict: &Verdict| verdict.endpoints().collect::<Vec<_>>();
        let wanted = snapshot.route(&packet(*meant));
        let found = loopback.trace(state, &packet(*place));
        assert_eq!(who(&found), who(&wanted), "{name}: {}", port.key);
    }
    all.len()
}

#[test]
fn userspace_converges_whatever_fails() {
    let seed = testkit_seed();
    over_all(|scenario| {
        let fake = FakeUserspace::default();
        let scenario = userspace::seen(scenario);
        let backend = userspace::backend();
        let wrong = faulty::against_faults(&backend, fake, FakeUserspace::wipe, &scenario, seed);
        let named = |words| format!("PORTOLAN_SEED={seed}: {words}");
        wrong.into_iter().map(named).collect()
    });
}

/// The scenarios that say something about iptables; most of them do.
fn over_all_of_iptables(prove: impl Fn(&Scenario) -> Vec<String>) {
    over_all(
        |scenario| match pure::not_applicable(&Iptables::DEFAULT, scenario) {
            Some(_) => Vec::new(),
            None => prove(scenario),
        },
    );
}

#[test]
fn the_trace_of_iptables_agrees() {
    over_all_of_iptables(|scenario| pure::against_trace(&Iptables::DEFAULT, scenario));
}

/// What a mode cannot do is a matter of a few scenarios, each with a reason.
#[test]
fn few_scenarios_are_beyond_iptables() {
    let scenarios = Scenario::all().expect("every scenario file can be read");
    let beyond =
        |scenario: &&Scenario| pure::not_applicable(&Iptables::DEFAULT, scenario).is_some();
    let beyond: Vec<&str> = scenarios
        .iter()
        .filter(beyond)
        .map(|s| s.name.as_str())
        .collect();
    assert!(
        !beyond.is_empty() && beyond.len() * 20 < scenarios.len(),
        "{beyond:?}"
    );
    let hash = |name: &&str| name.contains("hash") || name.contains("maglev");
    assert!(beyond.iter().all(hash), "{beyond:?}");
}

#[test]
fn the_trace_of_ipvs_agrees() {
    over_all(|scenario| pure::against_trace(&Ipvs::default(), scenario));
}

/// Runs with other faults and another order of events, for each scenario.
const FAULTY_RUNS: u64 = 20;

/// The same where every change passes through text, which takes ten times as long.
const FAULTY_RUNS_OF_TEXT: u64 = 4;

#[test]
fn nftables_converges_whatever_fails() {
    over_all(with_faults(FAULTY_RUNS, |scenario, seed| {
        let fake = FakeNft::default();
        faulty::against_faults(&Nftables, fake, FakeNft::wipe, scenario, seed)
    }));
}

#[test]
fn ebpf_converges_whatever_fails() {
    over_all(with_faults(FAULTY_RUNS, |scenario, seed| {
        let fake = FakeEbpf::default();
        faulty::against_faults(&Ebpf, fake, FakeEbpf::wipe, scenario, seed)
    }));
}

#[test]
fn iptables_converges_whatever_fails() {
    over_all_of_iptables(with_faults(FAULTY_RUNS_OF_TEXT, |scenario, seed| {
        let fake = FakeIptables::default();
        let mode = Iptables::DEFAULT;
        faulty::against_faults(&mode, fake, FakeIptables::wipe, scenario, seed)
    }));
}

#[test]
fn ipvs_converges_whatever_fails() {
    over_all(with_faults(FAULTY_RUNS, |scenario, seed| {
        let fake = FakeIpvs::default();
        faulty::against_faults(&Ipvs::default(), fake, FakeIpvs::wipe, scenario, seed)
    }));
}

/// Proves a scenario with several seeds, which failures name.
fn with_faults(
    runs: u64,
    prove: impl Fn(&Scenario, u64) -> Vec<String>,
) -> impl Fn(&Scenario) -> Vec<String> {
    let seed = testkit_seed();
    move |scenario| {
        let wrong_at = |run| {
            let wrong = prove(scenario, seed + run).into_iter();
            wrong.map(move |words| format!("PORTOLAN_SEED={}: {words}", seed + run))
        };
        (0..runs).flat_map(wrong_at).collect()
    }
}

/// `PORTOLAN_SEED`, or a new one for each run; failures print it.
fn testkit_seed() -> u64 {
    let given = std::env::var("PORTOLAN_SEED")
        .ok()
        .map(|text| text.parse().expect("PORTOLAN_SEED is a number"));
    given.unwrap_or_else(|| fastrand::u64(..u64::MAX / 2))
}

proptest::proptest! {
    #[test]
    fn nftables_agrees_with_the_oracle_about_random_clusters(scenario in random::scenario(3)) {
        let wrong = pure::against_trace(&Nftables, &scenario);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn userspace_agrees_with_the_oracle_about_random_clusters(scenario in random::scenario(3)) {
        let scenario = userspace::seen(&scenario);
        let wrong = pure::against_trace(&userspace::backend(), &scenario);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn iptables_agrees_with_the_oracle_about_random_clusters(scenario in random::scenario(3)) {
        let wrong = match pure::not_applicable(&Iptables::DEFAULT, &scenario) {
            Some(_) => Vec::new(),
            None => pure::against_trace(&Iptables::DEFAULT, &scenario),
        };
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn ipvs_agrees_with_the_oracle_about_random_clusters(scenario in random::scenario(3)) {
        let wrong = pure::against_trace(&Ipvs::default(), &scenario);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn ebpf_agrees_with_the_oracle_about_random_clusters(scenario in random::scenario(3)) {
        let wrong = pure::against_trace(&Ebpf, &scenario);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn ebpf_converges_to_random_clusters(scenario in random::scenario(3), seed: u64) {
        let fake = FakeEbpf::default();
        let wrong = faulty::against_faults(&Ebpf, fake, FakeEbpf::wipe, &scenario, seed);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn nftables_converges_to_random_clusters(scenario in random::scenario(3), seed: u64) {
        let wrong = faulty::against_faults(&Nftables, FakeNft::default(), FakeNft::wipe, &scenario, seed);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
