//! The proof with faults can fail: data planes with a planted defect, and what the proof says about them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use portolan_dataplane::nftables::{Nftables, Op, Ops, State};
use portolan_model::{ApplyError, Backend, Packet, PortKey, Problem, Snapshot, Target, Verdict};
use portolan_testkit::fake_nft::FakeNft;
use portolan_testkit::{Scenario, faulty};

/// What is wrong with a data plane.
#[derive(Clone, Copy, Debug)]
enum Defect {
    /// The control: nothing is.
    None,
    /// Elements that are gone stay in the kernel.
    KeepsElements,
    /// Chains that are needed no more are removed first, while something leads to them.
    RemovesChainsFirst,
    /// Elements are added before those that stand in their place are removed.
    AddsBeforeItRemoves,
    /// A full rewrite builds on what stands.
    RewritesWithoutReset,
    /// An update leaves out the last port that was touched.
    LeavesOnePortOut,
    /// Chains stay without rules.
    ForgetsRules,
}

#[derive(Clone, Copy, Debug)]
struct Defective(Defect);

fn is_removed(op: &Op) -> bool {
    matches!(op, Op::DeleteElements(..) | Op::ForgetElements(..))
}

impl Backend for Defective {
    type State = State;
    type Ops = Ops;

    fn compile(&self, snapshot: &Snapshot) -> (State, Vec<Problem>) {
        Nftables.compile(snapshot)
    }

    fn update(&self, state: &mut State, snapshot: &Snapshot, touched: &[PortKey]) -> Vec<Problem> {
        let touched = match (self.0, touched) {
            (Defect::LeavesOnePortOut, [rest @ .., _]) => rest,
            _ => touched,
        };
        Nftables.update(state, snapshot, touched)
    }

    fn diff(&self, from: Option<&State>, to: &State) -> Ops {
        let Ops(mut ops) = Nftables.diff(from, to);
        match self.0 {
            Defect::None | Defect::LeavesOnePortOut => {}
            Defect::KeepsElements => ops.retain(|op| !is_removed(op)),
            Defect::RemovesChainsFirst => {
                ops.sort_by_key(|op| !matches!(op, Op::Reset(_) | Op::DeleteChain(..)));
            }
            Defect::AddsBeforeItRemoves => ops.sort_by_key(is_removed),
            Defect::RewritesWithoutReset => ops.retain(|op| !matches!(op, Op::Reset(_))),
            Defect::ForgetsRules => ops.retain(|op| !matches!(op, Op::AddRules(..))),
        }
        Ops(ops)
    }

    fn is_empty(&self, ops: &Ops) -> bool {
        Nftables.is_empty(ops)
    }

    fn trace(&self, state: &State, packet: &Packet) -> Verdict {
        Nftables.trace(state, packet)
    }

    fn shares(&self, state: &State, packet: &Packet) -> BTreeMap<SocketAddr, u32> {
        Nftables.shares(state, packet)
    }
}

/// The fake kernel, for a data plane with the States and Ops of nftables mode.
#[derive(Default)]
struct Fake(FakeNft);

impl Target<Defective> for Fake {
    fn apply(&mut self, ops: &Ops) -> Result<(), ApplyError> {
        self.0.apply(ops)
    }

    fn read(&mut self) -> Result<Option<State>, ApplyError> {
        self.0.read()
    }
}

/// What the proof says about all scenarios in which something changes, with one seed each.
fn noticed(defect: Defect) -> usize {
    let scenarios = Scenario::all().expect("every scenario file can be read");
    let changing = scenarios.iter().filter(|scenario| scenario.steps.len() > 1);
    let wrong = |(seed, scenario): (usize, &Scenario)| {
        let target = Fake::default();
        faulty::against_faults(
            &Defective(defect),
            target,
            |fake| fake.0.wipe(),
            scenario,
            seed as u64,
        )
    };
    let runs = changing.enumerate().map(wrong);
    runs.filter(|wrong| !wrong.is_empty()).count()
}

#[test]
fn every_planted_defect_is_noticed() {
    assert_eq!(noticed(Defect::None), 0);
    for defect in [
        Defect::KeepsElements,
        Defect::RemovesChainsFirst,
        Defect::AddsBeforeItRemoves,
        Defect::RewritesWithoutReset,
        Defect::LeavesOnePortOut,
        Defect::ForgetsRules,
    ] {
        assert!(noticed(defect) > 0, "{defect:?} goes through");
    }
}
