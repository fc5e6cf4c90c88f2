//! The data planes as the proof on the real kernel runs them.

use portolan_dataplane::nftables::Nftables;
use portolan_kernel::NftTarget;

use crate::live::{Outcome, against_kernel};
use crate::scenario::Scenario;

/// One data plane.
#[derive(Clone, Copy)]
pub struct Mode {
    /// As `--proxy-mode` says it.
    pub name: &'static str,
    /// Runs a scenario on the real kernel. The caller must be in namespaces of its own.
    pub run: fn(&Scenario) -> Outcome,
}

/// All that there are.
pub const ALL: [Mode; 1] = [Mode {
    name: "nftables",
    run: nftables,
}];

fn nftables(scenario: &Scenario) -> Outcome {
    let open = |netns: &portolan_kernel::Netns| match netns.run(NftTarget::open) {
        Ok(target) => target.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    against_kernel(&Nftables, open, scenario)
}
