//! Every scenario file against the oracle and against the traces of the data planes.

use portolan_dataplane::nftables::Nftables;
use portolan_testkit::fake_nft::FakeNft;
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

/// Runs with other faults and another order of events, for each scenario.
const FAULTY_RUNS: u64 = 20;

#[test]
fn nftables_converges_whatever_fails() {
    let seed = testkit_seed();
    over_all(|scenario| {
        let wrong_at = |run| {
            let wrong = faulty::against_faults(
                &Nftables,
                FakeNft::default(),
                FakeNft::wipe,
                scenario,
                seed + run,
            );
            wrong
                .into_iter()
                .map(move |words| format!("PORTOLAN_SEED={}: {words}", seed + run))
        };
        (0..FAULTY_RUNS).flat_map(wrong_at).collect()
    });
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
    fn nftables_converges_to_random_clusters(scenario in random::scenario(3), seed: u64) {
        let wrong = faulty::against_faults(&Nftables, FakeNft::default(), FakeNft::wipe, &scenario, seed);
        proptest::prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
