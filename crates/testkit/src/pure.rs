//! The two proofs without I/O: the oracle, and the traces of the data planes.

use portolan_model::{Backend, Snapshot};

use crate::cluster::Cluster;
use crate::scenario::Scenario;

/// Runs every packet of a scenario through the oracle; says each answer that is not the expected one.
pub fn against_oracle(scenario: &Scenario) -> Vec<String> {
    at_each_step(scenario, |snapshot, step| {
        let wrong = step.probes.iter().filter_map(|probe| {
            let got = snapshot.route(&probe.packet);
            (got != probe.verdict).then(|| {
                format!(
                    "{probe}: expected {:?}, the oracle says {got:?}",
                    probe.verdict
                )
            })
        });
        wrong.collect()
    })
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
        }
        standing = Some((snapshot.clone(), updated));
        wrong
    })
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
