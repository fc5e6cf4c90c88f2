//! The two proofs without I/O: the oracle, and the traces of the data planes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_model::{Backend, Problem, Snapshot};

use crate::cluster::Cluster;
use crate::scenario::Scenario;

/// Runs every packet of a scenario through the oracle; says each answer that is not the expected one.
pub fn against_oracle(scenario: &Scenario) -> Vec<String> {
    at_each_step(scenario, |snapshot, step| {
        let mut wrong = Vec::new();
        for probe in &step.probes {
            let (got, expected) = (snapshot.route(&probe.packet), &probe.verdict);
            if got != *expected {
                wrong.push(format!(
                    "{probe}: expected {expected:?}, the oracle says {got:?}"
                ));
            }
            let shares = reduced(snapshot.shares(&probe.packet));
            let expected = probe.shares.clone().map(reduced);
            if expected.is_some_and(|expected| expected != shares) {
                wrong.push(format!(
                    "{probe}: expected the shares {:?}, the oracle says {shares:?}",
                    probe.shares
                ));
            }
        }
        wrong
    })
}

/// Why a scenario says nothing about this data plane: one of its Services asks for what the mode cannot do, which is
/// told to its owner.
pub fn not_applicable<B: Backend>(backend: &B, scenario: &Scenario) -> Option<String> {
    let mut why = Vec::new();
    at_each_step(scenario, |snapshot, _| {
        let (_, problems) = backend.compile(snapshot);
        let about_mode = |problem: &Problem| problem.reason == Problem::NOT_IN_THIS_MODE;
        why.extend(problems.into_iter().filter(about_mode));
        Vec::new()
    });
    why.first().map(Problem::to_string)
}

/// Runs every packet of a scenario through the trace of `backend`, once for a State that is compiled anew at every
/// step and once for one that is updated from step to step; both must agree with the scenario and with each other.
pub fn against_trace<B: Backend>(backend: &B, scenario: &Scenario) -> Vec<String> {
    let mut standing: Option<(Snapshot, B::State)> = None;
    at_each_step(scenario, |snapshot, step| {
        let (compiled, _) = backend.compile(snapshot);
        let updated = match standing.take() {
            None => compiled.clone(),
            Some((before, mut state)) => {
                backend.update(&mut state, snapshot, &snapshot.touched(&before));
                state
            }
        };
        let mut wrong = Vec::new();
        if updated != compiled {
            wrong.push("an update leads to another State than compiling".to_owned());
        }
        for probe in &step.probes {
            let got = backend.trace(&compiled, &probe.packet);
            if got != probe.verdict {
                wrong.push(format!(
                    "{probe}: expected {:?}, the trace says {got:?}",
                    probe.verdict
                ));
            }
            let shares = backend.shares(&compiled, &probe.packet);
            let expected = snapshot.shares(&probe.packet);
            if shares != expected {
                wrong.push(format!(
                    "{probe}: the trace has the shares {shares:?}, the oracle {expected:?}"
                ));
            }
        }
        standing = Some((snapshot.clone(), updated));
        wrong
    })
}

/// Shares in the smallest whole numbers.
fn reduced(mut shares: BTreeMap<SocketAddr, u32>) -> BTreeMap<SocketAddr, u32> {
    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let common = shares.values().copied().fold(0, gcd).max(1);
    shares.values_mut().for_each(|share| *share /= common);
    shares
}

/// Goes through the steps of a scenario; what `judge` finds wrong gets the step's words in front.
fn at_each_step(
    scenario: &Scenario,
    mut judge: impl FnMut(&Snapshot, &crate::Step) -> Vec<String>,
) -> Vec<String> {
    let mut cluster = Cluster::new(&scenario.node);
    let mut wrong = Vec::new();
    for step in &scenario.steps {
        cluster.take(step);
        let found = judge(cluster.snapshot(), step);
        wrong.extend(found.into_iter().map(|words| match step.say.as_str() {
            "" => words,
            say => format!("({say}) {words}"),
        }));
    }
    wrong
}
