//! Every scenario file against the oracle and against the traces of the data planes.

use portolan_dataplane::nftables::Nftables;
use portolan_testkit::{Scenario, pure};

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
